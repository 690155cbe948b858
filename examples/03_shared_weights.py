"""Slide 3: shared weights.

Slide: both branches use the same weights, so both images are measured by the same standard.
Errors: none. Its code calls one model object twice. Two models that are built by calling the same function
twice look alike in a drawing and share nothing.
Output: the summary, which counts the weights once, and three proofs that they are one set.
"""

import torch

import twinned as tw

torch.manual_seed(0)
network = tw.SiameseNetwork(tw.encoders.Conv4(image_size=(16, 16)), tw.heads.Distance("euclidean"))
network.eval()
print(network.summary(), "\n")

a, b = torch.rand(2, 5, 1, 16, 16)  # five pairs of images

# 1. Swapping the images changes nothing: |f(a) - f(b)| = |f(b) - f(a)|. With two sets of weights it would.
print("distances from left to right and back are equal:", torch.equal(network(a, b), network(b, a)))

# 2. The same image on both sides is at distance 0, for any weights.
print("an image with itself:", network(a, a).tolist())

# 3. The gradients of both branches add up in the one weight.
weight = network.encoder.blocks[0][0].weight
whole, left, right = (
    torch.autograd.grad(loss.sum(), weight)[0]
    for loss in (
        network.head(network.embed(a), network.embed(b)),
        network.head(network.embed(a), network.embed(b).detach()),
        network.head(network.embed(a).detach(), network.embed(b)),
    )
)
print("both branches' gradients add up in the one weight:", torch.allclose(whole, left + right, atol=1e-5))
