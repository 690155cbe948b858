"""Slide 7: training.

Slide: a loop over batches of pairs, with contrastive loss, Adam and a progress bar.
Errors: its code passes ONE array to a model of two inputs, which raises. Its loss makes the output small for
same pairs, while slides 8 and 9 take a large output for the same.
Output: training with a progress bar (in a terminal) and another loss, on the digits 0, 1, 2, 5 and 6, and
its evaluation on 4, 7 and 9, which are not used in training. 07_training.png has the curves. The model is in
07_digits.twin.
"""

import twinned as tw

digits = tw.data.load_digits()
known, held_out, novel = (digits.with_classes(list(names)) for names in ("01256", "38", "479"))


class Losses(tw.Callback):
    """Record the loss of each step."""

    def __init__(self):
        self.values = []

    def on_step(self, step):
        self.values.append(step.loss)


recorded = Losses()
model = tw.train(
    known,
    recipe="glyph",
    image_size=24,
    steps=60,
    seed=0,
    validation=held_out,  # 3 and 8: for the held-out curves, and for the threshold
    callbacks=[recorded],
)
model.save("07_digits.twin", force=True)

losses = recorded.values
print(f"loss: {losses[0]:.2f} at first, {sum(losses[-5:]) / 5:.2f} at last, {len(losses)} steps")
print(model.evaluate(novel, ways=3, progress=False))
tw.plots.save(tw.plots.history(model.record.history()), "07_training.png", force=True)

# The network takes both inputs and returns one number for each pair.
left, right, _ = tw.data.make_pairs(novel.labels, pairs=5, seed=1)
for i, j in zip(left, right, strict=True):
    verdict = model.verify(novel.images[i], novel.images[j])
    print(f"{novel.labels[i]} and {novel.labels[j]}: distance {verdict.distance:.3f}, same: {verdict.same}")
