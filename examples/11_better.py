"""Slide 11: signature verification, better.

Slide: the network and training of 11_signatures.py.
Errors: none.
Output: the recipe for signatures on the same writers. What it changes: only the ink is used, since the
background gives the forgeries away; training sees forgeries, as different from what they imitate; images are
changed at random; and every pair of a batch counts. The equal error rate against other writers is about a
quarter of the slide's; that against forgeries is now about signatures. 11_better.png shows the forgeries
between the same and the different writers, as they should be, and a third of them accepted.

The signatures come from `twinned data get cedar`, or from a copy below TWINNED_DATA; else letters are used.
"""

import twinned as tw

folder = tw.data.find("cedar")
if folder is None:
    print("No signatures here: `twinned data get cedar` fetches them. Letters instead, without forgeries.")
data = tw.data.load_letters(["latin"], size=32) if folder is None else tw.load_images(folder)
known, novel = data.with_classes(data.classes[:20]).split_classes(0.7, seed=0)  # no writer on both sides

model = tw.train(
    known,
    recipe="signature",
    image_size=(40, 80),
    steps=60,
    settings={"classes_per_batch": 8, "images_per_class": 4, "evaluations": 1},
    seed=0,
)
found = model.evaluate(novel, ways=6, progress=False)
for kind, part in (found.verification.parts or {"other classes": found.verification}).items():
    print(f"against {kind:14} equal error rate {part.eer:.3f}  ({part.n_impostor:,} comparisons)")
tw.plots.save(tw.plots.distances(found.comparisons, model.threshold), "11_better.png", force=True)
print("Minutes of the recipe at its own size do better: docs/signatures.md")
