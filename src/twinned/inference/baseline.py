"""The encoder before training, which training had to beat, as an embedder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..evaluation.protocols import ModelFacts
from ..evaluation.results import Evaluation
from . import model_folder
from .embedder import GraphEmbedder
from .model_folder import Manifest
from .session import Graph

UNTOUCHED = "untouched.onnx"


def figures(found: Evaluation) -> dict[str, Any]:
    """Return the figures of the baseline that need no threshold, under their JSON keys."""
    kept: dict[str, Any] = {}
    if found.verification is not None:
        kept["eer"] = found.verification.eer
    if found.one_shot is not None:
        kept["one_shot"] = found.one_shot.accuracy
    if found.retrieval is not None:
        kept["recall_at_1"] = found.retrieval.recall_at[1]
    return kept


def with_baseline(
    found: Evaluation, measure: Callable[..., Evaluation], folder: Path, manifest: Manifest, *, device: str
) -> Evaluation:
    """Add the figures of the encoder before training, by ``measure``, if the model folder holds it."""
    if UNTOUCHED not in manifest.files:
        return found
    graph = Graph(model_folder.checked(folder, UNTOUCHED, manifest), device=device)
    embedder = GraphEmbedder(graph, manifest.spec, manifest.held_out["untouched"]["distance"])
    before = measure(embedder, facts=ModelFacts(manifest.stored_calibration))
    return replace(found, details={**found.details, "untouched": figures(before)})
