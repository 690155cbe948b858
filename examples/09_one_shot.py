"""Slide 9: one-shot classification.

Slide: compare an image with one example of each class; the class of the largest output is the answer, and
the output is the confidence.
Errors: after slide 7's training the largest output belongs to the least similar class. After cross-entropy,
as here, it is right.
Output: slide 1's network, trained on Latin and Cyrillic letters, names 20 Greek letters from one example
each: about seven in ten are right, where guessing gives one in 20. 09_one_shot.png shows a failure: an
archaic koppa is called an eta, and the koppas are only fourth and fifth. Below each letter: 1 - output.
"""

import numpy as np

import twinned as tw

known, novel = tw.data.load_letters(["latin", "cyrillic"], size=28), tw.data.load_letters(["greek"], size=28)
model = tw.train(known, recipe="deck", steps=150, seed=0)

novel = novel.with_classes(novel.classes[:20])
support_labels = list(novel.classes)
support_set = [novel.with_classes([label]).images[0] for label in support_labels]
support_vectors = model.embed(support_set)


def one_shot_classification(query_image):
    similarities = 1 - model.distances(model.embed([query_image]), support_vectors)[0]
    best = int(np.argmax(similarities))
    return support_labels[best], similarities[best], similarities


right, failure = 0, None
queries = [(label, image) for label in support_labels for image in novel.with_classes([label]).images[1:6]]
for label, image in queries:
    answer, confidence, similarities = one_shot_classification(image)
    right += answer == label
    if answer != label and failure is None:
        failure = label, answer, image, similarities
        print(f"a failure: {label} is called {answer}, confidence {confidence:.2f}")
print(f"{right} of {len(queries)} Greek letters named from one example each; by chance, 5")

label, answer, image, similarities = failure
support = [
    tw.plots.Shown(support_set[k], support_labels[k].removeprefix("greek-"), 1 - float(similarities[k]))
    for k in np.argsort(-similarities)
]
drawn = tw.plots.one_shot(tw.plots.Shown(image, label.removeprefix("greek-")), support)
tw.plots.save(drawn, "09_one_shot.png", force=True)
