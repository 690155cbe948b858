"""Slide 14: a map of the embeddings, better.

Slide: the map of 14_embedding_map.py.
Errors: none.
Output: 14_better.png, the same 16 Greek letters and 8 Latin ones by a model of the recipe glyph. Training saw
the Latin letters, which are pale: islands of those would prove little. Greek letters form islands too, one of
each. UMAP draws 14_umap.png where umap-learn is installed. The printed shares are the evidence.
"""

from importlib.util import find_spec

import numpy as np

import twinned as tw

known, novel = tw.data.load_letters(["latin", "cyrillic"], size=28), tw.data.load_letters(["greek"], size=28)
model = tw.train(known, recipe="glyph", image_size=28, steps=80, seed=0)

small = [name for name in novel.classes if name.startswith("greek-small") and name.count("-") == 2]
new, old = novel.with_classes(small[:16]), known.with_classes([f"latin-capital-{c}" for c in "aefghkmq"])
images, labels = [*new.images, *old.images], np.concatenate([new.labels, old.labels])
vectors = model.embed(images)

maps = {"tsne": ("t-SNE", "14_better.png")} | ({"umap": ("UMAP", "14_umap.png")} if find_spec("umap") else {})
for method, (name, file) in maps.items():
    points = tw.plots.project(vectors, method=method, distance=model.distance, seed=42)
    drawn = tw.plots.embedding_map(points, labels.tolist(), images=images, seen=known.classes, method=name)
    tw.plots.save(drawn, file, force=True)

nearest = model.distances(vectors, vectors) + 9 * np.eye(len(vectors))
own = labels[nearest.argmin(axis=1)] == labels
print(f"nearest is its letter: {own[: len(new)].mean():.1%} of Greek, {own[len(new) :].mean():.1%} of Latin")
