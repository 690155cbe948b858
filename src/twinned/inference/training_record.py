"""training.json and history.csv: the record of a model's training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from . import model_folder
from .model_folder import Manifest

Layer = tuple[str, str, tuple[int, ...], int]


class TrainingRecord:
    """Record of a model's training; ``owner`` keeps a temporary folder from being deleted."""

    def __init__(self, folder: Path, manifest: Manifest, *, owner: Any = None) -> None:
        self._folder, self._manifest = folder, manifest
        self._owner = owner

    @cached_property
    def values(self) -> dict[str, Any]:
        """Contents of training.json; empty without the file."""
        if "training.json" not in self._manifest.files:
            return {}
        path = self._folder / "training.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{path}: The file is damaged ({error})") from None
        return found

    @property
    def image_hashes(self) -> frozenset[str]:
        """SHA-256 of the pixels of every training image, without the held-out images."""
        return frozenset(self.values.get("images", ()))

    @property
    def threshold_hashes(self) -> frozenset[str]:
        """SHA-256 of the pixels of every image that the threshold was chosen on."""
        return frozenset(self.values.get("held_out_images", ()))

    @property
    def hash_limitation(self) -> str | None:
        """Reason why training images may not be recognized; None without one."""
        if not self.values.get("unmatched", False):
            return None
        return "images of an earlier training, at another size, cannot be recognized by their pixels"

    @property
    def requested_config(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings that training began with, and hashes of its inputs."""
        return self.values.get("asked", self._manifest.recipe), self.values.get("given", {})

    def layers(self) -> list[Layer]:
        """Return name, kind, output shape and parameters of each layer; empty for a wrapped encoder."""
        found = self.values.get("layers", ())
        rows = [(name, kind, tuple(shape), count) for name, kind, shape, count in found]
        return rows[_repeated(rows) :]

    def history(self) -> dict[str, NDArray[np.float64]]:
        """Return the columns of history.csv, one value per evaluation; empty without training."""
        if "history.csv" not in self._manifest.files:
            return {}
        path = model_folder.checked(self._folder, "history.csv", self._manifest)
        names, *rows = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines())
        return {name: np.array([float(row[k]) for row in rows]) for k, name in enumerate(names)}

    def without_history(self) -> str | None:
        """Explain why `history` has no row; None where it has one."""
        if any(len(column) for column in self.history().values()):
            return None
        manifest = self._manifest
        if manifest.origin == "wrapped":
            return "the encoder was trained elsewhere and wrapped, and its file holds no history"
        if self.values.get("steps", 0):
            return "training ended before its first evaluation"
        fitted = manifest.setting("transfer.projection") == "lda"
        if fitted and manifest.setting("encoder.embedding_size") is not None:
            return "the embedding layer was solved from the images, and nothing was trained step by step"
        return "the encoder was kept as it came, without training"


def _repeated(rows: Sequence[Layer]) -> int:
    """Return how many first rows are repeated: old folders list the pass over the mirror image as well."""
    for count in range(len(rows) // 2, 0, -1):
        if rows[:count] == rows[count : 2 * count] and any(row[3] for row in rows[:count]):
            return count
    return 0
