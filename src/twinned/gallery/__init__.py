"""Galleries of enrolled images: identify an image or answer "unknown", and search for similar images.

A gallery is a folder (Qdrant Edge), or a collection on a Qdrant server.
"""

from __future__ import annotations

from .copy import copy, rebuild
from .gallery import Gallery
from .open import open_gallery
from .results import Added, Hit, Identification, Page, Removed, Stats
from .store import Embedder, Record

__all__ = [
    "Added",
    "Embedder",
    "Gallery",
    "Hit",
    "Identification",
    "Page",
    "Record",
    "Removed",
    "Stats",
    "copy",
    "open_gallery",
    "rebuild",
]
