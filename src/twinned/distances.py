"""The distances, one definition each, for NumPy arrays and torch tensors alike.

**A distance is at least 0 and LOWER IS CLOSER, always.** A similarity never travels under the name
distance; the one public similarity, `cosine_similarity`, has its own name.

Every distance works on pairs, ``(n, d), (n, d) -> (n,)``, or on all pairs with ``all_pairs=True``,
``(n, d), (m, d) -> (n, m)``. Gradients are finite everywhere: the Euclidean distance of two equal
vectors has gradient 0, where ``sqrt`` alone would give NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from array_api_compat import array_namespace, device

from .errors import DataError, SettingError

Array: TypeAlias = Any  # a NumPy array or a torch tensor; what comes in comes out
Distance: TypeAlias = Callable[..., Array]

# All-pairs differences are formed a block of rows at a time, so that memory stays bounded.
_BLOCK_VALUES = 1 << 24
_FEW_PAIRS = 256


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
