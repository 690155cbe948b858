"""Metrics computed from distances, embeddings and labels, without a model; public as `twinned.metrics`.

A distance is at least 0, and lower is closer. Embeddings and distances are arrays or torch tensors. Where a
metric compares embeddings, ``distance`` is a name (``cosine``, ``euclidean``, ``squared_euclidean``,
``manhattan``) or a function.

Example:
    >>> from twinned import metrics
    >>> z, y = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.2, 0.9]], ["a", "a", "b", "b"]
    >>> pairs = metrics.compare_all(z, y, "cosine")
    >>> metrics.eer(pairs.distance, pairs.same), metrics.recall_at_k(z, y, ks=(1,))
    (0.0, {1: 1.0})
"""

from .bootstrap import mean_interval
from .comparisons import Comparator, Comparisons, compare, compare_all, compare_pairs
from .few_shot import Episodes, OneShot, episodes, few_shot, possible_ways
from .retrieval import OpenSet, Retrieval, evaluate_retrieval, map_at_r, nearest_labels, open_set, recall_at_k
from .roc import Folds, Roc, auc, eer, lfw_folds, roc

__all__ = [
    "Comparator",
    "Comparisons",
    "Episodes",
    "Folds",
    "OneShot",
    "OpenSet",
    "Retrieval",
    "Roc",
    "auc",
    "compare",
    "compare_all",
    "compare_pairs",
    "eer",
    "episodes",
    "evaluate_retrieval",
    "few_shot",
    "lfw_folds",
    "map_at_r",
    "mean_interval",
    "nearest_labels",
    "open_set",
    "possible_ways",
    "recall_at_k",
    "roc",
]
