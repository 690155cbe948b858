"""Whether images of several requests are embedded together: measured at start, and only done if it pays.

On a processor the network usually gains nothing from a larger batch, and one thread a request keeps every
core busy. On a graphics card a batch of 64 costs little more than one image.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..data.images import Pixels
from ..data.preprocessing import ImageSpec
from ..inference.session import BATCH, Floats

Encoder = Callable[[Pixels], Floats]

# Measured for so long; together must be faster by so much, since waiting for others delays an answer.
_SECONDS = 0.25
_GAIN = 1.15


class EncoderPlan(NamedTuple):
    """How to run the encoder.

    Args:
        encoder: To be called from any thread.
        threads: How many threads of requests keep it busy.
        together: Whether it joins what arrives together.
        rates: Images a second, apart and together, as measured.
    """

    encoder: Encoder
    threads: int
    together: bool
    rates: tuple[float, float]


class BatchingEncoder:
    """An encoder for many threads: those that find it busy wait, and go into the next run as one batch.

    Nobody waits for others to come, so a single request is as fast as without.

    Args:
        encoder: What runs a batch.
        most: Images of one batch, unless one request has more.
    """

    def __init__(self, encoder: Encoder, *, most: int = BATCH) -> None:
        self._encoder = encoder
        self._most = most
        self._queue: list[_Request] = []
        self._changing = threading.Lock()
        self._running = threading.Lock()

    def __call__(self, pixels: Pixels) -> Floats:
        """Embeddings ``(n, d)`` of one request's images."""
        mine = _Request(pixels)
        with self._changing:
            self._queue.append(mine)
        while mine.outcome is None:
            with self._running:
                if mine.outcome is None:
                    self._run(self._next())
        if isinstance(mine.outcome, Exception):
            raise mine.outcome
        return mine.outcome

    def single_threaded(self) -> BatchingEncoder:
        """Itself: whatever runs beside it waits for its turn; see `twinned.inference.session`."""
        return self

    def _next(self) -> list[_Request]:
        """The oldest requests that fit into one batch, at least one."""
        with self._changing:
            sizes = np.cumsum([len(request.pixels) for request in self._queue])
            count = max(1, int(np.searchsorted(sizes, self._most, side="right")))
            taken, self._queue = self._queue[:count], self._queue[count:]
        return taken

    def _run(self, requests: list[_Request]) -> None:
        try:
            vectors = self._encoder(np.concatenate([request.pixels for request in requests]))
        except Exception as error:  # whoever asked is told
            for request in requests:
                request.outcome = error
            return
        ends = np.cumsum([len(request.pixels) for request in requests])
        for request, part in zip(requests, np.split(vectors, ends[:-1])):
            request.outcome = part


class _Request:
    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.outcome: Floats | Exception | None = None


def choose(load: Callable[[int], Encoder], spec: ImageSpec) -> EncoderPlan:
    """Measure both ways and take the faster.

    Args:
        load: Loads the encoder with so many threads inside.
        spec: Its input.
    """
    cores = os.cpu_count() or 1
    apart, joined = load(1), BatchingEncoder(load(cores))
    rates = rate(apart, cores, spec), rate(joined, 4 * cores, spec)
    if rates[1] > _GAIN * rates[0]:
        return EncoderPlan(joined, 4 * cores, True, rates)
    return EncoderPlan(apart, cores, False, rates)


def rate(encoder: Encoder, threads: int, spec: ImageSpec, *, seconds: float = _SECONDS) -> float:
    """Images a second that so many threads get embedded, two at a time."""
    pixels = np.zeros((2, *spec.shape), np.uint8)
    encoder(pixels)
    images = [0] * threads
    end = time.perf_counter() + seconds

    def ask(place: int) -> None:
        while time.perf_counter() < end:
            encoder(pixels)
            images[place] += len(pixels)

    began = time.perf_counter()
    asking = [threading.Thread(target=ask, args=(place,)) for place in range(threads)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    return sum(images) / (time.perf_counter() - began)
