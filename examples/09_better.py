"""Slide 9: one-shot classification, better.

Slide: the most similar class is the answer, for any image.
Errors: those of 09_one_shot.py.
Output: the same 100 queries, named by a model of the recipe glyph, whose loss compares each image with all
others of a batch: over nine in ten are right. Letters of which there is no example are called *unknown* where
the nearest class is beyond the threshold, about six in ten of them; the slide names a class for any image.
09_better.png shows a query and all 20 examples, the nearest first.
"""

import twinned as tw

known, greek = tw.data.load_letters(["latin", "cyrillic"], size=28), tw.data.load_letters(["greek"], size=28)
model = tw.train(known, recipe="glyph", image_size=28, steps=80, seed=0)

novel, strangers = greek.with_classes(greek.classes[:20]), greek.with_classes(greek.classes[20:])
examples = {label: [novel.with_classes([label]).images[0]] for label in novel.classes}
queries = [(label, image) for label in examples for image in novel.with_classes([label]).images[1:6]]

forced = model.classify([image for _, image in queries], examples, threshold=float("inf"))
free = model.classify([image for _, image in queries], examples)
truth = [label for label, _ in queries]
print(f"{sum(g.label == t for g, t in zip(forced, truth, strict=True))} of 100 named rightly")
print(
    f"with unknown allowed: {sum(g.label == t for g, t in zip(free, truth, strict=True))} rightly,"
    f" {sum(g.label is None for g in free)} unknown"
)
others = model.classify(strangers.images[:100], examples)
print(f"100 letters without an example: {sum(g.label is None for g in others)} unknown")

label, query = queries[-1]
distances = model.distances(model.embed([query]), model.embed([e[0] for e in examples.values()]))[0]
nearest = sorted(zip(distances, examples.items(), strict=True), key=lambda found: found[0])
support = [
    tw.plots.Shown(example[0], name.removeprefix("greek-"), float(distance))
    for distance, (name, example) in nearest
]
query = tw.plots.Shown(query, label.removeprefix("greek-"))
drawn = tw.plots.one_shot(query, support, threshold=model.threshold)
tw.plots.save(drawn, "09_better.png", force=True)
