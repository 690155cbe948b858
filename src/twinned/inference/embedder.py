"""Embedders: an encoder graph with its preprocessing and distance."""

from __future__ import annotations

import os
import threading
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from .. import distances
from ..data.preprocessing import ImageSpec
from ..errors import ModelError
from . import model_folder
from .model_folder import Manifest
from .session import Floats, Graph, embed_pixels

if TYPE_CHECKING:
    from ..data.pixel_stores import PixelStore


class GraphEmbedder:
    """An encoder graph, compared by one of `twinned.distances`.

    Args:
        graph: Encoder.
        spec: Image preprocessing.
        distance: Name of the distance.
    """

    def __init__(self, graph: Graph, spec: ImageSpec, distance: str) -> None:
        self.encoder, self.spec, self.distance = graph, spec, distance

    def embed_pixels(self, pixels: PixelStore) -> Floats:
        """Embed decoded images: uint8 ``(n, height, width, channels)`` to ``(n, d)``."""
        return embed_pixels(pixels, self.encoder)

    def distances(self, left: Floats, right: Floats) -> Floats:
        """Return distances of all pairs: ``(n, d), (m, d) -> (n, m)``."""
        found: Floats = distances.get(self.distance)(left, right, pairwise=True)
        return found

    def paired_distances(self, left: Floats, right: Floats) -> Floats:
        """Return distances row by row: ``(n, d), (n, d) -> (n,)``."""
        found: Floats = distances.get(self.distance)(left, right)
        return found


class FolderEmbedder(GraphEmbedder):
    """The graphs of a model folder: embeddings, distances and probabilities, as a gallery needs them.

    Args:
        folder: Model folder.
        device: ``auto``, ``cpu``, ``cuda`` and so on; see `twinned.inference.session.Graph`.

    Raises:
        ModelError: If the folder is missing, damaged or of another format.
    """

    def __init__(self, folder: str | os.PathLike[str], *, device: str = "auto") -> None:
        self.folder = Path(folder)
        self.manifest: Manifest = model_folder.read(self.folder)
        needed = ["encoder.onnx", *(["head.onnx"] if self.manifest.head else [])]
        for name in sorted({*needed, *self.manifest.files}):
            model_folder.checked(self.folder, name, self.manifest)
        self.spec, self.distance = self.manifest.spec, self.manifest.distance
        self.device = device
        self._loading = threading.Lock()

    @property
    def threshold(self) -> float:
        """Stored threshold: ``same = distance <= threshold``."""
        return self.manifest.calibration.threshold

    @property
    def embedding_size(self) -> int:
        """Number of values per embedding."""
        return self.manifest.embedding_size

    @property
    def encoder_sha256(self) -> str:
        """SHA-256 of encoder.onnx, to which a gallery is bound."""
        return self.manifest.files["encoder.onnx"]

    @property
    def prototype(self) -> bool:
        """True where labels are identified by the mean of their images rather than by the nearest."""
        return self.manifest.prototype

    @cached_property
    def encoder(self) -> Graph:  # type: ignore[override] # loaded on first use
        """Encoder graph, loaded on first use."""
        with self._loading:
            graph = Graph(self.folder / "encoder.onnx", device=self.device)
        self._check(graph.input_shape, self.spec.shape, "input")
        self._check(graph.output_shape, (self.embedding_size,), "output")
        return graph

    def _check(self, found: tuple[int | str, ...], expected: tuple[int, ...], end: str) -> None:
        """Compare a graph's sizes with model.json; a name instead of a number matches any size."""
        if len(found) != len(expected) or any(f != e for f, e in zip(found, expected) if isinstance(f, int)):
            raise ModelError(
                f"{self.folder}: The {end} of encoder.onnx has the shape {found}, in model.json {expected}."
                " One of the two was changed. Restore the folder from a copy, or train again"
            )

    @cached_property
    def _head(self) -> Graph | None:
        """Graph of the learned head; None without one."""
        if not self.manifest.head:
            return None
        with self._loading:
            return Graph(self.folder / "head.onnx", device="cpu")

    def with_session(self, session: Any) -> Self:
        """Return a copy that runs the encoder in another session, with the interface of `Graph`."""
        found = copy(self)
        found.__dict__["encoder"] = session  # replaces the cached property
        return found

    def distances(self, left: Floats, right: Floats) -> Floats:
        """Return distances of all pairs of embeddings: ``(n, d), (m, d) -> (n, m)``, lower is closer.

        With a learned head the distance is 1 - score.
        """
        if self._head is None:
            return super().distances(left, right)
        scored = np.empty((len(left), len(right)), np.float32)
        for row, vector in enumerate(left):
            scored[row] = self._head(np.broadcast_to(vector, right.shape).copy(), right)
        return np.clip(1 - scored, 0, 1)

    def paired_distances(self, left: Floats, right: Floats) -> Floats:
        """Return distances row by row: ``(n, d), (n, d) -> (n,)``, lower is closer."""
        if self._head is None:
            return super().paired_distances(left, right)
        return np.clip(1 - self._head(left, right), 0, 1)

    def _relations(self, left: Floats, right: Floats) -> list[dict[str, float]]:
        """Return the probability of each relation, row by row; empty without a relation head."""
        if self._head is None or not self.manifest.relations:
            return [{} for _ in left]
        found = self._head(left, right, output="relations")
        return [dict(zip(self.manifest.relations, row, strict=True)) for row in found.tolist()]

    @property
    def rerank(self) -> Any:
        """Distances of the learned head for a gallery, ``(d,), (n, d) -> (n,)``; None without one."""
        if not self.manifest.head:
            return None
        return lambda query, candidates: self.distances(query[None], candidates)[0]

    def probability(self, distance: Any) -> NDArray[np.floating[Any]]:
        """Return the calibrated P(same) at each distance, in [0, 1]."""
        return self.manifest.calibration.probability(distance)

    def identification_threshold(
        self, labels: int, fpir: float = 0.01, *, images_per_label: float = 1.0
    ) -> float:
        """Return the threshold for a gallery; see `Calibration.identification_threshold`."""
        return self.manifest.calibration.identification_threshold(
            labels, fpir, images_per_label=images_per_label, prototype=self.prototype
        )
