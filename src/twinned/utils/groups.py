"""Members and ranks of the groups that a label array defines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rank_within_group(labels: NDArray[Any]) -> NDArray[np.intp]:
    """Return the position of each element among the elements of its group, in order of appearance.

    Args:
        labels: Group of each element, shape ``(n,)``. For random ranks, permute the labels first.

    Returns:
        Shape ``(n,)``, from 0.

    Example:
        >>> rank_within_group(np.array(["a", "b", "a", "a", "b"]))
        array([0, 0, 1, 2, 1])
    """
    _, group, count = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(group), np.intp)
    rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)
    return rank


def members(labels: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Return the ascending indices of the elements of each group, groups in sorted order.

    Args:
        labels: Group of each element, shape ``(n,)``.

    Example:
        >>> [list(map(int, index)) for index in members(np.array(["b", "a", "b"]))]
        [[1], [0, 2]]
    """
    _, group, count = np.unique(labels, return_inverse=True, return_counts=True)
    return np.split(np.argsort(group, kind="stable"), np.cumsum(count)[:-1]) if len(group) else []
