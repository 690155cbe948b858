"""Datasets: read, check, decode and split images; draw pairs and batches; fetch public data sets.

readers         class folders, CSVs, pair lists and arrays to datasets
datasets        ImageSet and PairSet
images          open any image safely
preprocessing   resize to the input of a model
decoded         pixels in memory
splits          hold-out, class folds, subsamples
samplers        batches of training steps
pairs           pairs and triplets as index arrays
augmentation    augmentation of batches (PyTorch; imported separately)
checks          problems of a dataset
catalog         public data sets by name
benchmarks      official lists of LFW and Omniglot
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
