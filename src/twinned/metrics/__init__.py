"""Metrics computed from distances, embeddings and labels."""

from .comparisons import Comparator, Comparisons, compare

__all__ = ["Comparator", "Comparisons", "compare"]
