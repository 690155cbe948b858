"""Slide 9: one-shot classification.

Slide: compare a new image with one example of each class; the most similar is its class.
Errors: its code takes the class with the largest number. After slide 7's loss that is the least similar
class.
Output: digits that are not used in training, recognized from one example each, and "unknown" where no
example is close enough. The slide always names a class. 09_one_shot.png shows a query and its answer, with
the three distances.
"""

import twinned as tw

digits = tw.data.load_digits()
known, held_out, novel = (digits.with_classes(list(names)) for names in ("01256", "38", "479"))
model = tw.train(known, recipe="glyph", image_size=24, steps=60, validation=held_out, seed=0)

# The model gets one example of each of the classes 4, 7 and 9.
examples = {label: [novel.with_classes([label]).images[0]] for label in novel.classes}
rest = {label: novel.with_classes([label]).images[1:101] for label in novel.classes}

for label, images in rest.items():
    forced = model.classify(images, examples, threshold=float("inf"))
    free = model.classify(images, examples)
    print(
        f"{label}: right {sum(g.label == label for g in forced):3} of {len(images)} when it must choose;"
        f" with unknown allowed: right {sum(g.label == label for g in free)},"
        f" unknown {sum(g.label is None for g in free)}"
    )

strangers = held_out.images[:100]  # 3 and 8, which have no example
guesses = model.classify(strangers, examples)
print(
    f"a 3 or an 8, of which there is no example: unknown for {sum(g.label is None for g in guesses)} of 100"
)

found = model.evaluate(novel, ways=3, shots=1, progress=False).one_shot
print(f"\n{found.ways}-way 1-shot over {found.episodes} episodes: {found.accuracy:.3f}")

query = rest["9"][0]
distances = model.distances(model.embed([query]), model.embed([e[0] for e in examples.values()]))[0]
support = [
    tw.plots.Shown(example[0], label, float(distance))
    for (label, example), distance in zip(examples.items(), distances, strict=True)
]
drawn = tw.plots.one_shot(tw.plots.Shown(query, "9"), support, threshold=model.threshold)
tw.plots.save(drawn, "09_one_shot.png", force=True)
