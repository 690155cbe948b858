"""Score a network on held-out images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import distances
from ..data.datasets import PairSet
from ..data.decoded import DecodedSet
from ..data.splits import enrollment_size, subsample
from ..evaluation.reference_sets import ReferenceSet, draw_reference_sets
from ..metrics.comparisons import Comparisons
from ..metrics.comparisons import compare as compare_embeddings
from ..metrics.retrieval import evaluate_retrieval
from ..metrics.roc import eer as equal_error_rate
from ..nn import heads
from ..nn.siamese import SiameseNetwork
from .inputs import input_source
from .state import Scores

# Images, at most, that a network is scored on.
MAX_IMAGES = 6000
# Images that an evaluation during training uses.
_EVALUATE_TRAIN, _EVALUATE_HELD_OUT = 400, 1000
# Comparisons, at most, of labeled images.
_MAX_COMPARISONS = 2_000_000


class ValidationScore(NamedTuple):
    """Scores of a network on held-out images."""

    comparisons: Comparisons
    recall: float | None  # recall at 1; None for pairs
    images: int  # their number
    sets: Sequence[ReferenceSet] = ()  # empty for pairs
    relation: float | None = None  # accuracy of the predicted relations

    @property
    def eer(self) -> float:
        return float(equal_error_rate(self.comparisons.distance, self.comparisons.same))

    @property
    def errors(self) -> float:
        """Sum of equal error rate and recall error, by which networks are ranked; lower is better."""
        return self.eer + (0 if self.recall is None else 1 - self.recall)

    def __str__(self) -> str:
        recall = "" if self.recall is None else f", recall@1 {self.recall:.4f}"
        relation = "" if self.relation is None else f", relation accuracy {self.relation:.4f}"
        return f"equal error rate {self.eer:.4f}{recall}{relation}"

    @staticmethod
    def concatenate(parts: Sequence[ValidationScore]) -> ValidationScore:
        """Join the scores of cross-validation, whose folds hold different classes."""
        images = [part.images for part in parts]
        recall = float(np.average([part.recall or 0.0 for part in parts], weights=images))
        sets = [reference_set for part in parts for reference_set in part.sets]
        comparisons = Comparisons.concatenate([part.comparisons for part in parts])
        return ValidationScore(comparisons, recall, sum(images), sets)


def score(
    network: SiameseNetwork, data: DecodedSet, *, relations: Sequence[str] = (), seed: int = 0
) -> ValidationScore:
    """Score a network on a dataset, or on at most `MAX_IMAGES` images of it.

    ``relations`` are those that the network predicts; ``seed`` is that of the choice of references.
    """
    data = subsample(data, MAX_IMAGES, whole_classes=True)
    vectors = embed(network, data)
    comparisons = compare(network, data, vectors)
    if data.pairs is not None:
        accuracy = _relation_accuracy(network, data.pairs, vectors, relations)
        return ValidationScore(comparisons, None, len(data.pixels), relation=accuracy)
    embeddings, labels, forgery = vectors.numpy(), data.images.labels, data.images.forgery
    distance = HeadDistances(network).distances
    retrieval = evaluate_retrieval(embeddings[~forgery], labels[~forgery], distance)
    sets = draw_reference_sets(embeddings, labels, distance, forgery=forgery, seed=seed)
    return ValidationScore(comparisons, retrieval.recall_at[1], retrieval.queries, sets)


@torch.no_grad()
def embed(network: SiameseNetwork, data: DecodedSet, *, limit: int | None = None) -> Tensor:
    """Embed images, or the first ``limit`` of them, with PyTorch: shape ``(n, d)``, on the CPU."""
    network.eval()
    source, size = input_source(data, device=network.mean.device), batch_size(network)
    count = len(source) if limit is None else min(limit, len(source))
    batches = (source.view(0, i, min(i + size, count)) for i in range(0, count, size))
    return torch.cat([network.embed(images, start_stage=source.start_stage).cpu() for images in batches])


def batch_size(network: SiameseNetwork) -> int:
    """Return the number of images to embed in one pass."""
    height, width = network.encoder.image_size
    return int(np.clip((1 << 22) // (height * width), 1, 256))


def compare(network: SiameseNetwork, data: DecodedSet, vectors: Tensor) -> Comparisons:
    """Return the distances of all pairs of labeled images, or of the pairs of a list."""
    measure = HeadDistances(network)
    return compare_embeddings(vectors.numpy(), data.dataset, measure, limit=_MAX_COMPARISONS)


def make_evaluation(
    train: DecodedSet, validation: DecodedSet | None, *, finite_only: bool
) -> Callable[[SiameseNetwork], Scores]:
    """Return a function that measures pair accuracy at equal error on a part of both datasets.

    With ``finite_only``, it checks only that embeddings are finite.
    """
    seen, unseen = subsample(train, _EVALUATE_TRAIN, whole_classes=True), None
    if validation is not None:
        unseen = subsample(validation, _EVALUATE_HELD_OUT, whole_classes=True)

    def eer(network: SiameseNetwork, data: DecodedSet | None) -> float:
        if data is None or finite_only:
            return math.nan
        found = compare(network, data, embed(network, data))
        if found.same.all() or not found.same.any():
            return math.nan
        return float(equal_error_rate(found.distance, found.same))

    def evaluate(network: SiameseNetwork) -> Scores:
        if not torch.isfinite(embed(network, seen, limit=2)).all():
            return Scores(math.nan, math.nan, math.inf)
        held_out_eer = eer(network, unseen)
        return Scores(1 - eer(network, seen), 1 - held_out_eer, held_out_eer)

    return evaluate


def score_seconds(network: SiameseNetwork, data: DecodedSet, n_networks: int) -> float:
    """Estimate the time to embed held-out data: by each network, and once more to choose enrollment."""
    few = min(64, len(data.pixels))
    embed(network, data, limit=few)  # the first pass also loads code
    start = time.monotonic()
    embed(network, data, limit=few)
    per_image = (time.monotonic() - start) / few
    return per_image * (n_networks * min(len(data.pixels), MAX_IMAGES) + enrollment_size(data))


@torch.no_grad()
def _relation_accuracy(
    network: SiameseNetwork, pairs: PairSet, vectors: Tensor, relations: Sequence[str]
) -> float | None:
    """Return the accuracy of the predicted relations; None if the network does not predict these."""
    head, device = network.head, network.mean.device
    if not isinstance(head, heads.Relation) or pairs.relation is None or len(head.same) != len(relations):
        return None
    left, right = (vectors[ends].to(device) for ends in (pairs.left, pairs.right))
    predicted = np.array(relations)[head.logits(left, right).argmax(1).cpu().numpy()]
    return float(np.mean(predicted == pairs.relation))


class HeadDistances:
    """Distances of embeddings by the head of a network, a `Comparator`."""

    def __init__(self, network: SiameseNetwork) -> None:
        self.head, self.device = network.head, network.mean.device

    @torch.no_grad()
    def distances(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
        """Return the distances of all pairs, shape ``(len(left), len(right))``."""
        if isinstance(self.head, heads.Distance):
            plain: NDArray[Any] = distances.get(self.head.name)(left, right, pairwise=True)
            return plain
        a, b = (torch.from_numpy(side).to(self.device) for side in (left, right))
        rows = [self.head(row.expand(len(b), -1), b) for row in a]
        found: NDArray[Any] = torch.stack(rows).cpu().numpy()
        return found

    @torch.no_grad()
    def paired_distances(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
        """Return distances row by row, shape ``(len(left),)``."""
        a, b = (torch.from_numpy(side).to(self.device) for side in (left, right))
        found: NDArray[Any] = self.head(a, b).cpu().numpy()
        return found
