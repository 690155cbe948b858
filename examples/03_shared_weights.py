"""Slide 3: shared weights.

Slide: two convolutions (32, 64) and a dense layer of 128, for images of 64x64x3; both inputs go through the
same network object.
Errors: none. Two networks that are built by calling the same function twice look alike in a drawing and share
nothing.
Output: the summary of the slide's network, which counts the weights once, and three proofs that they are one
set.
"""

import torch

import twinned as tw

torch.manual_seed(0)
shared = tw.encoders.deck(filters=(32, 64), dense=128, image_size=(64, 64), channels=3)
network = tw.SiameseNetwork(shared, tw.heads.Distance("euclidean")).eval()
print(network.summary(), "\n")

a, b = torch.rand(2, 5, 3, 64, 64)  # five pairs of images
print("embeddings of both sides:", tuple(network.embed(a).shape), tuple(network.embed(b).shape))

# 1. Swapping the images changes nothing: |f(a) - f(b)| = |f(b) - f(a)|. With two sets of weights it would.
print("distances from left to right and back are equal:", torch.equal(network(a, b), network(b, a)))

# 2. The same image on both sides is at distance 0, for any weights.
print("an image with itself:", network(a, a).tolist())

# 3. The gradients of both branches add up in the one weight.
weight = shared.convolutions[0][0].weight
whole, left, right = (
    torch.autograd.grad(loss.sum(), weight)[0]
    for loss in (
        network.head(network.embed(a), network.embed(b)),
        network.head(network.embed(a), network.embed(b).detach()),
        network.head(network.embed(a).detach(), network.embed(b)),
    )
)
print("both branches' gradients add up in the one weight:", torch.allclose(whole, left + right, atol=1e-4))
