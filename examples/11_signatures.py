"""Slide 11: signature verification, images of 100x200x1.

Slide: two convolutions (32, 64), a dense layer of 128; the Euclidean distance into a dense layer with a
sigmoid; binary cross-entropy, Adam; is this signature genuine?
Errors: none. It names no data. In CEDAR the genuine scans have a gray background and the forgeries a white
one, so a network of the scans can separate them by the background alone.
Output: `twinned check` finds that shortcut. Then the slide's network, head, loss and optimizer on the scans
of 14 writers, for 30 steps of 16 images, tested on six other writers. 11_signatures.png has the three kinds
of pairs: skilled forgeries are farther away than the signatures of other writers, which is the shortcut.

The signatures come from `twinned data get cedar`, or from a copy below TWINNED_DATA; else letters are used.
"""

import twinned as tw

folder = tw.data.find("cedar")
if folder is None:
    print("No signatures here: `twinned data get cedar` fetches them. Letters instead, without forgeries.")
    data, size = tw.data.load_letters(["latin"], size=32), (32, 32)
else:
    data, size = tw.load_images(folder), (100, 200)
    data = data.with_classes(data.classes[:20])  # 20 of the 55 writers, to save time
    for problem in tw.check_data(data, progress=False).problems:
        print(f"{problem.severity}: {problem.message[:160]} ...")
known, novel = data.split_classes(0.7, seed=0)  # no writer on both sides

model = tw.train(
    known.subset(~known.forgery),
    recipe="deck",  # cross-entropy, Adam
    encoder="deck_signature",
    image_size=size,
    distance="euclidean",
    steps=30,
    settings={"head": "sigmoid-distance", "classes_per_batch": 8, "images_per_class": 2, "evaluations": 1},
    seed=0,
)
found = model.evaluate(novel, ways=6, progress=False)
for kind, part in (found.verification.parts or {"other classes": found.verification}).items():
    print(f"against {kind:14} equal error rate {part.eer:.3f}  ({part.n_impostor:,} comparisons)")
tw.plots.save(tw.plots.distances(found.comparisons, model.threshold), "11_signatures.png", force=True)
