"""Random number generators: one named stream per purpose, derived from the user's seed."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Purpose of random numbers; the streams of one seed are independent."""

    SAMPLER = 1
    EPOCH_ORDER = 2
    HOLD_OUT = 3
    CACHED_VIEW = 4
    AUGMENTED_VIEW = 5


def rng(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """Return the generator of a stream, or of a step or an epoch of it, so that no state is saved."""
    return np.random.default_rng([seed, int(stream), *position])


def step_seed(seed: int, step: int) -> int:
    """Return the seed of one step for generators that take a single integer, such as PyTorch's."""
    return (seed * 1_000_003 + step) % (1 << 62)
