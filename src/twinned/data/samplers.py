"""Which images each training step sees.

A batch is a function of the seed and the step alone. So a resumed run sees the batches that an
uninterrupted one would have seen, and there is no sampler state to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .datasets import PairSet

Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's images, and what is known of them.

    Args:
        index: Which images, shape ``(n,)``.
        labels: Their classes, shape ``(n,)``; an image that may have no partner has a number of its own.
        turns: Quarter turns to give each image, shape ``(n,)``; from 4 on it is mirrored first. Or None.
        pairs: Places within the batch and sameness ``(left, right, same)``, where the data are pairs.
        relation: Number of each pair's relation, shape ``(pairs,)``, where a relation is learnt.
    """

    index: Index
    labels: NDArray[np.int64]
    turns: NDArray[np.int64] | None = None
    pairs: tuple[Index, Index, NDArray[np.bool_]] | None = None
    relation: Index | None = None


class ClassBatches:
    """P classes with K images each; a class comes up at most once an epoch, and few are left out of one.

    Args:
        labels: Class number of each image, shape ``(n,)``.
        classes: P, the classes a batch.
        images: K, the images a class. A class that has fewer gives some of them twice (each is
            augmented on its own).
        groups: Group of each image, shape ``(n,)``; a class belongs to one.
        within_group: Share of the batches drawn from one group at a time (from two, where one ends),
            which makes them harder.
        quarter_turns: Make four classes of each by turning its images; for glyphs that mean something
            else when turned, and only there.
        mirrors: Make two classes of each by mirroring its images, likewise.
        forgery: True where an image imitates its class. Forgeries come along with their class, as many
            as genuine images, and never as anybody's positive.
        seed: The same seed draws the same batches.

    Classes with a single image have no positive pair; up to a quarter as many of them as P come along in
    every batch as impostors.

    Attributes:
        num_classes: Labels below it are those of classes; images that are nobody's positive have others.

    Raises:
        DataError: If fewer than two classes have two images.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        *,
        classes: int = 48,
        images: int = 4,
        groups: NDArray[np.str_] | None = None,
        within_group: float = 0.0,
        quarter_turns: bool = False,
        mirrors: bool = False,
        forgery: NDArray[np.bool_] | None = None,
        seed: int = 0,
    ) -> None:
        genuine = np.ones(len(labels), np.bool_) if forgery is None else ~forgery
        names, place = np.unique(labels, return_inverse=True)
        members = _members(place, genuine, len(names))
        self.forged = _members(place, ~genuine, len(names))
        self.members = members
        self.usable = np.flatnonzero([len(m) > 1 for m in members])
        self.singles = np.array([m[0] for m in members if len(m) == 1], dtype=np.intp)
        if len(self.usable) < 2:
            raise DataError(f"at least two classes with two images are needed; there are {len(self.usable)}")
        self.turns = np.arange(8).reshape(2, 4)[: 1 + mirrors, : 4 if quarter_turns else 1].ravel()
        self.group_of = np.zeros(len(names), dtype=np.int64)
        if groups is not None:
            first = np.array([m[0] if len(m) else f[0] for m, f in zip(members, self.forged, strict=True)])
            self.group_of = np.unique(groups[first], return_inverse=True)[1].reshape(-1)
        self.drawable = (self.usable[:, None] * len(self.turns) + np.arange(len(self.turns))).ravel()
        self.num_classes = len(self.members) * len(self.turns)
        self._most_alone = len(self.turns) * len(labels)  # images without a class's number, in one batch
        self.within_group = within_group if len(np.unique(self.group_of[self.usable])) > 1 else 0.0
        self.classes = min(classes, len(self.drawable))
        self.images = images
        self.seed = seed
        self.per_epoch = max(1, len(self.drawable) // self.classes)
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        rng = np.random.default_rng([self.seed, 1, step])
        place = step % self.per_epoch
        chosen = self._order(step // self.per_epoch)[place * self.classes : (place + 1) * self.classes]
        index, label, turn = [], [], []
        # Numbers beyond the classes' belong to one image of one batch each, whatever a memory keeps.
        alone = self.num_classes + step * self._most_alone
        for virtual in chosen:
            base, variant = divmod(int(virtual), len(self.turns))
            turned = self.turns[variant]
            picked = _draw(self.members[base], self.images, rng)
            index.append(picked)
            label.append(np.full(len(picked), virtual))
            turn.append(np.full(len(picked), turned))
            if len(self.forged[base]):
                fakes = _draw(self.forged[base], min(self.images, len(self.forged[base])), rng)
                index.append(fakes)
                label.append(alone + np.arange(len(fakes)))
                turn.append(np.full(len(fakes), turned))
                alone += len(fakes)
        if len(self.singles):
            single = rng.choice(
                self.singles, min(len(self.singles), max(1, self.classes // 4)), replace=False
            )
            index.append(single)
            label.append(alone + np.arange(len(single)))
            turn.append(rng.choice(self.turns, size=len(single)))
        turns = np.concatenate(turn) if len(self.turns) > 1 else None
        return Batch(np.concatenate(index), np.concatenate(label).astype(np.int64), turns)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Every class in all its turns once, in the order of this epoch; kept until the next is asked for."""
        if self._epoch[0] != epoch:
            rng = np.random.default_rng([self.seed, 2, epoch])
            order = rng.permutation(self.drawable)
            hard = round(self.within_group * self.per_epoch) * self.classes
            if hard:
                # Sorted by a random rank of their group, neighbours share a group. The first groups make the
                # hard batches, the others are mixed; then hard and easy batches are shuffled.
                rank = rng.permutation(self.group_of.max() + 1)[self.group_of[order // len(self.turns)]]
                order = order[np.argsort(rank, kind="stable")]
                order[hard:] = rng.permutation(order[hard:])
                whole = order[: self.per_epoch * self.classes].reshape(self.per_epoch, self.classes)
                order[: whole.size] = whole[rng.permutation(self.per_epoch)].ravel()
            self._epoch = epoch, order
        return self._epoch[1]


class PairBatches:
    """Pairs from a list, half of them same where the list allows; each image of a batch comes once.

    Args:
        pairs: The list.
        size: Pairs a batch.
        relations: Names of the relations to learn, in order: then as many pairs of each are drawn instead.
        seed: The same seed draws the same batches.

    Raises:
        DataError: If the list lacks same or different pairs, or pairs of a relation.
    """

    def __init__(
        self, pairs: PairSet, *, size: int = 64, relations: Sequence[str] = (), seed: int = 0
    ) -> None:
        self.pairs, self.seed = pairs, seed
        kind = ~pairs.same if not relations else _numbers(pairs, relations)
        self.names = list(relations) or ["same", "different"]
        self.kinds = [np.flatnonzero(kind == number) for number in range(len(self.names))]
        missing = [name for name, members in zip(self.names, self.kinds, strict=True) if not len(members)]
        if missing:
            raise DataError(
                f"{pairs.origin}: no {missing[0]} pair is among those to learn from; training needs"
                f" {' and '.join(self.names)} ones: add pairs (some are held out to choose the threshold on,"
                " unless others are given with --validate)"
            )
        self.relation = kind.astype(np.intp) if relations else None
        self.each = max(1, size // len(self.kinds))
        self.per_epoch = max(1, -(-len(pairs) // (len(self.kinds) * self.each)))

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        rng = np.random.default_rng([self.seed, 1, step])
        chosen = np.concatenate([_draw(kind, self.each, rng) for kind in self.kinds])
        ends = np.concatenate([self.pairs.left[chosen], self.pairs.right[chosen]])
        index, place = np.unique(ends, return_inverse=True)
        pairs = place[: len(chosen)], place[len(chosen) :], self.pairs.same[chosen]
        relation = None if self.relation is None else self.relation[chosen]
        return Batch(index, np.arange(len(index), dtype=np.int64), pairs=pairs, relation=relation)


def _numbers(pairs: PairSet, relations: Sequence[str]) -> Index:
    """Each pair's place in the list of relations."""
    if pairs.relation is None:
        raise DataError(f"{pairs.origin}: has no column relation, which the relation head learns from")
    order = np.argsort(np.array(relations))
    return order[np.searchsorted(np.array(relations)[order], pairs.relation)]


def _members(place: Index, wanted: NDArray[np.bool_], classes: int) -> list[Index]:
    """The wanted images of each class, in one sort: classes may be many."""
    order = np.argsort(place, kind="stable")
    order = order[wanted[order]]
    ends = np.cumsum(np.bincount(place[order], minlength=classes))
    return np.split(order, ends[:-1])


def _draw(members: Index, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """``count`` of the members, none twice while there are enough."""
    if len(members) >= count:
        return rng.choice(members, count, replace=False)
    whole, rest = divmod(count, len(members))
    return np.concatenate([np.tile(members, whole), rng.choice(members, rest, replace=False)])
