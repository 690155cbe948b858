"""What a model's encoder was before it learnt from these images: the baseline that training had to beat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import distances
from ..data.preprocessing import ImageSpec
from ..evaluation.results import Evaluation
from . import model_folder
from .model_folder import Manifest
from .session import Floats, Graph, embed_pixels

UNTOUCHED = "untouched.onnx"


class BaselineEncoder:
    """The encoder that a model was trained from, measured as a model is.

    Args:
        folder: The model's folder.
        manifest_: The model's own.
        device: Where it runs; see `twinned.inference.session.Graph`.
    """

    prototype = False

    def __init__(self, folder: Path, manifest_: Manifest, *, device: str = "auto") -> None:
        self.manifest = manifest_.model_copy(update={"relations": []})  # it tells none apart
        self.graph = Graph(model_folder.checked(folder, UNTOUCHED, manifest_), device=device)
        self.name: str = manifest_.held_out["untouched"]["distance"]

    @property
    def spec(self) -> ImageSpec:
        """The image preprocessing."""
        return self.manifest.spec

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> Floats:
        """Images that are open to embeddings."""
        return embed_pixels(pixels, self.graph)

    def distances(self, left: Floats, right: Floats) -> Floats:
        """All pairs: ``(n, d), (m, d) -> (n, m)``."""
        found: Floats = distances.get(self.name)(left, right, pairwise=True)
        return found

    def paired_distances(self, left: Floats, right: Floats) -> Floats:
        """Pairs: ``(n, d), (n, d) -> (n,)``."""
        found: Floats = distances.get(self.name)(left, right)
        return found

    def relations(self, left: Floats, right: Floats) -> list[dict[str, float]]:
        """It tells none apart."""
        return [{} for _ in left]

    def identification_threshold(
        self, labels: int, fpir: float = 0.01, *, images_per_label: float = 1.0
    ) -> float:
        """The model's own: this encoder has none."""
        return self.manifest.calibration.identification_threshold(
            labels, fpir, images_per_label=images_per_label
        )

    def training_hashes(self) -> frozenset[str]:
        """It saw none of the images."""
        return frozenset()

    def unmatched(self) -> str | None:
        """Nothing: it learnt at no size."""
        return None

    def threshold_hashes(self) -> frozenset[str]:
        """It has no threshold."""
        return frozenset()


def figures(found: Evaluation) -> dict[str, Any]:
    """What is said of the untouched encoder beside the model: figures that need no threshold."""
    said: dict[str, Any] = {}
    if found.verification is not None:
        said["eer"] = found.verification.eer
    if found.one_shot is not None:
        said["one_shot"] = found.one_shot.accuracy
    if found.retrieval is not None:
        said["recall_at_1"] = found.retrieval.recall_at[1]
    return said
