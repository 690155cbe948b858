"""Slide 11: signature verification, images of 100x200x1.

Slide: two convolutions (32, 64), a dense layer of 128, 100x200x1; a Euclidean distance into a sigmoid, binary
cross-entropy, Adam; is this signature genuine?
Errors: none. It names no data. In CEDAR the genuine scans have a gray background and the forgeries a white
one. A network that gets the scans can separate them by the background alone, and a perfect figure then proves
nothing about signatures.
Output: `twinned check` finds that shortcut; then only the ink is used. The slide's convolutions and dense
layer, with the recipe's loss instead, are tested on writers whom training never saw, against other writers
and against skilled forgeries.

The signatures come from `twinned data get cedar`, or from a copy below TWINNED_DATA; else digits are used.
"""

import twinned as tw

folder = tw.data.find("cedar")
if folder is None:
    print("No signatures here: `twinned data get cedar` fetches them. Digits instead, without forgeries.")
    data = tw.data.load_digits()
else:
    data = tw.load_images(folder)
    writers = data.classes[:20]
    data = data.with_classes(writers)  # 20 of the 55 writers, to save time
    for problem in tw.check_data(data, progress=False).problems:
        print(f"{problem.severity}: {problem.message[:160]} ...")
known, novel = data.split_classes(0.7, seed=0)  # no writer on both sides

model = tw.train(
    known,
    recipe="signature",  # ink="binary" removes the background
    encoder="deck_signature",
    image_size=(50, 100),  # half the slide's size, to save time
    minutes=0.3,
    settings={"classes_per_batch": 6, "images_per_class": 4},
    seed=0,
)
found = model.evaluate(novel, ways=3, progress=False)
print(f"\nwriters never seen: {', '.join(novel.classes)}")
for kind, part in (found.verification.parts or {"other classes": found.verification}).items():
    print(f"against {kind:14} equal error rate {part.eer:.3f}  ({part.n_impostor:,} comparisons)")
tw.plots.save(tw.plots.distances(found.comparisons, model.threshold), "11_signatures.png", force=True)
print("\nTwenty seconds of a small network; minutes of the recipe do better: docs/signatures.md")
