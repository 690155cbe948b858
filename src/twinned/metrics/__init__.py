"""Metrics computed from distances, embeddings and labels."""

from .comparisons import Comparator, Comparisons, compare
from .embedder import Embedder

__all__ = ["Comparator", "Comparisons", "Embedder", "compare"]
