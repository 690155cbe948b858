"""The distances, one definition each, for NumPy arrays and torch tensors alike.

**A distance is at least 0 and LOWER IS CLOSER, always.** A similarity never travels under the name
distance; the one public similarity, `cosine_similarity`, has its own name.

Every distance works on pairs, ``(n, d), (n, d) -> (n,)``, or on all pairs with ``all_pairs=True``,
``(n, d), (m, d) -> (n, m)``. Gradients are finite everywhere: the Euclidean distance of two equal
vectors has gradient 0, where ``sqrt`` alone would give NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import sqrt
from typing import Any, TypeAlias

from array_api_compat import array_namespace, device

from .errors import DataError, SettingError

Array: TypeAlias = Any  # a NumPy array or a torch tensor; what comes in comes out
Distance: TypeAlias = Callable[..., Array]

# All-pairs differences are formed a block of rows at a time, so that memory stays bounded.
_BLOCK_VALUES = 1 << 24
_FEW_PAIRS = 256
# How far rounding may take a distance matrix, as a share of its mean value (of 1 where that is less).
# A product of matrices in TF32 or bfloat16 is 0.2 % off. The root in a Euclidean distance magnifies that:
# embeddings far from 0 and close to each other have a diagonal of a tenth of the distances. Errors below 0
# are cut off, so a part of such a diagonal is 0.
_ROUNDING, _DIAGONAL = 0.005, 0.25

EXPECTED = "for embeddings z, give distances.euclidean(z, z, all_pairs=True) or another distance"

_checked: ContextVar[bool] = ContextVar("_checked", default=True)


def euclidean(a: Array, b: Array, *, all_pairs: bool = False) -> Array:
    """Length of the difference: ``sqrt(sum((a - b)**2))``.

    Args:
        a: Shape ``(n, d)``.
        b: Shape ``(n, d)``, or ``(m, d)`` with ``all_pairs``.
        all_pairs: Compare every row of ``a`` with every row of ``b``.

    Returns:
        Shape ``(n,)``, or ``(n, m)`` with ``all_pairs``; at least 0, lower is closer.

    Raises:
        DataError: If the shapes do not fit, or the values are not floats.

    Example:
        >>> import numpy as np
        >>> euclidean(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])).tolist()
        [5.0]
    """
    xp = array_namespace(a, b)
    squared = squared_euclidean(a, b, all_pairs=all_pairs)
    # Where two rows are equal, sqrt is taken of a constant 1 and multiplied by 0: value and gradient are 0.
    apart = squared != 0  # true of NaN as well, which must not come out as 0
    return xp.sqrt(xp.where(apart, squared, xp.ones_like(squared))) * xp.astype(apart, squared.dtype)


def squared_euclidean(a: Array, b: Array, *, all_pairs: bool = False) -> Array:
    """Squared length of the difference: ``sum((a - b)**2)``. FaceNet's triplet loss is written in it.

    Args and returns as `euclidean`.
    """
    if all_pairs and a.dtype != b.dtype:
        raise DataError(f"arrays of one kind are compared; got {a.dtype} and {b.dtype}")
    if not all_pairs or a.shape[0] * b.shape[0] <= _FEW_PAIRS or not _has_doubles(a):
        return _of_difference(a, b, all_pairs, lambda xp, d: xp.sum(d * d, axis=-1))
    # |a|^2 + |b|^2 - 2ab is one matrix product, twenty times as fast. In doubles it keeps the digits of a
    # float32; what rounding alone can leave counts as 0, so that equal rows are at distance 0.
    xp = _check(a, b, all_pairs)
    x, y = xp.astype(a, xp.float64), xp.astype(b, xp.float64)
    lengths = xp.sum(x * x, axis=-1)[:, None] + xp.sum(y * y, axis=-1)[None, :]
    squared = lengths - 2 * (x @ y.T)
    squared = xp.where(squared > 1e-14 * lengths, squared, xp.zeros_like(squared))
    return xp.astype(squared, a.dtype)


def manhattan(a: Array, b: Array, *, all_pairs: bool = False) -> Array:
    """Sum of the absolute differences: ``sum(|a - b|)``. Koch 2015 weights its terms, Chopra 2005 uses it.

    Args and returns as `euclidean`.
    """
    return _of_difference(a, b, all_pairs, lambda xp, difference: xp.sum(xp.abs(difference), axis=-1))


def cosine(a: Array, b: Array, *, all_pairs: bool = False) -> Array:
    """``1 - cosine_similarity``: 0 for one direction, 1 for a right angle, 2 for opposite directions.

    Args and returns as `euclidean`. The zero vector is at distance 1 from everything.
    """
    similarity = cosine_similarity(a, b, all_pairs=all_pairs)
    xp = array_namespace(similarity)
    # Rounding may leave a similarity a hair above 1; a distance is never below 0.
    return xp.clip(1 - similarity, min=0.0)


def cosine_similarity(a: Array, b: Array, *, all_pairs: bool = False) -> Array:
    """Cosine of the angle between two vectors, in [-1, 1]. HIGHER is closer: this is no distance.

    Args and shapes as `euclidean`. The zero vector has similarity 0 with everything.
    """
    xp = _check(a, b, all_pairs)
    a, b = unit(a), unit(b)
    return a @ b.T if all_pairs else xp.sum(a * b, axis=-1)


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
    """The distance function of that name.

    Raises:
        SettingError: If there is none; the message lists the names.
    """
    try:
        return DISTANCES[name]
    except KeyError:
        raise SettingError(f"distance {name!r} is not known; choose one of {', '.join(DISTANCES)}") from None


def check_matrix(matrix: Array, *, what: str) -> None:
    """Make sure that a matrix holds the distances of some rows to themselves, then to any others.

    Values are compared up to the rounding of their type. NaN passes, so that a loss can show it.

    Args:
        matrix: Shape ``(n, m)``, n at most m; the first ``n`` columns are the rows.
        what: The function that takes the matrix, for the message.

    Raises:
        DataError: If a value is negative, or the first ``n`` columns are not symmetric with a diagonal of 0.
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
    figures = (
        xp.mean(matrix),
        xp.min(matrix),
        xp.min(diagonal),
        xp.max(diagonal),
        xp.max(xp.abs(square - square.T)),
    )
    # In one piece, since a GPU waits for each transfer.
    mean, least, nearest, farthest, difference = xp.stack(figures).tolist()
    rounding = max(_ROUNDING, precision) * max(1.0, mean)
    if nearest > rounding or farthest > max(rounding, _DIAGONAL * max(1.0, mean)):
        wrong = f"a diagonal of up to {farthest:.4g}, where the distance of a row to itself is 0"
    elif least < -rounding:
        wrong = f"the negative value {least:.4g}"
    elif difference > rounding:
        wrong = f"values that differ by {difference:.4g} between (i, j) and (j, i)"
    else:
        return
    raise DataError(f"{what} takes a distance matrix, and got one with {wrong}; {EXPECTED}")


@contextmanager
def trusted() -> Iterator[None]:
    """Switch `check_matrix` off, for a matrix that the caller computed: logits order pairs as well."""
    token = _checked.set(False)
    try:
        yield
    finally:
        _checked.reset(token)


def _of_difference(a: Array, b: Array, all_pairs: bool, reduce: Callable[[Any, Array], Array]) -> Array:
    xp = _check(a, b, all_pairs)
    if not all_pairs:
        return reduce(xp, a - b)
    rows = max(1, _BLOCK_VALUES // max(1, b.shape[0] * b.shape[1]))
    if rows >= a.shape[0]:
        return reduce(xp, a[:, None, :] - b[None, :, :])
    blocks = [reduce(xp, a[i : i + rows, None, :] - b[None, :, :]) for i in range(0, a.shape[0], rows)]
    return xp.concat(blocks, axis=0)


def _has_doubles(a: Array) -> bool:
    """Apple's graphics processors have no float64."""
    return not str(device(a)).startswith("mps")


def _check(a: Array, b: Array, all_pairs: bool) -> Any:
    xp = array_namespace(a, b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"two arrays of shape (n, d) are compared; got {tuple(a.shape)} and {tuple(b.shape)}")
    if not (xp.isdtype(a.dtype, "real floating") and xp.isdtype(b.dtype, "real floating")):
        # Unsigned integers would wrap around: 0 - 1 = 255.
        raise DataError(f"floats are compared; got {a.dtype} and {b.dtype}: convert them first")
    if not all_pairs and a.shape[0] != b.shape[0]:
        raise DataError(
            f"pairs are compared row by row; got {a.shape[0]} and {b.shape[0]} rows"
            " (all_pairs=True compares all with all)"
        )
    if device(a) != device(b):
        raise DataError(f"both arrays must be on one device; got {device(a)} and {device(b)}")
    return xp
