"""Data: reading it, parting it by class, drawing pairs, triplets and batches, decoding it once.

readers    folders, CSVs, pair lists, arrays  ->  ImageSet, PairSet
sets       what those are, and how to part them by class
tuples     pairs and triplets as index arrays
batches    which images each training step sees
cache      images decoded once into one uint8 array
augment    whole batches warped, turned and recoloured (PyTorch; imported on its own)
download   the public data sets by name: catalogue (whose, where), unpack (without trust), conversion
"""

from .catalog.convert import digits, load_digits
from .catalog.download import fetch, find, get
from .catalog.registry import DATA_SETS
from .datasets import ImageSet, PairSet
from .decoded import Decoded, DecodedSet, decode
from .pairs import make_pairs, make_triplets
from .readers import (
    find_images,
    load,
    load_images,
    load_pairs,
    references_of,
)
from .samplers import Batch, ClassBatches, PairBatches

__all__ = [
    "DATA_SETS",
    "Batch",
    "ClassBatches",
    "Decoded",
    "DecodedSet",
    "ImageSet",
    "PairBatches",
    "PairSet",
    "decode",
    "digits",
    "fetch",
    "find",
    "find_images",
    "get",
    "load",
    "load_digits",
    "load_images",
    "load_pairs",
    "make_pairs",
    "make_triplets",
    "references_of",
]
