"""The pictures of a trained model, as files: its architecture, its training, its map of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.datasets import ImageSet
from ..inference.projection import project
from .embeddings import embedding_map
from .network import architecture
from .style import Axes, save
from .training import history

if TYPE_CHECKING:
    from ..inference.model import Model


def story(model: Model, images: ImageSet, folder: str | os.PathLike[str], *, seed: int = 0) -> list[Path]:
    """Draw a model: architecture.png, history.png and embeddings.png.

    A model that was not trained step by step has no history.png.

    Args:
        model: A `twinned.inference.model.Model`.
        images: For the map, at least 4; best of classes that training never saw.
        folder: Where the files go.
        seed: Of the map.

    Returns:
        The files.

    Raises:
        SettingError: If a file is there already.
    """
    points = project(model.embed(images.images), distance=model.distance, seed=seed)
    pictures: dict[str, Axes | Sequence[Axes]] = {
        "architecture": draw_architecture(model, images),
        **({} if model.record.without_history() else {"history": history(model.record.history())}),
        "embeddings": embedding_map(
            points, images.labels.tolist(), images=images.images, seen=model.manifest.classes
        ),
    }
    files = [Path(folder) / f"{name}.png" for name in pictures]
    for drawn, file in zip(pictures.values(), files, strict=True):
        save(drawn, file)
    return files


def draw_architecture(model: Model, images: ImageSet | None = None) -> Axes:
    """`architecture` of a saved model; one that was wrapped is one box, since nobody recorded its layers."""
    unknown = [(model.manifest.encoder, str(model.manifest.encoder), (model.embedding_size,), None)]
    return architecture(
        model.record.layers() or unknown,
        image_shape=model.spec.shape,
        embedding_size=model.embedding_size,
        distance=model.distance,
        images=None if images is None or len(images) < 2 else (images.images[0], images.images[1]),
    )
