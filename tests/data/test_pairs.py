"""Pairs and triplets: correct, balanced, reproducible, and in O(images) memory."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinned.data.pairs import make_pairs, make_triplets
from twinned.errors import DataError

Labels = NDArray[np.int64]
usable = st.lists(st.integers(0, 5), min_size=4, max_size=40).filter(
    lambda labels: len(set(labels)) > 1 and len(set(labels)) < len(labels)
)


@given(labels=usable, pairs=st.integers(0, 60), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_pairs_match_labels_fraction_and_seed(labels: list[int], pairs: int, share: float, seed: int) -> None:
    left, right, same = make_pairs(labels, pairs=pairs, same_fraction=share, seed=seed)
    known = np.array(labels)
    assert len(left) == len(right) == len(same) == pairs
    np.testing.assert_array_equal(known[left] == known[right], same)
    assert (left != right).all()
    assert same.sum() == round(pairs * share)
    for mine, again in zip(
        (left, right, same), make_pairs(labels, pairs=pairs, same_fraction=share, seed=seed)
    ):
        np.testing.assert_array_equal(mine, again)


@given(labels=usable, triplets=st.integers(0, 60), seed=st.integers(0, 9))
def test_triplets_match_labels(labels: list[int], triplets: int, seed: int) -> None:
    anchor, positive, negative = make_triplets(labels, triplets=triplets, seed=seed)
    known = np.array(labels)
    assert len(anchor) == len(positive) == len(negative) == triplets
    assert (anchor != positive).all()
    assert (known[anchor] == known[positive]).all()
    assert (known[anchor] != known[negative]).all()


def test_default_counts() -> None:
    labels = np.arange(20) // 4
    assert len(make_pairs(labels)[0]) == 40
    assert len(make_triplets(labels)[0]) == 20


def test_seed_changes_the_pairs() -> None:
    labels = np.arange(200) // 4
    assert (make_pairs(labels, seed=0)[0] != make_pairs(labels, seed=1)[0]).mean() > 0.5


def test_same_and_different_pairs_are_shuffled() -> None:
    """Each quarter of the list has half same and half different pairs."""
    same = make_pairs(np.arange(400) // 4, pairs=4000)[2]
    assert all(0.42 < quarter.mean() < 0.58 for quarter in np.split(same, 4))


def test_pairs_are_drawn_uniformly_over_classes() -> None:
    labels = np.array([0] * 30 + [1] * 3 + [2] * 3 + [3])
    left, right, same = make_pairs(labels, pairs=40_000)
    by_class = np.bincount(labels[left[same]], minlength=4) / same.sum()
    np.testing.assert_allclose(by_class, [1 / 3, 1 / 3, 1 / 3, 0], atol=0.02)  # large classes do not dominate
    within = np.unique(np.stack([left, right])[:, same & (labels[left] == 1)], axis=1, return_counts=True)[1]
    assert len(within) == 6  # all ordered pairs of three images
    assert within.min() > 0.8 * within.max()
    from_single = right[~same & (left == 36)]  # the image of class 3 meets every other
    assert set(from_single) == set(range(36))
    counts = np.bincount(from_single, minlength=36)
    assert counts.max() < 3 * counts.mean()


def test_labels_of_any_type() -> None:
    for labels in (["a", "a", "b", "b"], np.array([9, 9, -4, -4]), ("x", "x", "y", "y")):
        assert make_pairs(labels, pairs=6)[2].sum() == 3


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(DataError, match="at least two classes are needed; got 1"):
        make_pairs([0, 0, 0])
    with pytest.raises(DataError, match="no class has two images"):
        make_triplets([0, 1, 2])
    with pytest.raises(DataError, match="no class has two images"):
        make_pairs([0, 1, 2])
    with pytest.raises(DataError, match=r"got 1\.5"):
        make_pairs([0, 0, 1], same_fraction=1.5)
    with pytest.raises(DataError, match="got 0"):
        make_pairs([])
    assert not make_pairs([0, 1, 2], pairs=5, same_fraction=0)[2].any()  # same pairs are not required


def test_memory_is_linear_in_the_images() -> None:
    """Labels of Omniglot: 32,460 images of 1,623 characters."""
    labels = np.repeat(np.arange(1623), 20)

    def cost(labels: Labels) -> tuple[int, float]:
        start = time.process_time()
        tracemalloc.start()
        make_pairs(labels, seed=0)
        make_triplets(labels, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak, time.process_time() - start

    peak, seconds = cost(labels)
    assert peak < 400 * len(labels)
    assert seconds < 2
    assert cost(labels[: len(labels) // 4])[0] > peak / 8  # linear, not quadratic


def test_deck_scheme_draws_all_pairs_of_a_class() -> None:
    """All pairs of a class, and as many different pairs per image as its class has images."""
    labels = np.array([2, 0, 1, 0, 2, 2, 1, 0, 0])  # 4, 2 and 3 images
    left, right, same = make_pairs(labels, scheme="deck", seed=0)
    np.testing.assert_array_equal(labels[left] == labels[right], same)
    assert len({frozenset(pair) for pair in zip(left[same], right[same])}) == same.sum() == 6 + 1 + 3
    assert np.bincount(left[~same]).tolist() == [3, 4, 2, 4, 3, 3, 2, 4, 4]
    assert labels[left].tolist() == sorted(labels[left])
    assert same[:7].tolist() == [True] * 3 + [False] * 4  # the first image of class 0
    with pytest.raises(DataError, match=r"got 5\. Leave out pairs"):
        make_pairs(labels, pairs=5, scheme="deck")


def test_deck_scheme_draws_the_other_class_uniformly() -> None:
    """The other class is drawn uniformly, independent of its number of images."""
    labels = np.repeat([0, 1, 2], [40, 4, 160])
    left, right, same = make_pairs(labels, scheme="deck", seed=0)
    other = labels[right[~same & (labels[left] == 0)]]
    assert (other == 1).mean() == pytest.approx(0.5, abs=0.05)
