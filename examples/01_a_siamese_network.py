"""Slide 1: a Siamese network. Two inputs go in, one score comes out.

Slide: a convolution of 64 filters of 3x3, 2x2 max pooling, a dense layer of 128; |a - b| of both embeddings
into a dense layer with one output and a sigmoid. The size of the images is left open.
Errors: none.
Output: the slide's network for letters of 28x28, with its number of parameters, and a score for each pair. It
exists before any training, but has no meaning yet: the same letter may score lower than another. Slides 5 to
7 add the learning.
"""

import numpy as np
import torch

import twinned as tw

letters = tw.data.load_letters(["latin"], size=28)  # drawn with the typefaces of matplotlib
pixels = torch.tensor(np.stack(letters.images))[:, None] / 255  # floats in [0, 1]: (n, 1, 28, 28)

torch.manual_seed(0)
encoder = tw.encoders.deck(filters=(64,), dense=128, image_size=(28, 28), channels=1)
network = tw.SiameseNetwork(encoder, head=tw.heads.deck("difference"))
network.eval()
print(network.summary(), "\n")

first, second = ((letters.labels == f"latin-capital-{name}").nonzero()[0] for name in "ab")
for name, a, b in (
    ("an A with itself", first[0], first[0]),
    ("an A with an A of another typeface", first[0], first[1]),
    ("an A with a B", first[0], second[0]),
):
    with torch.no_grad():
        left, right = pixels[[a]], pixels[[b]]
        score = network.head.score(network.embed(left), network.embed(right))
        distance = network(left, right)  # two inputs, one number for each pair: 1 - score
    print(f"{name:35} score {score.item():.3f}  distance {distance.item():.3f}")
