"""What a network makes of images that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import distances
from ..data.datasets import PairSet
from ..data.decoded import DecodedSet
from ..evaluation.reference_sets import ReferenceSet, draw_reference_sets
from ..metrics.comparisons import Comparisons, compare_all, compare_pairs
from ..metrics.retrieval import evaluate_retrieval
from ..metrics.roc import eer as equal_error_rate
from ..nn import heads
from ..nn.siamese import SiameseNetwork


class ValidationScore(NamedTuple):
    """What a network makes of images that it was not trained on.

    Args:
        comparisons: All of them.
        recall: Share of images whose nearest other one is of their class; None for pairs, which have none.
        images: How many there are.
        sets: References and probes drawn from them; none for pairs.
        relation: Share of pairs whose relation is told; None where none is asked for.
    """

    comparisons: Comparisons
    recall: float | None
    images: int
    sets: Sequence[ReferenceSet] = ()
    relation: float | None = None

    @property
    def eer(self) -> float:
        """Equal error rate."""
        return float(equal_error_rate(self.comparisons.distance, self.comparisons.same))

    @property
    def errors(self) -> float:
        """Both kinds of error, by which networks are put in order: lower is better."""
        return self.eer + (0 if self.recall is None else 1 - self.recall)

    def __str__(self) -> str:
        recall = "" if self.recall is None else f", recall@1 {self.recall:.4f}"
        relation = "" if self.relation is None else f", relations told {self.relation:.4f}"
        return f"equal error rate {self.eer:.4f}{recall}{relation}"

    @staticmethod
    def together(parts: Sequence[ValidationScore]) -> ValidationScore:
        """Of several networks, each on classes of its own, as cross-fitting makes them."""
        images = [part.images for part in parts]
        recall = float(np.average([part.recall or 0.0 for part in parts], weights=images))
        sets = [one for part in parts for one in part.sets]
        return ValidationScore(
            Comparisons.concatenate([part.comparisons for part in parts]), recall, sum(images), sets
        )


def judge(
    network: SiameseNetwork,
    material: DecodedSet,
    vectors: Tensor,
    *,
    relations: list[str],
    device: torch.device,
    seed: int,
) -> ValidationScore:
    """What a network makes of images, from their embeddings.

    Args:
        network: Its head says how far apart two embeddings are.
        material: The images.
        vectors: Their embeddings, shape ``(n, d)``.
        relations: Those that are to be told.
        device: Where the head is.
        seed: Of the draw of references.
    """
    found = compare(network, material, vectors, device)
    if material.pairs is not None:
        told = _relations_told(network, material.pairs, vectors, relations, device)
        return ValidationScore(found, None, len(material.pixels), relation=told)
    embeddings, labels, forgery = vectors.numpy(), material.images.labels, material.images.forgery

    def apart(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return _all_distances(network, a, b, device)

    nearest = evaluate_retrieval(embeddings[~forgery], labels[~forgery], apart)
    sets = draw_reference_sets(embeddings, labels, apart, forgery=forgery, seed=seed)
    return ValidationScore(found, nearest.recall_at[1], nearest.queries, sets)


def compare(
    network: SiameseNetwork, material: DecodedSet, vectors: Tensor, device: torch.device
) -> Comparisons:
    """Every comparison of some images, or of the pairs of a list, from their embeddings."""
    if material.pairs is not None:
        left, right = vectors[material.pairs.left], vectors[material.pairs.right]
        with torch.no_grad():
            distance = network.head(left.to(device), right.to(device)).cpu().numpy()
        part = material.pairs.identity_groups()
        return compare_pairs(
            distance,
            material.pairs.same,
            left=part[material.pairs.left],
            right=part[material.pairs.right],
        )
    return compare_all(
        vectors.numpy(),
        material.images.labels,
        lambda a, b: _all_distances(network, a, b, device),
        forgery=material.images.forgery,
        limit=2_000_000,
    )


@torch.no_grad()
def _relations_told(
    network: SiameseNetwork, pairs: PairSet, vectors: Tensor, relations: list[str], device: torch.device
) -> float | None:
    """The share of pairs whose relation a network tells, where it tells these relations."""
    head = network.head
    if not isinstance(head, heads.Relation) or pairs.relation is None or len(head.same) != len(relations):
        return None
    left, right = (vectors[ends].to(device) for ends in (pairs.left, pairs.right))
    told = np.array(relations)[head.logits(left, right).argmax(1).cpu().numpy()]
    return float(np.mean(told == pairs.relation))


@torch.no_grad()
def _all_distances(
    network: SiameseNetwork, a: NDArray[Any], b: NDArray[Any], device: torch.device
) -> NDArray[Any]:
    if isinstance(network.head, heads.Distance):
        plain: NDArray[Any] = distances.get(network.head.name)(a, b, all_pairs=True)
        return plain
    left, right = torch.from_numpy(a).to(device), torch.from_numpy(b).to(device)
    rows = [network.head(row.expand(len(right), -1), right) for row in left]
    found: NDArray[Any] = torch.stack(rows).cpu().numpy()
    return found
