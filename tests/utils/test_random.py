"""Random streams: reproducible, and independent of each other."""

from __future__ import annotations

import numpy as np

from twinned.utils.random import Stream, rng, step_seed


def test_stream_depends_on_seed_purpose_and_position() -> None:
    def draw(*arguments: int) -> int:
        return int(rng(arguments[0], Stream(arguments[1]), *arguments[2:]).integers(1 << 60))

    assert draw(0, 1, 5) == draw(0, 1, 5)
    assert len({draw(0, 1, 5), draw(1, 1, 5), draw(0, 2, 5), draw(0, 1, 6)}) == 4
    # Compatible with saved runs: the stream is the second word of the seed sequence.
    assert draw(7, Stream.HOLD_OUT) == int(np.random.default_rng([7, 3]).integers(1 << 60))


def test_step_seeds_fit_a_signed_64_bit_integer() -> None:
    assert step_seed(0, 3) == 3
    assert step_seed(3, 1) == 3_000_010
    assert 0 <= step_seed(2**62, 10**9) < 2**62
