"""Data sets, image reading, splits, samplers and public data sets."""

from ..utils.lazy import lazy_attributes

__getattr__, __all__ = lazy_attributes(__name__, __file__)
