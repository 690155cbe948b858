"""Slide 10: face verification, images of 96x96x3.

Slide: two convolutions (64, 128), a dense layer of 128, 96x96x3; a Euclidean distance into a sigmoid, binary
cross-entropy, Adam; curves of training and validation.
Errors: none. It does not state whether its validation pairs show people whom training saw.
Output: the slide's convolutions and dense layer, trained with the recipe's loss instead, on the 40 people of
the ORL faces and tested on ten people whom training never saw. 10_training.png has the curves,
10_verification.png the distances of both kinds of pairs.

The faces come from `twinned data get orl`, or from a copy below the folder that TWINNED_DATA names.
Without them this example uses digits.
"""

import twinned as tw

folder = tw.data.find("orl")
if folder is None:
    print("No faces here: `twinned data get orl` fetches them. Digits instead, in color, at 32x32.")
    known, novel = (tw.data.load_digits().with_classes(list(names)) for names in ("0123568", "479"))
    size = (32, 32)
else:
    known, novel = tw.load_images(folder).split_classes(0.75, seed=0)  # no person on both sides
    size = (96, 96)
known, held_out = known.split_classes(0.75, seed=0)  # for the curves and the threshold
print(f"{len(known)} images of {len(known.classes)} classes to learn from, {len(novel.classes)} never seen")

model = tw.train(
    known,
    recipe="face",
    encoder="deck_face",
    image_size=size,
    steps=60,
    learning_rate=3e-4,  # a tenth of the recipe's, for eight million parameters and small batches
    validation=held_out,
    settings={"channels": 3, "classes_per_batch": 8, "images_per_class": 2, "normalize": True},
    seed=0,
)
tw.plots.save(tw.plots.history(model.record.history()), "10_training.png", force=True)

found = model.evaluate(novel, ways=min(5, len(novel.classes)), progress=False)
print(found.text())
drawn = tw.plots.distances(found.comparisons, model.threshold)
tw.plots.save(drawn, "10_verification.png", force=True)

first = novel.with_classes([novel.classes[0]]).images
other = novel.with_classes([novel.classes[1]]).images
for name, a, b in (("of one class", first[0], first[1]), ("of two", first[0], other[0])):
    verdict = model.verify(a, b)
    print(f"two images {name}: same {verdict.same}, probability {verdict.probability:.2f}")
