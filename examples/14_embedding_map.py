"""Slide 14: a map of the embeddings.

Slide: t-SNE projects the embeddings to two dimensions, to show how well classes separate.
Errors: none. It maps test images, and does not state whether training saw their classes. Islands of such
classes prove little.
Output: digits that are not used in training next to those that are, with thumbnails, as 14_tsne.png, and
14_umap.png where the package umap-learn is installed. Sizes and distances of islands mean nothing in such a
map.
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

# Islands in a picture are no proof, so measure.
nearest = model.distances(vectors, vectors) + 9 * np.eye(len(vectors))
new = np.isin(shown.labels, list("34789"))
own = shown.labels[nearest.argmin(axis=1)] == shown.labels
print(f"nearest is the same digit: {own[~new].mean():.1%} of the known, {own[new].mean():.1%} of the new")
