"""Embedders: an encoder graph with its preprocessing and distance."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from copy import copy
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from ..data.images import ImageSource
from ..data.preprocessing import ImageSpec, read_image
from ..distances import get as distance_of
from ..errors import MissingExtra
from ..evaluation.calibration import FittedThreshold
from . import model_folder
from .model_folder import Manifest
from .session import Floats, Graph, embed_pixels

# Cosine distance of model `photo`: half of the copies that were saved at JPEG quality 50 or cropped by 5 % a
# side are closer, and 1 to 5 % of the images of objects and logos have another image that is.
_NEAR_DUPLICATE = 0.1

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.pixel_stores import PixelStore
    from ..nn.siamese import SiameseNetwork


def training_function(name: str, use: str) -> Callable[..., Any]:
    """Import a function of `twinned.training.networks` on first use; ``use`` is its public name."""
    try:
        function: Callable[..., Any] = getattr(import_module("twinned.training.networks"), name)
    except ModuleNotFoundError:
        raise MissingExtra("train", use) from None
    return function


def distinct(vectors: Floats) -> Floats:
    """Return embeddings without copies."""
    return vectors[np.sort(np.unique(vectors.round(4), axis=0, return_index=True)[1])]


class GraphEmbedder:
    """An encoder graph, compared by one of `twinned.distances` or by the graph of a learned head."""

    def __init__(self, graph: Graph, spec: ImageSpec, distance: str, *, head: Graph | None = None) -> None:
        self.encoder, self.spec, self.distance, self._head = graph, spec, distance, head

    def embed_pixels(self, pixels: PixelStore) -> Floats:
        """Embed decoded images: uint8 ``(n, height, width, channels)`` to ``(n, d)``."""
        return embed_pixels(pixels, self.encoder)

    def distances(self, left: Floats, right: Floats) -> Floats:
        """Return all distances, ``(n, d), (m, d) -> (n, m)``, lower is closer; 1 - score with a head."""
        if self._head is None:
            found: Floats = distance_of(self.distance)(left, right, pairwise=True)
            return found
        scored = np.empty((len(left), len(right)), np.float32)
        for row, vector in enumerate(left):
            scored[row] = self._head(np.broadcast_to(vector, right.shape).copy(), right)
        return np.clip(1 - scored, 0, 1)

    def paired_distances(self, left: Floats, right: Floats) -> Floats:
        """Return distances row by row: ``(n, d), (n, d) -> (n,)``, lower is closer."""
        if self._head is None:
            found: Floats = distance_of(self.distance)(left, right)
            return found
        return np.clip(1 - self._head(left, right), 0, 1)


class FolderEmbedder(GraphEmbedder):
    """The graphs of a model folder: embeddings, distances and probabilities, as a gallery needs them."""

    def __init__(self, folder: str | os.PathLike[str], *, device: str = "auto") -> None:
        self.folder = model_folder.locate(folder)
        self.manifest: Manifest = model_folder.read(self.folder)
        needed = ["encoder.onnx", *(["head.onnx"] if self.manifest.head else [])]
        for name in sorted({*needed, *self.manifest.files}):
            model_folder.checked(self.folder, name, self.manifest)
        self.spec, self.distance = self.manifest.spec, self.manifest.distance
        self.device = device
        self._loading = threading.Lock()

    @property
    def threshold(self) -> float:
        """Stored threshold: ``same = distance <= threshold``.

        Raises:
            SettingError: If the model has none.
        """
        return self.manifest.calibration.threshold

    @property
    def near_duplicate(self) -> float:
        """Largest distance of near-duplicates: a tenth of the threshold, or 0.1 without one."""
        return _NEAR_DUPLICATE if self.manifest.threshold is None else self.threshold / 10

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
        graph.check(self.spec.shape, (self.manifest.embedding_size,))
        return graph

    @cached_property
    def _head(self) -> Graph | None:  # type: ignore[override] # loaded on first use
        """Graph of the learned head; None without one."""
        if not self.manifest.head:
            return None
        with self._loading:
            return Graph(self.folder / "head.onnx", device="cpu")

    def __copy__(self) -> Self:
        """Return a copy with the same sessions and folder; pickling (`Model.__reduce__`) loads both again."""
        found = object.__new__(type(self))
        found.__dict__.update(self.__dict__)
        return found

    def with_faces(self, faces: str | None = None, min_face: int | None = None) -> Self:
        """Return a model that looks for the faces of photographs in another way; needs the extra ``faces``.

        The model itself is not changed; it is returned where it already works in this way.

        Args:
            faces: ``largest``, the largest face of an image; ``all``, every face, for which `classify` and
                `identify` give an answer each; ``none``, the whole image. None keeps the model's.
            min_face: Size of the smallest faces in pixels; None keeps the model's.

        Raises:
            SettingError: If a value is invalid.
        """
        spec = self.spec.with_faces(faces, min_face)
        if spec == self.spec:
            return self
        found = copy(self)
        found.spec = spec
        return found

    def with_session(self, session: Any) -> Self:
        """Return a copy that runs the encoder in another session, with the interface of `Graph`."""
        found = copy(self)
        found.__dict__["encoder"] = session  # replaces the cached property
        return found

    def preprocess(self, image: ImageSource) -> Tensor:
        """Return the pixels of an image as the network gets them.

        ``model.to_torch().embed(model.preprocess(image)[None])`` equals ``model.embed(image)``. The size, the
        fit and the ink extraction of ``model.spec`` (`ImageSpec`) have been applied; its mean and standard
        deviation have not, since the network subtracts and divides by them itself.

        Args:
            image: A path, Pillow image, array or bytes.

        Returns:
            float32 in [0, 1], shape ``(channels, height, width)``: a tensor on the CPU, or a NumPy array if
            PyTorch is not installed.

        Raises:
            ImageError: If the image cannot be opened.
        """
        pixels = read_image(image, self.spec).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        try:
            torch = import_module("torch")
        except ModuleNotFoundError:
            return cast("Tensor", pixels)
        return cast("Tensor", torch.from_numpy(pixels))

    def to_torch(self) -> SiameseNetwork:
        """Rebuild the network in PyTorch, on the CPU and in evaluation mode.

        Its embeddings differ from those of the model by at most 1e-5 times the largest value or 1. An encoder
        of one's own is built by the class or function registered under its name (`twinned.register_encoder`).

        Raises:
            SettingError: If the model was wrapped from an ONNX file, or the encoder is not registered.
            ModelError: If the weights do not fit the network.
            MissingExtra: If PyTorch is not installed.
        """
        network: SiameseNetwork = training_function("to_torch", "Model.to_torch")(self)
        return network

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

    def _to_all(self, references: Floats, distances: Floats) -> tuple[Floats, FittedThreshold]:
        """Return the distances of images to a set of distinct references, and the threshold fitted for them.

        ``references``: ``(k, d)``; ``distances``, of these to the images: ``(k, n)``.
        """
        fitted = self.manifest.calibration.references
        if fitted is None or len(references) < 2:
            return distances.min(axis=0), self.manifest.calibration
        among = self.distances(references, references)
        return fitted.distance(distances, among), fitted.row(len(references))
