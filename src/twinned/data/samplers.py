"""Batch samplers: P classes with K images each, or pairs from a list.

A batch depends only on the seed and the step, so a resumed run needs no state of the sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..utils.groups import members
from ..utils.random import Stream, rng
from .datasets import Index, PairSet
from .images import Pixels
from .pixel_stores import PixelStore


@dataclass(frozen=True, eq=False)
class Batch:
    """Images of one training step.

    Args:
        index: Indices of the images, shape ``(n,)``.
        labels: Class of each image, shape ``(n,)``; a unique number for an image without positives.
        turns: Number of quarter turns of each image, shape ``(n,)``; 4 to 7: mirrored, then ``turns - 4``
            quarter turns. None for no turns.
        pairs: For pair data, ``(left, right, same)`` of each pair, as positions in the batch.
        relation: Index of the relation of each pair, shape ``(pairs,)``, if the model has a relation head.
        pixels: Pixels of the images if `prefetch` has read them, uint8, shape
            ``(n, height, width, channels)``.
    """

    index: Index
    labels: NDArray[np.int64]
    turns: NDArray[np.int64] | None = None
    pairs: tuple[Index, Index, NDArray[np.bool_]] | None = None
    relation: Index | None = None
    pixels: Pixels | None = None


@contextmanager
def prefetch(
    batches: Callable[[int], Batch], pixels: PixelStore, rows: slice = slice(None), depth: int = 2
) -> Iterator[Callable[[int], Batch]]:
    """Provide batches with the pixels of some of their ``rows``; a thread reads ``depth`` batches ahead."""
    waiting: dict[int, Future[Batch]] = {}

    def read(step: int) -> Batch:
        batch = batches(step)
        return replace(batch, pixels=np.asarray(pixels[batch.index[rows]]))

    def get(step: int) -> Batch:
        for later in range(step, step + 1 + depth):
            if later not in waiting:
                waiting[later] = thread.submit(read, later)
        return waiting.pop(step).result()

    thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    try:
        yield get
    finally:
        thread.shutdown(cancel_futures=True)


class ClassBatches:
    """Sampler of batches with P classes and K images per class.

    Each class is drawn at most once per epoch; an incomplete last batch is dropped. Classes with a single
    image have no positive pair; up to P / 4 of them are added to each batch as impostors.

    Args:
        labels: Class index of each image, shape ``(n,)``.
        classes: P, the number of classes per batch.
        images: K, the number of images per class. Images of smaller classes are repeated (each copy is
            augmented separately).
        groups: Group of each image, shape ``(n,)``; all images of a class have the same group.
        same_group_fraction: Fraction of the batches with classes of one group (or two, where one ends), which
            are harder; in [0, 1].
        rotate_classes: Create four classes from each class by quarter turns. Use it only for symbols that
            change their meaning when turned.
        flip_classes: Create two classes from each class by mirroring, with the same restriction.
        forgery: True for images that imitate their class, shape ``(n,)``. Each batch has as many forgeries
            of a class as genuine images, if available, as negatives only.
        seed: Random seed.

    Attributes:
        num_classes: Number of classes; greater labels belong to images without positives.

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
        same_group_fraction: float = 0.0,
        rotate_classes: bool = False,
        flip_classes: bool = False,
        forgery: NDArray[np.bool_] | None = None,
        seed: int = 0,
    ) -> None:
        genuine = np.ones(len(labels), np.bool_) if forgery is None else ~forgery
        every = members(labels)
        self.members = [m[genuine[m]] for m in every]
        self.forged = [m[~genuine[m]] for m in every]
        self.usable = np.flatnonzero([len(m) > 1 for m in self.members])
        self.singles = np.array([m[0] for m in self.members if len(m) == 1], dtype=np.intp)
        if len(self.usable) < 2:
            raise DataError(f"training needs at least two classes with two images; got {len(self.usable)}")
        self.turns = np.arange(8).reshape(2, 4)[: 1 + flip_classes, : 4 if rotate_classes else 1].ravel()
        self.group_of = np.zeros(len(every), dtype=np.int64)
        if groups is not None:
            first = [(m if len(m) else f)[0] for m, f in zip(self.members, self.forged, strict=True)]
            self.group_of = np.unique(groups[first], return_inverse=True)[1].reshape(-1)
        self.drawable = (self.usable[:, None] * len(self.turns) + np.arange(len(self.turns))).ravel()
        self.num_classes = len(every) * len(self.turns)
        self._max_alone = len(self.turns) * len(labels)  # images without positives in one batch
        self.same_group_fraction = (
            same_group_fraction if len(np.unique(self.group_of[self.usable])) > 1 else 0.0
        )
        self.classes = min(classes, len(self.drawable))
        self.images = images
        self.seed = seed
        self.per_epoch = max(1, len(self.drawable) // self.classes)
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        random = rng(self.seed, Stream.SAMPLER, step)
        place = step % self.per_epoch
        chosen = self._order(step // self.per_epoch)[place * self.classes : (place + 1) * self.classes]
        parts: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []  # images, labels and turns
        # Labels from here on are unique over all steps, because a cross-batch memory keeps them.
        alone = self.num_classes + step * self._max_alone
        for virtual in chosen.tolist():
            base, variant = divmod(virtual, len(self.turns))
            picked = _draw(self.members[base], self.images, random)
            parts.append((picked, np.full(len(picked), virtual), np.full(len(picked), self.turns[variant])))
            if len(self.forged[base]):
                fakes = _draw(self.forged[base], min(self.images, len(self.forged[base])), random)
                labels = alone + np.arange(len(fakes))
                parts.append((fakes, labels, np.full(len(fakes), self.turns[variant])))
                alone += len(fakes)
        if len(self.singles):
            count = min(len(self.singles), max(1, self.classes // 4))
            single = random.choice(self.singles, count, replace=False)
            parts.append((single, alone + np.arange(count), random.choice(self.turns, size=count)))
        index, label, turn = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Batch(index, label.astype(np.int64), turn if len(self.turns) > 1 else None)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Return the class variants in the order of an epoch; the last result is cached."""
        if self._epoch[0] != epoch:
            random = rng(self.seed, Stream.EPOCH_ORDER, epoch)
            order = random.permutation(self.drawable)
            hard = round(self.same_group_fraction * self.per_epoch) * self.classes
            if hard:
                # Sorted by a random rank of the group, adjacent classes share a group. The first groups fill
                # the hard batches, the others are mixed; then all batches are shuffled.
                rank = random.permutation(self.group_of.max() + 1)[self.group_of[order // len(self.turns)]]
                order = order[np.argsort(rank, kind="stable")]
                order[hard:] = random.permutation(order[hard:])
                whole = order[: self.per_epoch * self.classes].reshape(self.per_epoch, self.classes)
                order[: whole.size] = whole[random.permutation(self.per_epoch)].ravel()
            self._epoch = epoch, order
        return self._epoch[1]


class PairBatches:
    """Sampler of batches of pairs, half of them same; each image occurs once in a batch.

    Args:
        pairs: Pairs to draw from.
        size: Number of pairs per batch.
        relations: Names of the relations to learn, in order; a batch then has as many pairs of each.
        seed: Random seed.

    Raises:
        DataError: If the list lacks same or different pairs, or pairs of a relation.
    """

    def __init__(
        self, pairs: PairSet, *, size: int = 64, relations: Sequence[str] = (), seed: int = 0
    ) -> None:
        self.pairs, self.seed = pairs, seed
        kind = ~pairs.same if not relations else _relation_index(pairs, relations)
        self.names = list(relations) or ["same", "different"]
        self.kinds = [np.flatnonzero(kind == number) for number in range(len(self.names))]
        missing = [name for name, members in zip(self.names, self.kinds, strict=True) if not len(members)]
        if missing:
            raise DataError(
                f"{pairs.origin}: no {missing[0]} pair among the training pairs. Add some, or give separate"
                " validation data, so that none are held out for the threshold."
            )
        self.relation = kind.astype(np.intp) if relations else None
        self.drawable = np.empty(0, np.int64)  # pairs have no classes
        self.each = max(1, size // len(self.kinds))
        self.per_epoch = max(1, -(-len(pairs) // (len(self.kinds) * self.each)))

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        random = rng(self.seed, Stream.SAMPLER, step)
        chosen = np.concatenate([_draw(kind, self.each, random) for kind in self.kinds])
        ends = np.concatenate([self.pairs.left[chosen], self.pairs.right[chosen]])
        index, place = np.unique(ends, return_inverse=True)
        pairs = place[: len(chosen)], place[len(chosen) :], self.pairs.same[chosen]
        relation = None if self.relation is None else self.relation[chosen]
        return Batch(index, np.arange(len(index), dtype=np.int64), pairs=pairs, relation=relation)


def _relation_index(pairs: PairSet, relations: Sequence[str]) -> Index:
    """Return the index of the relation of each pair in the list of relations."""
    if pairs.relation is None:
        raise DataError(f"{pairs.origin}: the relation head requires a column relation.")
    return np.array([relations.index(name) for name in pairs.relation.tolist()], np.intp)


def _draw(members: Index, count: int, random: np.random.Generator) -> NDArray[Any]:
    """Draw ``count`` members; none is repeated more often than necessary."""
    if len(members) >= count:
        return random.choice(members, count, replace=False)
    whole, rest = divmod(count, len(members))
    return np.concatenate([np.tile(members, whole), random.choice(members, rest, replace=False)])
