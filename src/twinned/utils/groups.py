"""Members and ranks of the groups that a label array defines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rank_within_group(labels: NDArray[Any]) -> NDArray[np.intp]:
    """Return the position of each element among those of its group, from 0, in order of appearance."""
    _, group, count = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(group), np.intp)
    rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)
    return rank


def members(labels: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Return the ascending indices of the elements of each group, groups in sorted order."""
    _, group, count = np.unique(labels, return_inverse=True, return_counts=True)
    return np.split(np.argsort(group, kind="stable"), np.cumsum(count)[:-1]) if len(group) else []
