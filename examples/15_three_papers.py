"""Slide 15: the three papers.

Slide: read Koch 2015, FaceNet 2015 and Chopra 2005.
Errors: the address that it gives for Koch, arXiv:1504.03641, is another paper's.
Output: the three as recipes, as they were written where that is known: the network of each, and a short
training of each on the same digits, with figures on digits that are not used in training. The papers' own
tasks take minutes to hours: docs/papers.md has the commands, our figures and theirs.
"""

import twinned as tw

digits = tw.data.load_digits()
known, held_out, novel = (digits.with_classes(list(names)) for names in ("01256", "38", "479"))
papers = {
    "koch2015": "Koch, Zemel & Salakhutdinov, ICML Deep Learning Workshop 2015",
    "facenet": "Schroff, Kalenichenko & Philbin, CVPR 2015, arXiv:1503.03832",
    "chopra2005": "Chopra, Hadsell & LeCun, CVPR 2005",
}
# Koch's network has 39 million parameters, for 105x105. Here a small one has its head and its loss.
smaller = {
    "koch2015": {"encoder": "conv4", "height": 20, "width": 20, "learning_rate": 1e-3, "warmup": 10},
    "facenet": {"height": 20, "width": 20, "channels": 1},
    "chopra2005": {},
}

for name, paper in papers.items():
    config = tw.recipes.get(name)
    print(f"{name}: {paper}")
    print(
        f"  images {config.input.height}x{config.input.width}x{config.input.channels},"
        f" encoder {config.encoder.name}, loss {config.loss.name},"
        f" head {config.comparison.head}, distance {config.comparison.distance}"
    )
    model = tw.train(
        known,
        recipe=name,
        steps=40,
        settings=smaller[name] | {"classes_per_batch": 5, "images_per_class": 8, "minutes": None},
        validation=held_out,
        seed=0,
    )
    found = model.evaluate(novel, ways=3, progress=False)
    print(
        f"  after 40 steps: equal error rate {found.verification.eer:.3f},"
        f" 3-way one-shot {found.one_shot.accuracy:.3f}"
    )
