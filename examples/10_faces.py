"""Slide 10: face verification, images of 96x96x3.

Slide: two convolutions (64, 128), a dense layer of 128; the Euclidean distance into a dense layer with a
sigmoid; binary cross-entropy, Adam; curves of training and validation.
Errors: none. It leaves open whether its validation pairs show people whom training saw. The weight of the one
distance starts with either sign in Keras; here it starts negative, so that a large distance means different.
Output: the slide's network, head, loss and optimizer on 22 people of the ORL faces, for 40 steps of 16
images, tested on ten people whom training never saw. 10_training.png has the curves: accuracy on training
people ends above that on held-out people. 10_verification.png has both kinds of pairs: about a fifth of the
same pairs lie among the different ones.

The faces come from `twinned data get orl`, or from a copy below the folder that TWINNED_DATA names. Without
them this example uses letters.
"""

import twinned as tw

folder = tw.data.find("orl")
if folder is None:
    print("No faces here: `twinned data get orl` fetches them. Letters instead, at 32x32.")
    data, size = tw.data.load_letters(["latin"], size=32), (32, 32)
else:
    data, size = tw.load_images(folder), (96, 96)
known, novel = data.split_classes(0.75, seed=0)  # no person on both sides
known, held_out = known.split_classes(0.75, seed=0)  # for the curves and the threshold
print(f"{len(known)} images of {len(known.classes)} classes to learn from, {len(novel.classes)} never seen")

model = tw.train(
    known,
    recipe="deck",  # cross-entropy, Adam
    encoder="deck_face",
    image_size=size,
    distance="euclidean",
    steps=40,
    validation=held_out,
    settings={"head": "sigmoid-distance", "classes_per_batch": 8, "images_per_class": 2, "evaluations": 4},
    seed=0,
)
tw.plots.save(tw.plots.history(model.record.history()), "10_training.png", force=True)
found = model.evaluate(novel, ways=10, progress=False)
print(f"equal error rate {found.verification.eer:.3f}, 10-way one-shot {found.one_shot.accuracy:.3f}")
drawn = tw.plots.distances(found.comparisons, model.threshold)
tw.plots.save(drawn, "10_verification.png", force=True)
