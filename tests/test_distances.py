"""Compare distances and their gradients with slow loops and SciPy, for NumPy and torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from twinned import distances
from twinned.errors import DataError, SettingError

NAMES = list(distances.DISTANCES)
SCIPY = {
    "euclidean": "euclidean",
    "squared_euclidean": "sqeuclidean",
    "manhattan": "cityblock",
    "cosine": "cosine",
}
Rows = NDArray[np.float64]


def slow(name: str, a: Rows, b: Rows) -> float:
    """Compute the distance of two vectors with loops."""
    if name == "manhattan":
        return sum(abs(x - y) for x, y in zip(a, b, strict=True))
    squared = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    if name == "squared_euclidean":
        return squared
    if name == "euclidean":
        return math.sqrt(squared)
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return 1 - dot / length if length else 1.0


def rows(n: int, d: int = 7, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_equals_a_loop(name: str, kind: Any) -> None:
    a, b = rows(5), rows(5, seed=1)
    a[2] = b[2]
    paired = distances.get(name)(kind(a), kind(b))
    every = distances.get(name)(kind(a), kind(b[:3]), pairwise=True)
    assert type(paired) is type(kind(a))
    np.testing.assert_allclose(paired, [slow(name, x, y) for x, y in zip(a, b, strict=True)], atol=1e-12)
    np.testing.assert_allclose(every, [[slow(name, x, y) for y in b[:3]] for x in a], atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_matches_scipy(name: str) -> None:
    a, b = rows(40, 16), rows(30, 16, seed=1)
    np.testing.assert_allclose(distances.get(name)(a, b, pairwise=True), cdist(a, b, SCIPY[name]), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@given(
    a=arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6)),
    b=arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6)),
)
def test_distance_is_nonnegative_and_symmetric(name: str, a: Rows, b: Rows) -> None:
    distance = distances.get(name)(a, b, pairwise=True)
    assert (distance >= 0).all()
    np.testing.assert_allclose(distance.T, distances.get(name)(b, a, pairwise=True))
    np.testing.assert_array_equal(np.diag(distance).shape, (3,))
    np.testing.assert_allclose(np.diag(distance), distances.get(name)(a, b), atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_block_size_does_not_change_distances(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = rows(23), rows(9, seed=1)
    whole = distances.get(name)(a, b, pairwise=True)
    monkeypatch.setattr(distances, "_BLOCK_VALUES", 4 * b.size)
    np.testing.assert_allclose(distances.get(name)(a, b, pairwise=True), whole, rtol=1e-12)
    monkeypatch.setattr(distances, "_BLOCK_VALUES", 1)  # at least one row at a time
    np.testing.assert_allclose(distances.get(name)(a, b, pairwise=True), whole, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pairwise", [False, True])
def test_dtype_is_preserved(name: str, pairwise: bool) -> None:
    for dtype in (np.float32, np.float64):
        a, b = rows(3).astype(dtype), rows(3, seed=1).astype(dtype)
        assert distances.get(name)(a, b, pairwise=pairwise).dtype == dtype
    for kind in (torch.float32, torch.bfloat16):
        x, y = torch.randn(3, 7, dtype=kind), torch.randn(3, 7, dtype=kind)
        assert distances.get(name)(x, y, pairwise=pairwise).dtype == kind


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pairwise", [False, True])
def test_gradient_is_zero_for_equal_inputs(name: str, pairwise: bool) -> None:
    a = torch.from_numpy(rows(4)).requires_grad_()
    b = torch.from_numpy(rows(4)).requires_grad_()
    distance = distances.get(name)(a, b, pairwise=pairwise)
    own = distance.diagonal() if pairwise else distance
    own.sum().backward()
    torch.testing.assert_close(a.grad, torch.zeros_like(a), atol=1e-12, rtol=0)
    torch.testing.assert_close(b.grad, torch.zeros_like(b), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_finite_for_zero_vectors_and_tiny_differences(name: str) -> None:
    base = torch.from_numpy(rows(6)).float()
    base[0] = 0
    other = base.clone()
    other[1] += 1e-20  # lost in rounding
    other[2] = torch.nextafter(other[2], torch.tensor(9.0))  # the smallest difference
    base[3], other[3] = 0, 1e-25  # its square underflows
    a, b = base.requires_grad_(), other.requires_grad_()
    distances.get(name)(a, b, pairwise=True).sum().backward()
    for gradient in (a.grad, b.grad):
        assert gradient is not None
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradient_matches_finite_differences(name: str) -> None:
    a = torch.from_numpy(rows(3)).requires_grad_()
    b = torch.from_numpy(rows(3, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: distances.get(name)(x, y, pairwise=True), (a, b))


def test_cosine_of_the_zero_vector_is_one() -> None:
    a, zero = rows(2), np.zeros((2, 7))
    assert distances.cosine(a, zero).tolist() == [1, 1]
    assert distances.cosine(zero, zero).tolist() == [1, 1]
    assert distances.unit(zero).tolist() == zero.tolist()


def test_cosine_stays_within_0_and_2() -> None:
    a = np.array([[1.0, 0.0]])
    assert distances.cosine(a, 3 * a).tolist() == [0]
    assert distances.cosine(a, -a).tolist() == [2]
    assert distances.cosine_similarity(a, 3 * a).tolist() == [1]
    many = rows(500).astype(np.float32)
    assert (distances.cosine(many, 7 * many) >= 0).all()  # 1 - similarity may round below 0


def test_empty_input_gives_no_distances() -> None:
    none = np.empty((0, 4))
    for name in NAMES:
        assert distances.get(name)(none, none).shape == (0,)
        assert distances.get(name)(rows(3, 4), none, pairwise=True).shape == (3, 0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), r"\(2, 3\) and \(2, 4\)"),
        (np.zeros(3), np.zeros(3), r"must be \(n, d\)"),
        (np.zeros((2, 3)), np.zeros((4, 3)), "2 and 4 rows"),
        (np.zeros((2, 3), np.uint8), np.ones((2, 3), np.uint8), "uint8"),  # 0 - 1 would be 255
    ],
)
def test_invalid_shapes_and_dtypes_are_refused(name: str, a: Any, b: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        distances.get(name)(a, b)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SettingError, match=r"'l2'.*euclidean, squared_euclidean, manhattan, cosine"):
        distances.get("l2")
