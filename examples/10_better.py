"""Slide 10: face verification, better.

Slide: the network and training of 10_faces.py.
Errors: none.
Output: two models of the same people. The recipe `face` trains a network on these images alone, at 48x48.
What it changes: faces are found and aligned where the extra `faces` is installed; gray images; batch
normalization, and less than a tenth of the weights; faces that vary in training; and every pair of a batch
in the loss. Without a recipe, training starts from the ready-made model `face`, which was trained on three
million faces of other people: nearly no errors are left. 10_better.png has both kinds of pairs of this
model, which hardly overlap.

The faces come from `twinned data get orl`, or from a copy below TWINNED_DATA; else letters are used.
"""

import twinned as tw

folder = tw.data.find("orl")
if folder is None:
    print("No faces here: `twinned data get orl` fetches them. Letters instead.")
data = tw.data.load_letters(["latin"], size=32) if folder is None else tw.load_images(folder)
known, novel = data.split_classes(0.75, seed=0)  # no person on both sides
known, held_out = known.split_classes(0.75, seed=0)

for name, options in (
    ("these images alone", {"recipe": "face", "image_size": 48, "steps": 60, "settings": {"evaluations": 2}}),
    ("from the model face", {"minutes": 0.3}),
):
    model = tw.train(known, validation=held_out, seed=0, **options)
    found = model.evaluate(novel, ways=10, progress=False)
    print(f"{name:20} equal error rate {found.verification.eer:.3f}", end=", ")
    print(f"10-way one-shot {found.one_shot.accuracy:.3f}")
drawn = tw.plots.distances(found.comparisons, model.threshold)
tw.plots.save(drawn, "10_better.png", force=True)

first, other = (novel.with_classes([novel.classes[k]]).images for k in (0, 1))
for name, a, b in (("of one class", first[0], first[1]), ("of two", first[0], other[0])):
    verdict = model.verify(a, b)
    print(f"two images {name}: same {verdict.same}, probability {verdict.probability:.2f}")
