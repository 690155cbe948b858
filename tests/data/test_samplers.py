"""Batches: reproducible, balanced over classes, with groups, forgeries and pairs."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinned.data.datasets import PairSet
from twinned.data.samplers import Batch, ClassBatches, PairBatches
from twinned.errors import DataError

LABELS = np.repeat(np.arange(30), 5)
GROUPS = np.char.add("g", (LABELS // 6).astype(str))  # five groups of six classes


def equal_batches(a: Batch, b: Batch) -> bool:
    return all(
        np.array_equal(x, y) for x, y in [(a.index, b.index), (a.labels, b.labels), (a.turns, b.turns)]
    )


def test_batch_depends_on_seed_and_step_only() -> None:
    options = {
        "classes": 8,
        "images": 3,
        "groups": GROUPS,
        "same_group_fraction": 0.5,
        "rotate_classes": True,
    }
    one, other = (ClassBatches(LABELS, seed=4, **options) for _ in range(2))  # type: ignore[arg-type]
    first = [one(step) for step in range(40)]
    backwards = [other(step) for step in reversed(range(40))][::-1]  # in another order, as after a resume
    assert all(equal_batches(a, b) for a, b in zip(first, backwards, strict=True))
    third = ClassBatches(LABELS, seed=5, **options)  # type: ignore[arg-type]
    assert not any(equal_batches(a, third(step)) for step, a in enumerate(first))
    assert not equal_batches(first[0], first[1])


def test_batch_has_p_classes_of_k_images() -> None:
    batches = ClassBatches(LABELS, classes=8, images=3)
    assert batches.per_epoch == 30 // 8
    for step in range(20):
        batch = batches(step)
        assert batch.index.dtype == np.intp
        assert batch.turns is None
        assert batch.pairs is None
        np.testing.assert_array_equal(LABELS[batch.index], batch.labels)
        assert sorted(Counter(batch.labels).values()) == [3] * 8
        assert len(np.unique(batch.index)) == 24  # no image twice, since each class has more than K images


def test_classes_are_drawn_once_per_epoch() -> None:
    batches = ClassBatches(LABELS, classes=8, images=2)
    counts = np.zeros(30)
    for epoch in range(100):
        seen = np.concatenate([np.unique(batches(epoch * 3 + i).labels) for i in range(3)])
        assert len(np.unique(seen)) == len(seen) == 24
        np.add.at(counts, seen, 1)
    assert counts.min() > 60  # 80 expected
    images = Counter(np.concatenate([batches(step).index for step in range(300)]).tolist())
    assert len(images) == len(LABELS)


def test_small_classes_repeat_images_and_limit_the_batch() -> None:
    batch = ClassBatches(np.array([0, 0, 1, 1, 1]), classes=48, images=4)(0)
    assert Counter(batch.labels) == {0: 4, 1: 4}
    assert Counter(batch.index[batch.labels == 0]) == {0: 2, 1: 2}
    assert max(Counter(batch.index[batch.labels == 1]).values()) == 2


def groups_per_batch(within_group: float) -> NDArray[np.float64]:
    batches = ClassBatches(LABELS, classes=6, images=2, groups=GROUPS, same_group_fraction=within_group)
    return np.array([len(np.unique(GROUPS[batches(step).index])) for step in range(100)])


def test_same_group_fraction_draws_classes_of_one_group() -> None:
    assert groups_per_batch(0.0).mean() > 3.5
    assert groups_per_batch(1.0).max() == 1  # six classes a group, six classes a batch
    mixed = groups_per_batch(0.4)
    assert (mixed == 1).mean() == pytest.approx(0.4, abs=0.1)
    assert mixed.max() > 2
    assert (mixed[:50] == 1).any()  # both kinds occur in each half
    assert (mixed[:10] > 1).any()


def test_same_group_fraction_requires_groups() -> None:
    plain = ClassBatches(LABELS, classes=6, images=2)
    asked = ClassBatches(
        LABELS, classes=6, images=2, groups=np.full(len(LABELS), ""), same_group_fraction=1.0
    )
    assert equal_batches(plain(0), asked(0))


def test_rotated_classes_are_separate_classes() -> None:
    batches = ClassBatches(LABELS, classes=40, images=2, rotate_classes=True)
    assert batches.per_epoch == 3
    seen = set()
    for step in range(3):
        batch = batches(step)
        assert batch.turns is not None
        np.testing.assert_array_equal(batch.labels, LABELS[batch.index] * 4 + batch.turns)
        seen |= set(batch.labels.tolist())
    assert len(seen) == 120
    assert len(ClassBatches(LABELS, classes=500, rotate_classes=True)(0).index) == 480


def test_mirrored_classes_are_separate_classes() -> None:
    mirrored = ClassBatches(LABELS, classes=20, images=2, flip_classes=True)
    both = ClassBatches(LABELS, classes=20, images=2, flip_classes=True, rotate_classes=True)
    for batches, turns in ((mirrored, [0, 4]), (both, list(range(8)))):
        seen = set()
        for step in range(batches.per_epoch):
            batch = batches(step)
            assert batch.turns is not None
            variant = batch.labels - LABELS[batch.index] * len(turns)
            np.testing.assert_array_equal(np.array(turns)[variant], batch.turns)
            seen |= set(batch.labels.tolist())
        assert len(seen) == len(turns) * len(np.unique(LABELS))


def test_single_images_are_drawn_as_impostors() -> None:
    labels = np.concatenate([LABELS, 100 + np.arange(40)])
    for turned in (False, True):
        batches = ClassBatches(labels, classes=8, images=3, rotate_classes=turned)
        met = set()
        for step in range(60):
            batch = batches(step)
            single = labels[batch.index] >= 100
            assert single.sum() == 2  # a quarter of P
            alone = batch.labels[single]
            assert all((batch.labels == label).sum() == 1 for label in alone)  # no positive pair
            met |= set(batch.index[single])
            if turned:
                assert batch.turns is not None
                assert len(batch.turns) == len(batch.index)
        assert len(met) > 35


@given(
    sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=9),
    turned=st.booleans(),
    step=st.integers(0, 30),
)
def test_forgeries_have_no_positive_pair(sizes: list[tuple[int, int]], turned: bool, step: int) -> None:
    labels = np.array([c for c, (g, f) in enumerate(sizes) for _ in range(g + f)], dtype=np.int64)
    forgery = np.array([i >= g for g, f in sizes for i in range(g + f)], dtype=np.bool_)
    if sum(g > 1 for g, _ in sizes) < 2:
        with pytest.raises(DataError, match="two classes with two images"):
            ClassBatches(labels, forgery=forgery)
        return
    batch = ClassBatches(labels, classes=4, images=3, forgery=forgery, rotate_classes=turned)(step)
    fake = forgery[batch.index]
    for place in np.flatnonzero(fake):
        assert (batch.labels == batch.labels[place]).sum() == 1
        assert labels[batch.index[place]] in labels[batch.index[~fake]]  # its class is in the batch
    base = batch.labels // 4 if turned else batch.labels
    known = ~fake & (np.bincount(labels[~forgery], minlength=len(sizes))[labels[batch.index]] > 1)
    np.testing.assert_array_equal(base[known], np.unique(labels, return_inverse=True)[1][batch.index][known])
    for label in np.unique(batch.labels[known]):
        assert len(np.unique(labels[batch.index[batch.labels == label]])) == 1
        if batch.turns is not None:
            assert len(np.unique(batch.turns[batch.labels == label])) == 1


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(DataError, match="got 1"):
        ClassBatches(np.array([0, 0, 1, 2]))


def test_setup_of_many_classes_takes_under_2_seconds() -> None:
    labels = np.repeat(np.arange(20_000), 5)
    start = time.process_time()
    ClassBatches(labels)(0)
    assert time.process_time() - start < 2


def pair_set(same: list[bool]) -> PairSet:
    rng = np.random.default_rng(0)
    left, right = rng.integers(50, size=(2, len(same)))
    return PairSet(images=[f"{i}.png" for i in range(50)], left=left, right=right, same=np.array(same))


def test_pair_batches_are_balanced_with_unique_images() -> None:
    pairs = pair_set([True] * 10 + [False] * 90)
    listed = set(zip(pairs.left.tolist(), pairs.right.tolist(), pairs.same.tolist(), strict=True))
    batches = PairBatches(pairs, size=32, seed=3)
    for step in range(10):
        batch = batches(step)
        assert batch.pairs is not None
        left, right, same = batch.pairs
        assert same.sum() == 16
        assert len(same) == 32
        assert len(np.unique(batch.index)) == len(batch.index)
        ends = zip(batch.index[left].tolist(), batch.index[right].tolist(), same.tolist(), strict=True)
        assert set(ends) <= listed
    again = PairBatches(pairs, size=32, seed=3)(7)
    assert again.pairs is not None
    np.testing.assert_array_equal(again.index, batches(7).index)
    np.testing.assert_array_equal(again.pairs[0], batches(7).pairs[0])  # type: ignore[index]
    assert not np.array_equal(again.index, batches(8).index)


def test_pair_batches_require_both_kinds() -> None:
    with pytest.raises(DataError, match="no different pair"):
        PairBatches(pair_set([True] * 4))
    with pytest.raises(DataError, match="no same pair"):
        PairBatches(pair_set([False] * 4))


def test_labels_of_impostors_are_never_reused() -> None:
    labels = np.concatenate([LABELS, 100 + np.arange(40)])
    forgery = np.arange(len(labels)) % 5 == 4
    batches = ClassBatches(labels, classes=8, images=3, forgery=forgery, flip_classes=True)
    met: set[int] = set()
    for step in range(20):
        own = [int(label) for label in batches(step).labels if label >= batches.num_classes]
        assert own
        assert len(set(own)) == len(own)
        assert met.isdisjoint(own), "a memory of embeddings would mix them up"
        met |= set(own)
