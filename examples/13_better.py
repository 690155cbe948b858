"""Slide 13: fine-tuning, better.

Slide: freeze the whole base, train new layers on the new task.
Errors: those of 13_fine_tuning.py.
Output: a model of letters is fine-tuned to digits, with 20 images each of five digits, at another size, with
its first two stages frozen instead of all, so that the later ones adapt. Its convolutions take any size, and
the result is kept only if it beats the model before. Both are measured on four digits that neither was
trained on: the error after fine-tuning is lower.
"""

import numpy as np

import twinned as tw

letters = tw.data.load_letters(["latin"], size=28)
before = tw.train(letters, recipe="glyph", image_size=28, steps=60, seed=0)

digits = tw.data.load_digits()
novel = digits.with_classes(list("3478"))
known = digits.with_classes(list("01256"))
rank = np.array([(known.labels[:i] == label).sum() for i, label in enumerate(known.labels)])
few, more = known.subset(rank < 20), known.subset((rank >= 20) & (rank < 40))

after = tw.finetune(before, few, image_size=32, freeze=2, steps=25, validation=more, seed=0)
for name, model in (("before", before), ("after", after)):
    found = model.evaluate(novel, ways=4, progress=False)
    print(
        f"{name:6} {model.spec.height}x{model.spec.width}: equal error rate {found.verification.eer:.3f}"
        f" and 4-way one-shot {found.one_shot.accuracy:.3f} on digits that neither was trained on"
    )
print("notes:", *after.manifest.notes, sep="\n  ")
