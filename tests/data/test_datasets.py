"""Image sets and pair sets: subsets, splits by class, connected components."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinned.data.datasets import ImageSet, PairSet
from twinned.data.readers import load_images
from twinned.errors import DataError


def faces() -> ImageSet:
    names = [f"{person}{i}.png" for person in "abcdef" for i in range(3)]
    return load_images(names, [n[0] for n in names], groups=["xyz"["abcdef".index(n[0]) // 2] for n in names])


def test_subset_by_index_and_by_mask() -> None:
    data = faces()
    chosen = np.array([4, 0, 17])
    part = data.subset(chosen)
    assert part.images == ["b1.png", "a0.png", "f2.png"]
    assert part.labels.tolist() == ["b", "a", "f"]
    assert part.groups.tolist() == ["x", "x", "z"]
    mask = np.isin(np.arange(18), chosen)
    assert data.subset(mask).images == ["a0.png", "b1.png", "f2.png"]


@pytest.mark.parametrize(
    ("split", "side"),
    [
        ("Train TRAINING test", "train train test"),
        ("dev _ Testing", "val train test"),
        ("_ _ test", "train train test"),
        ("fold1 _ Fold2", "fold1 _ fold2"),
        ("_ _ _", "_ _ _"),
    ],
)
def test_split_names_are_normalized(split: str, side: str) -> None:
    words = [word.replace("_", "") for word in split.split()]
    data = replace(load_images(["1", "2", "3"], ["a", "b", "c"]), split=np.array(words))
    assert data.split_name.tolist() == [word.replace("_", "") for word in side.split()]


def test_identity_groups_are_connected_by_same_pairs() -> None:
    same = np.array([True, False, True, False])
    found = PairSet(
        list("abcde"), left=np.array([0, 1, 2, 3]), right=np.array([1, 2, 3, 4]), same=same
    ).identity_groups()
    assert [found[0] == found[1], found[2] == found[3], len(np.unique(found))] == [True, True, 3]


def test_subset_of_an_array_of_pixels() -> None:
    pixels = np.arange(4, dtype=np.uint8).repeat(64).reshape(4, 8, 8)
    part = load_images(pixels, list("aabb")).subset(np.array([3, 1]))
    assert isinstance(part.images, np.ndarray)
    assert part.images[:, 0, 0].tolist() == [3, 1]


def test_classes_and_class_index() -> None:
    data = load_images(["1", "2", "3"], ["b", "a", "b"])
    assert data.classes == ["a", "b"]
    assert data.class_index.tolist() == [1, 0, 1]
    assert data.with_classes(["b"]).images == ["1", "3"]


@pytest.mark.parametrize("whole_groups", [False, True])
@given(fraction=st.floats(0.01, 0.99), seed=st.integers(0, 100))
def test_split_classes_shares_no_class(whole_groups: bool, fraction: float, seed: int) -> None:
    data = faces()
    first, second = data.split_classes(fraction, seed=seed, whole_groups=whole_groups)
    assert not set(first.classes) & set(second.classes)
    assert sorted([*first.names, *second.names]) == sorted(data.names)
    assert first.classes
    assert second.classes
    if whole_groups:
        assert not set(first.groups) & set(second.groups)
    again, _ = data.split_classes(fraction, seed=seed, whole_groups=whole_groups)
    assert again.names == first.names


def test_split_classes_respects_the_fraction() -> None:
    data = load_images([str(i) for i in range(100)], [str(i) for i in range(100)])
    first, second = data.split_classes(0.8, seed=1)
    assert (len(first), len(second)) == (80, 20)
    assert first.classes != data.split_classes(0.8, seed=2)[0].classes


def test_split_classes_refuses_invalid_fractions_and_few_classes() -> None:
    with pytest.raises(DataError, match="above 0 and below 1; got 1"):
        faces().split_classes(1.0)
    with pytest.raises(DataError, match="at least 2 classes; got 1"):
        load_images(["1", "2"], ["a", "a"]).split_classes(0.5)
    with pytest.raises(DataError, match="at least 2 groups; got 1"):
        load_images(["1", "2"], ["a", "b"]).split_classes(0.5, whole_groups=True)


def pairs(*ends: tuple[int, int], images: int) -> PairSet:
    left, right = np.array(ends, dtype=np.intp).T
    names = [f"{i}.png" for i in range(images)]
    return PairSet(images=names, left=left, right=right, same=np.arange(len(ends)) % 2 == 0)


def test_subset_of_pairs_drops_unused_images() -> None:
    part = pairs((0, 1), (5, 3), (1, 5), images=7).subset(np.array([2, 1]))
    assert part.images == ["1.png", "3.png", "5.png"]
    assert [part.images[i] for i in part.left] == ["1.png", "5.png"]
    assert [part.images[i] for i in part.right] == ["5.png", "3.png"]
    assert part.same.tolist() == [True, False]


@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), min_size=1, max_size=25))
def test_components_equal_a_loop(ends: list[tuple[int, int]]) -> None:
    found = pairs(*ends, images=15).components()
    mark = list(range(15))
    for _ in mark:  # propagate the smallest mark until nothing changes
        for a, b in ends:
            mark[a] = mark[b] = min(mark[a], mark[b])
    for i in range(15):
        for j in range(15):
            assert (found[i] == found[j]) == (mark[i] == mark[j])
    assert sorted(set(found)) == list(range(found.max() + 1))
