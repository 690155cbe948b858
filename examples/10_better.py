"""Slide 10: face verification, better.

Slide: the network and training of 10_faces.py.
Errors: none.
Output: the recipe for faces on the same people, at 48x48. What it changes: gray images, since these have no
color; batch normalization, and less than a tenth of the weights; mirrored, shifted and erased copies of each
face; and every pair of a batch in the loss. The equal error rate on people whom training never saw is less
than half of the slide's. 10_better.png has both kinds of pairs, which overlap less.

The faces come from `twinned data get orl`, or from a copy below TWINNED_DATA; else letters are used.
"""

import twinned as tw

folder = tw.data.find("orl")
if folder is None:
    print("No faces here: `twinned data get orl` fetches them. Letters instead.")
data = tw.data.load_letters(["latin"], size=32) if folder is None else tw.load_images(folder)
known, novel = data.split_classes(0.75, seed=0)  # no person on both sides
known, held_out = known.split_classes(0.75, seed=0)

model = tw.train(
    known, recipe="face", image_size=48, steps=60, validation=held_out, settings={"evaluations": 2}, seed=0
)
found = model.evaluate(novel, ways=10, progress=False)
print(f"equal error rate {found.verification.eer:.3f}, 10-way one-shot {found.one_shot.accuracy:.3f}")
drawn = tw.plots.distances(found.comparisons, model.threshold)
tw.plots.save(drawn, "10_better.png", force=True)

first, other = (novel.with_classes([novel.classes[k]]).images for k in (0, 1))
for name, a, b in (("of one class", first[0], first[1]), ("of two", first[0], other[0])):
    verdict = model.verify(a, b)
    print(f"two images {name}: same {verdict.same}, probability {verdict.probability:.2f}")
