"""Slide 1: a Siamese network. Two inputs go in, one score comes out.

Slide: one network looks at both images and returns how similar they are.
Errors: none.
Output: a score for each pair. It exists before any training, but has little meaning: two threes score hardly
higher than a three and an eight. Slides 5 to 7 add the learning.
"""

import numpy as np
import torch

import twinned as tw

digits = tw.data.load_digits()  # 1,797 handwritten digits, 8x8, from scikit-learn
pixels = torch.tensor(np.stack(digits.images))[:, None] / 255  # floats in [0, 1]: (1797, 1, 8, 8)

torch.manual_seed(0)
encoder = tw.encoders.deck(filters=(32,), dense=64, image_size=(8, 8), channels=1)
network = tw.SiameseNetwork(encoder, head=tw.heads.SigmoidDistance())
network.eval()

threes = (digits.labels == "3").nonzero()[0]
eight = (digits.labels == "8").nonzero()[0][0]
for name, a, b in (
    ("a three with itself", threes[0], threes[0]),
    ("a three with another three", threes[0], threes[1]),
    ("a three with an eight", threes[0], eight),
):
    with torch.no_grad():
        left, right = pixels[[a]], pixels[[b]]
        distance = network(left, right)  # two inputs, one number for each pair
        score = network.head.score(network.embed(left), network.embed(right))
    print(f"{name:28} score {score.item():.3f}  distance {distance.item():.3f}")

print("\nA score is higher for images that are alike, a distance is lower: here it is 1 - score.")
