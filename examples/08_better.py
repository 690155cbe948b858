"""Slide 8: verification, better.

Slide: the output above 0.5 means the same, and is the confidence.
Errors: those of 08_verification.py.
Output: a model that compares unit vectors by their cosine distance, because its loss orders all pairs of a
batch by it; a threshold chosen at equal error on held-out letters; and a calibrated probability in place of
the output. Its threshold makes less than half as many errors as that of 08_verification.py. 08_better.png has
the distances of both kinds of pairs: they overlap a little, around the threshold.
"""

import twinned as tw

known, novel = tw.data.load_letters(["latin", "cyrillic"], size=28), tw.data.load_letters(["greek"], size=28)
model = tw.train(known, recipe="glyph", image_size=28, steps=80, seed=0)

gamma, lamda, delta = (
    novel.with_classes([f"greek-small-{name}"]).images for name in ("gamma", "lamda", "delta")
)
for name, a, b in (("two gammas", gamma[0], gamma[5]), ("gamma, lambda", gamma[0], lamda[0]),
                   ("gamma, delta", gamma[0], delta[0])):  # fmt: skip
    verdict = model.verify(a, b)
    print(f"{name:14} same: {verdict.same!s:5} probability: {verdict.probability:.2f}")

found = model.evaluate(novel, ways=20, progress=False)
pairs, result = found.comparisons, found.verification
accepted = pairs.distance <= model.threshold
wrong, missed = accepted[~pairs.same].mean(), (~accepted)[pairs.same].mean()
print(f"threshold {model.threshold:.3f}: accepts {wrong:.1%} of different pairs, misses {missed:.1%}")
print(f"equal error rate {result.eer:.3f} [{result.eer_ci[0]:.3f}, {result.eer_ci[1]:.3f}]")
tw.plots.save(tw.plots.distances(pairs, model.threshold), "08_better.png", force=True)
