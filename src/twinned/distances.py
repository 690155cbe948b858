"""Distances of NumPy arrays and torch tensors, one definition each.

**A distance is at least 0 and LOWER IS CLOSER.** The only similarity is `cosine_similarity`.

Every distance works on rows, ``(n, d), (n, d) -> (n,)``, or on all pairs of rows with ``pairwise=True``,
``(n, d), (m, d) -> (n, m)``. Gradients are finite everywhere: the Euclidean distance of two equal
vectors has gradient 0, where ``sqrt`` alone would give NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from math import sqrt
from typing import Any, Protocol, TypeAlias

import array_api_compat
import numpy as np
from array_api_compat import device

from .errors import DataError, SettingError

Array: TypeAlias = Any  # a NumPy array or a torch tensor; the result is of the same type

# Pairwise differences are computed by blocks of rows of this many values, to bound the memory.
_BLOCK_VALUES = 1 << 24
_FEW_PAIRS = 256
# Tolerances of `check_matrix`, as fractions of the matrix's mean value or of 1, whichever is larger. A matrix
# product in TF32 or bfloat16 has a relative error of 0.2 %, which the root in a Euclidean distance magnifies:
# for embeddings far from 0 and close to each other, the diagonal reaches a tenth of the distances. Negative
# errors are clipped, so part of such a diagonal is 0.
_ROUNDING, _DIAGONAL = 0.005, 0.25

EXPECTED = "for embeddings z, pass distances.euclidean(z, z, pairwise=True) or another distance"

_checked: ContextVar[bool] = ContextVar("_checked", default=True)


def array_namespace(*arrays: Array) -> Any:
    """Return the functions of the arrays' library.

    NumPy's own from 2.1 on: importing the wrapper of array_api_compat takes as long as importing NumPy.
    """
    if hasattr(np, "astype") and all(isinstance(array, np.ndarray) for array in arrays):
        return np
    return array_api_compat.array_namespace(*arrays)


class Distance(Protocol):
    """Distance of rows ``(n, d), (n, d) -> (n,)``, or of all pairs of rows."""

    def __call__(self, a: Array, b: Array, *, pairwise: bool = False) -> Array:
        """Compute the distances."""


def euclidean(a: Array, b: Array, *, pairwise: bool = False) -> Array:
    """Compute the length of the difference: ``sqrt(sum((a - b)**2))``.

    Args:
        a: Shape ``(n, d)``.
        b: Shape ``(n, d)``, or ``(m, d)`` with ``pairwise``.
        pairwise: Compare every row of ``a`` with every row of ``b``.

    Returns:
        Shape ``(n,)``, or ``(n, m)`` with ``pairwise``; at least 0, lower is closer.

    Raises:
        DataError: If the shapes do not fit, or the values are not floats.

    Example:
        >>> import numpy as np
        >>> euclidean(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])).tolist()
        [5.0]
    """
    xp = array_namespace(a, b)
    squared = squared_euclidean(a, b, pairwise=pairwise)
    # For equal rows the root of a constant 1 is multiplied by 0, so that value and gradient are 0.
    nonzero = squared != 0  # true for NaN as well, so that it shows in the result
    return xp.sqrt(xp.where(nonzero, squared, xp.ones_like(squared))) * xp.astype(nonzero, squared.dtype)


def squared_euclidean(a: Array, b: Array, *, pairwise: bool = False) -> Array:
    """Compute the squared length of the difference: ``sum((a - b)**2)``, as in FaceNet's triplet loss.

    Arguments and result as for `euclidean`.
    """
    if pairwise and a.dtype != b.dtype:
        raise DataError(f"the arrays have types {a.dtype} and {b.dtype}. Both must have the same type")
    # Apple's graphics processors (mps) lack float64.
    if not pairwise or a.shape[0] * b.shape[0] <= _FEW_PAIRS or str(device(a)).startswith("mps"):
        return _of_difference(a, b, pairwise, lambda xp, d: xp.sum(d * d, axis=-1))
    # |a|^2 + |b|^2 - 2ab is one matrix product, twenty times as fast. In float64 it keeps the precision of
    # float32; values that rounding can explain become 0, so that equal rows are at distance 0.
    xp = _check(a, b, pairwise)
    x, y = xp.astype(a, xp.float64), xp.astype(b, xp.float64)
    lengths = xp.sum(x * x, axis=-1)[:, None] + xp.sum(y * y, axis=-1)[None, :]
    squared = lengths - 2 * (x @ y.T)
    squared = xp.where(squared > 1e-14 * lengths, squared, xp.zeros_like(squared))
    return xp.astype(squared, a.dtype)


def manhattan(a: Array, b: Array, *, pairwise: bool = False) -> Array:
    """Compute the sum of absolute differences: ``sum(|a - b|)``.

    Chopra 2005 uses it; Koch 2015 weights its terms.

    Arguments and result as for `euclidean`.
    """
    return _of_difference(a, b, pairwise, lambda xp, difference: xp.sum(xp.abs(difference), axis=-1))


def cosine(a: Array, b: Array, *, pairwise: bool = False) -> Array:
    """Compute ``1 - cosine_similarity``: in [0, 2].

    Equal directions have distance 0, orthogonal ones 1 and opposite ones 2. Arguments and result as for
    `euclidean`. The zero vector is at distance 1 from everything.
    """
    similarity = cosine_similarity(a, b, pairwise=pairwise)
    # Rounding may leave a similarity slightly above 1; a distance is at least 0.
    return array_namespace(similarity).clip(1 - similarity, min=0.0)


def cosine_similarity(a: Array, b: Array, *, pairwise: bool = False) -> Array:
    """Compute the cosine of the angle between two vectors, in [-1, 1]. HIGHER is closer: a similarity.

    Arguments and shapes as for `euclidean`. The zero vector has similarity 0 with everything.
    """
    xp = _check(a, b, pairwise)
    a, b = unit(a), unit(b)
    return a @ b.T if pairwise else xp.sum(a * b, axis=-1)


def unit(a: Array) -> Array:
    """Scale each row to length 1; the zero vector stays zero. Shape ``(n, d) -> (n, d)``."""
    xp = array_namespace(a)
    squared = xp.sum(a * a, axis=-1, keepdims=True)
    nonzero = squared > 0
    return a / xp.sqrt(xp.where(nonzero, squared, xp.ones_like(squared)))


DISTANCES: dict[str, Distance] = {
    "euclidean": euclidean,
    "squared_euclidean": squared_euclidean,
    "manhattan": manhattan,
    "cosine": cosine,
}


def get(name: str) -> Distance:
    """Return a distance function by name; one that is not in `DISTANCES` raises a `SettingError`."""
    if name not in DISTANCES:
        raise SettingError(f"distance {name!r} is not known; choose one of {', '.join(DISTANCES)}")
    return DISTANCES[name]


def all_pairs(distance: str | Callable[[Any, Any], Array]) -> Callable[[Any, Any], Array]:
    """Return a function that computes all pairs, ``(n, d), (m, d) -> (n, m)``, by a name or a function."""
    found: Any = get(distance) if isinstance(distance, str) else distance
    return partial(found, pairwise=True) if found in DISTANCES.values() else found


def check_matrix(matrix: Array, *, what: str) -> None:
    """Check distances ``(n, m)`` of rows to themselves, in the first ``n`` columns, and to others.

    They must be at least 0, the first ``n`` columns symmetric with a diagonal of 0, up to the rounding of
    their type; otherwise a `DataError` names the function ``what``. NaN passes, so that it shows in the loss.
    """
    if not _checked.get():
        return
    xp = array_namespace(matrix)
    if not xp.isdtype(matrix.dtype, "real floating"):
        matrix = xp.astype(matrix, xp.float32)
    precision = 2 * sqrt(float(xp.finfo(matrix.dtype).eps))
    if precision > _ROUNDING:  # half precision, whose sums overflow
        matrix = xp.astype(matrix, xp.float32)
    square = matrix[:, : matrix.shape[0]]
    diagonal = xp.abs(xp.linalg.diagonal(square))
    figures = xp.mean(matrix), xp.min(matrix), xp.min(diagonal), xp.max(diagonal)
    asymmetry = xp.max(xp.abs(square - square.T))
    # One transfer, because a GPU waits for each.
    mean, least, nearest, farthest, difference = xp.stack((*figures, asymmetry)).tolist()
    rounding = max(_ROUNDING, precision) * max(1.0, mean)
    if nearest > rounding or farthest > max(rounding, _DIAGONAL * max(1.0, mean)):
        wrong = f"a diagonal of up to {farthest:.4g} (the distance of a row to itself is 0)"
    elif least < -rounding:
        wrong = f"the negative value {least:.4g}"
    elif difference > rounding:
        wrong = f"values that differ by {difference:.4g} between (i, j) and (j, i)"
    else:
        return
    raise DataError(f"{what} needs a distance matrix, but the matrix has {wrong}; {EXPECTED}")


@contextmanager
def trusted() -> Iterator[None]:
    """Disable `check_matrix`, for a matrix that the caller computed, such as one of logits."""
    token = _checked.set(False)
    try:
        yield
    finally:
        _checked.reset(token)


def _of_difference(a: Array, b: Array, pairwise: bool, reduce: Callable[[Any, Array], Array]) -> Array:
    xp = _check(a, b, pairwise)
    if not pairwise:
        return reduce(xp, a - b)
    rows = max(1, _BLOCK_VALUES // max(1, b.shape[0] * b.shape[1]))
    if rows >= a.shape[0]:
        return reduce(xp, a[:, None, :] - b[None, :, :])
    blocks = [reduce(xp, a[i : i + rows, None, :] - b[None, :, :]) for i in range(0, a.shape[0], rows)]
    return xp.concat(blocks, axis=0)


def _check(a: Array, b: Array, pairwise: bool) -> Any:
    xp = array_namespace(a, b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"the shapes {tuple(a.shape)} and {tuple(b.shape)} must be (n, d) and (m, d)")
    if not (xp.isdtype(a.dtype, "real floating") and xp.isdtype(b.dtype, "real floating")):
        # Unsigned integers would wrap around: 0 - 1 = 255.
        raise DataError(f"the arrays have types {a.dtype} and {b.dtype}. Convert them to floats")
    if not pairwise and a.shape[0] != b.shape[0]:
        rows = f"{a.shape[0]} and {b.shape[0]} rows"
        raise DataError(f"the arrays have {rows}. Without pairwise=True they must have the same number")
    if device(a) != device(b):
        raise DataError(f"the arrays are on {device(a)} and {device(b)}. Both must be on one device")
    return xp
