"""Slide 13: fine-tuning to a new task.

Slide: take a trained network, freeze it, give it inputs of a new size and, over both vectors, a new layer
with num_classes outputs, and train that.
Errors: its base model is a Siamese network of two inputs, and gets one, which raises. A network that ends in
Flatten and Dense accepts no new size: the dense layer's weights have another shape.
Output: a model of five digits is fine-tuned to two others, with twenty images each, at another size, with
its first stages frozen; it stays unchanged if that does not help. Then it learns a new task with
num_classes = 3: is a pair the same digit, the same with one of them on its side, or two digits?
"""

import numpy as np

import twinned as tw

digits = tw.data.load_digits()
known, held_out, novel = (digits.with_classes(list(names)) for names in ("01256", "38", "479"))
before = tw.train(known, recipe="glyph", image_size=24, steps=30, validation=held_out, seed=0)

few = held_out.subset(np.arange(len(held_out)) < 40)
half = np.arange(len(novel)) < 200
novel_few, novel = novel.subset(half), novel.subset(~half)
after = tw.finetune(before, few, image_size=32, freeze=2, steps=15, validation=novel_few, seed=0)
for name, model in (("before", before), ("after", after)):
    found = model.evaluate(novel, ways=3, progress=False)
    print(
        f"{name:6} {model.spec.height}x{model.spec.width}: equal error rate {found.verification.eer:.3f}"
        f" and 3-way one-shot {found.one_shot.accuracy:.3f} on digits that neither was trained on"
    )
print("notes:", *after.manifest.notes, sep="\n  ")

# A new task: one of three relations, instead of same or different. It needs pairs with a relation each.
left, right, same = tw.data.make_pairs(digits.labels, pairs=900, same_fraction=2 / 3, seed=0)
turned = same & (np.arange(900) % 2 == 0)  # in every other same pair, one image lies on its side
images = [*digits.images, *(np.rot90(image).copy() for image in digits.images)]
relation = np.where(turned, "same, turned", np.where(same, "same", "different"))
pairs = tw.PairSet(images, left, np.where(turned, right + len(digits), right), same, relation=relation)
three = tw.finetune(before, pairs.subset(np.arange(700)), steps=40, learning_rate=3e-3, seed=0)
print("\nnum_classes = 3:", three.manifest.relations)
asked = three.evaluate(pairs.subset(np.arange(700, 900)), progress=False)
print(f"right for {asked.details['relations']['accuracy']:.1%} of 200 new pairs; by chance, a third")
verdict = three.verify(digits.images[0], np.rot90(digits.images[10]).copy())  # two zeros
print(f"a nought and one on its side: {verdict.relation}, probability {verdict.relation_probability:.2f}")
