"""Slide 6: making pairs and triplets.

Slide: all same pairs of each class and, for each image, as many different pairs as its class has images; 100
random images of 28x28 in 10 classes.
Errors: none. Just under a third of its pairs are the same, and it copies both images into every pair.
Output: the slide's pairs by name, for its own example and for letters; then half of the pairs the same, as
indices, with the memory of both; triplets; and how many pairs one batch of images holds.
"""

import numpy as np

import twinned as tw


def count(name, labels, **options):
    left, right, same = tw.data.make_pairs(labels, seed=0, **options)
    copies = 2 * len(same) * 28 * 28 * 4
    indices = left.nbytes + right.nbytes + len(labels) * 28 * 28
    print(f"{name}: {len(same):,} pairs, {same.sum():,} the same ({same.mean():.1%})")
    print(f"  {copies:,} bytes as copies of images, {indices:,} as indices and images")
    return left, right, same


count("the slide's example", np.random.default_rng(0).integers(0, 10, 100), scheme="deck")

letters = tw.data.load_letters(["latin"], size=28)
left, right, same = count(f"{len(letters):,} letters, slide's scheme", letters.labels, scheme="deck")
print("  letters in the first 200 pairs:", *set(letters.labels[left[:200]]), "- shuffle the pairs")
left, right, same = count("balanced", letters.labels, pairs=20_000)
assert (letters.labels[left] == letters.labels[right])[same].all()
assert (left != right).all()  # no image is paired with itself

anchor, positive, negative = tw.data.make_triplets(letters.labels, triplets=3, seed=0)
for k in range(3):
    print("triplet:", *(f"{letters.labels[i]} (image {i})" for i in (anchor[k], positive[k], negative[k])))

batches = tw.data.ClassBatches(letters.class_index, classes=16, images=4, seed=0)
batch = batches(0)  # 64 images, each embedded once, for all their pairs; slide 7 embeds 64 for 32 pairs
alike = ((batch.labels[:, None] == batch.labels).sum() - 64) // 2
print(f"one batch of 64 images: {64 * 63 // 2:,} pairs, {alike} the same")
