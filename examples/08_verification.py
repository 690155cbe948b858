"""Slide 8: inference and verification.

Slide: the network's output for two images; above 0.5 they are the same, and the output is the confidence.
Errors: after slide 7's training the output is small for the same, and every answer is inverted. After the
training of slides 10 and 11, a sigmoid with cross-entropy, as here, it is read as it was trained.
Output: slide 1's network, trained on Latin and Cyrillic letters, compares Greek ones. Then the errors of a
threshold of 0.5 and of one that is chosen on held-out letters. 0.5 misses nine in ten same pairs, because few
pairs of a training batch are the same, one in 21 (of slide 6's pairs one in three). 08_verification.png has
the distances (1 - output) of both kinds of pairs: nearly all are above 0.5, and they overlap.
"""

import twinned as tw

known, novel = tw.data.load_letters(["latin", "cyrillic"], size=28), tw.data.load_letters(["greek"], size=28)
model = tw.train(known, recipe="deck", steps=150, seed=0)


def verify_identity(known_image, test_image, threshold=0.5):
    similarity = 1 - model.verify(known_image, test_image).distance
    return similarity > threshold, similarity


gamma, lamda, delta = (
    novel.with_classes([f"greek-small-{name}"]).images for name in ("gamma", "lamda", "delta")
)
for name, a, b in (("two gammas", gamma[0], gamma[5]), ("gamma, lambda", gamma[0], lamda[0]),
                   ("gamma, delta", gamma[0], delta[0])):  # fmt: skip
    same, confidence = verify_identity(a, b)
    print(f"{name:14} same: {same!s:5} confidence: {confidence:.2f}")

pairs = model.evaluate(novel, ways=20, progress=False).comparisons
for name, threshold in (("0.5", 0.5), ("chosen on held-out letters", 1 - model.threshold)):
    accepted = 1 - pairs.distance > threshold
    wrong, missed = accepted[~pairs.same].mean(), (~accepted)[pairs.same].mean()
    print(f"threshold {name}: accepts {wrong:.1%} of different pairs, misses {missed:.1%} of the same")
print(f"the chosen threshold is {1 - model.threshold:.3f}")
tw.plots.save(tw.plots.distances(pairs, model.threshold), "08_verification.png", force=True)
