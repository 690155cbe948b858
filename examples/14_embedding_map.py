"""Slide 14: a map of the embeddings.

What the slide says: t-SNE brings the embeddings down to two dimensions, to see how well classes separate.
Where its code goes wrong: nowhere. It maps test images, and leaves open whether training saw their classes,
of which islands prove little.
What you see here: digits that training never saw beside those it knows, with thumbnails, as 14_tsne.png;
and 14_umap.png where the package umap-learn is installed. Sizes and distances of islands mean nothing in
such a map.
"""

from importlib.util import find_spec

import numpy as np

import twinned as tw

digits = tw.data.load_digits()
known, held_out = digits.with_classes(list("01256")), digits.with_classes(list("38"))
model = tw.train(known, recipe="glyph", image_size=24, steps=60, validation=held_out, seed=0)

shown = digits.subset(np.random.default_rng(0).permutation(len(digits))[:500])
vectors = model.embed(list(shown.images))

maps = {"tsne": "t-SNE"} | ({"umap": "UMAP"} if find_spec("umap") else {})
for method, name in maps.items():
    points = tw.plots.project(vectors, method=method, distance=model.distance, seed=0)
    drawn = tw.plots.embedding_map(
        points, shown.labels.tolist(), images=shown.images, seen=known.classes, method=name
    )
    tw.plots.save(drawn, f"14_{method}.png", force=True)
    print(f"14_{method}.png: {len(shown)} digits; 3, 4, 7, 8 and 9 were never trained on")
if "umap" not in maps:
    print("pip install umap-learn adds the same by UMAP")

# Islands in a picture are no proof; a figure is.
nearest = model.distances(vectors, vectors) + 9 * np.eye(len(vectors))
new = np.isin(shown.labels, list("34789"))
own = shown.labels[nearest.argmin(axis=1)] == shown.labels
print(f"nearest is the same digit: {own[~new].mean():.1%} of the known, {own[new].mean():.1%} of the new")
