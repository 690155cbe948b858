"""Slide 6: making pairs and triplets.

Slide: train on pairs labeled same or different, or on triplets. Its code makes all same pairs of each class
and, for each image, as many different pairs as its class has images.
Errors: none. Just under a third of its pairs are the same, and it copies both images into every pair (80,240
pairs for the 2,720 images of 136 classes).
Output: pairs and triplets as indices of images. Nothing is copied, and half of the pairs are the same.
"""

import numpy as np

import twinned as tw

digits = tw.data.load_digits()
n, size = len(digits), digits.images[0].nbytes

left, right, same = tw.data.make_pairs(digits.labels, pairs=10_000, seed=0)
print(f"{len(same):,} pairs, {same.mean():.0%} of them the same; {left.nbytes + right.nbytes:,} bytes")
print(f"the same pairs as copies of images, as floats: {2 * 4 * size * len(same):,} bytes")
assert (digits.labels[left] == digits.labels[right])[same].all()
assert (left != right).all()  # no image is paired with itself

of_class = np.unique(digits.labels, return_counts=True)[1]
alike, different = (of_class * (of_class - 1) // 2).sum(), (of_class**2).sum()
print(f"the slide's pairs: {alike + different:,}, {alike / (alike + different):.1%} the same")

every = n * (n - 1) // 2
print(
    f"all {every:,} pairs: {2 * 4 * size * every / 1e9:.1f} GB as copies; all are seen here, batch by batch:"
)

anchor, positive, negative = tw.data.make_triplets(digits.labels, triplets=5, seed=0)
for k in range(5):
    print("  triplet", *(f"{digits.labels[i]} (image {i})" for i in (anchor[k], positive[k], negative[k])))

batches = tw.data.ClassBatches(digits.class_index, classes=10, images=8, seed=0)
batch = batches(0)  # 80 images, each embedded once, for all their pairs
alike = (batch.labels[:, None] == batch.labels).sum() - len(batch.labels)
print(f"one batch of {len(batch.index)} images: {len(batch.index) * 79 // 2:,} pairs, {alike // 2} the same")
