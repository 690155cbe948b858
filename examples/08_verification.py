"""Slide 8: inference and verification.

Slide: predict a number for two images; above 0.5 they are the same.
Errors: slide 7 trains that number as a distance, small for the same, and slide 8 reads it as a similarity,
large for the same, so every answer is inverted. After the training of slides 10 and 11, a sigmoid with
cross-entropy, it reads the number as it was trained.
Output: a threshold chosen on digits that are not used in training, where the slide has 0.5 by default; a
probability with each answer; and the errors of a threshold of 0.5 on this model's distances.
08_verification.png shows both kinds of pairs with the threshold between them.
"""

import numpy as np

import twinned as tw

digits = tw.data.load_digits()
known, held_out, novel = (digits.with_classes(list(names)) for names in ("01256", "38", "479"))
model = tw.train(known, recipe="glyph", image_size=24, steps=60, validation=held_out, seed=0)

fit = model.manifest.calibration
print(f"threshold {fit.threshold:.3f}, at equal error on the digits 3 and 8, {fit.n_genuine:,} same pairs")
for a, b in ((0, 3), (0, 1), (0, 2)):
    verdict = model.verify(novel.images[a], novel.images[b])
    print(
        f"{novel.labels[a]} and {novel.labels[b]}: {'same' if verdict.same else 'different':9}"
        f" probability {verdict.probability:.2f}, distance {verdict.distance:.3f}"
    )

found = model.evaluate(novel, ways=3, progress=False)
result = found.verification
print(f"\non 4, 7 and 9: equal error rate {result.eer:.3f} [{result.eer_ci[0]:.3f}, {result.eer_ci[1]:.3f}]")

pairs = found.comparisons
for name, threshold in (("chosen on data", model.threshold), ("0.5", 0.5)):
    said = pairs.distance <= threshold
    accepted, rejected = said[~pairs.same].mean(), (~said)[pairs.same].mean()
    print(
        f"{name:15} takes {accepted:.1%} of different pairs for the same, misses {rejected:.1%} of the same"
    )
found_same = np.mean(pairs.distance[pairs.same] > 0.5)
print(f"a distance read as a similarity, 'same above 0.5': {found_same:.1%} of the same pairs are found")
tw.plots.save(tw.plots.distances(pairs, model.threshold), "08_verification.png", force=True)
