"""The gallery: enrol images, identify or say "unknown", search for look-alikes.

Embedded by default, in one folder; on a Qdrant server by address when one machine is not enough.
"""

from __future__ import annotations

from .copy import copy, rebuild
from .embedder import Embedder
from .gallery import Gallery
from .open import open_gallery
from .results import (
    Added,
    Hit,
    Identification,
    Page,
    Removed,
    Stats,
)
from .store import Record

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
