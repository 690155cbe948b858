"""Slide 14: a map of the embeddings.

Slide: t-SNE, with random state 42, projects the embeddings of test images to two dimensions; a scatter plot
colors them by class.
Errors: none. It leaves open whether training saw the classes of the test images.
Output: 14_tsne.png, the map of slide 1's network for 16 Greek letters that training never saw: most letters
are in several places, bold typefaces away from light ones. Sizes and distances of islands mean nothing in
such a map, so the share of images whose nearest neighbor is the same letter is printed beside it.
"""

import numpy as np

import twinned as tw

known, novel = tw.data.load_letters(["latin", "cyrillic"], size=28), tw.data.load_letters(["greek"], size=28)
model = tw.train(known, recipe="deck", steps=150, seed=0)

small = [name for name in novel.classes if name.startswith("greek-small") and name.count("-") == 2]
shown = novel.with_classes(small[:16])
embeddings = model.embed(list(shown.images))
points = tw.plots.project(embeddings, method="tsne", distance="euclidean", seed=42)
names = [label.removeprefix("greek-small-") for label in shown.labels]
drawn = tw.plots.embedding_map(points, names, images=shown.images, method="t-SNE")
tw.plots.save(drawn, "14_tsne.png", force=True)

nearest = tw.distances.euclidean(embeddings, embeddings, pairwise=True)
np.fill_diagonal(nearest, np.inf)
own = shown.labels[nearest.argmin(axis=1)] == shown.labels
print(
    f"{len(shown)} images of {len(small[:16])} letters: the nearest is the same letter for {own.mean():.1%}"
)
