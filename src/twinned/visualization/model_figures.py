"""Figures of a trained model: architecture, training history, map of embeddings, explanations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.datasets import ImageSet
from ..inference.explain import Explanation
from ..inference.projection import project
from .maps import embedding_map
from .network import architecture
from .panels import matches
from .style import Axes, Drawn, save
from .training import history

if TYPE_CHECKING:
    from ..inference.model import Model


def story(model: Model, images: ImageSet, folder: str | os.PathLike[str], *, seed: int = 0) -> list[Path]:
    """Write architecture.png, history.png and embeddings.png of a model, and return their paths.

    There is no history.png of a model that was not trained step by step.

    Args:
        model: Model to draw.
        images: At least 4 images for the map, preferably of classes not used in training.
        folder: Folder to write to.
        seed: Seed of the map.

    Raises:
        SettingError: If a file exists.
    """
    points = project(model.embed(images.images), distance=model.distance, seed=seed)
    pictures: dict[str, Drawn] = {"architecture": draw_architecture(model, images)}
    if not model.record.without_history():
        pictures["history"] = history(model)
    labels, seen = images.labels.tolist(), model.manifest.classes
    pictures["embeddings"] = embedding_map(points, labels, images=images.images, seen=seen)
    files = [Path(folder) / f"{name}.png" for name in pictures]
    for drawn, file in zip(pictures.values(), files, strict=True):
        save(drawn, file)
    return files


def draw_architecture(model: Model, images: ImageSet | None = None) -> Axes:
    """Draw the `architecture` of a saved model; a wrapped encoder, whose layers are unknown, is one box."""
    unknown = [(model.manifest.encoder, str(model.manifest.encoder), (model.embedding_size,), None)]
    return architecture(
        model.record.layers() or unknown,
        image_shape=model.spec.shape,
        embedding_size=model.embedding_size,
        distance=model.distance,
        images=None if images is None or len(images) < 2 else (images.images[0], images.images[1]),
    )


def draw_explanation(found: Explanation, *, threshold: float | None, probability: float | None) -> Axes:
    """Draw an explanation with its verdict; both are None for a model without a threshold."""
    title = f"Distance {found.distance:.4g}"
    if threshold is not None:
        verdict = "same" if found.distance <= threshold else "different"
        title = f"Verdict: {verdict}. {title}, threshold {threshold:.4g}, P(same) {probability:.3f}"
    color = "Blue: covering the region increases the distance. Orange: decreases it."
    if found.method == "exact":
        color = "Blue: contribution of a region to the similarity. Orange: negative contribution."
    return matches(
        found.left,
        found.right,
        left_map=found.left_share,
        right_map=found.right_share,
        links=found.strongest(),
        title=title,
        caption=f"{color} {found.text(threshold)}",
        faint=found.is_weak(threshold),
    )
