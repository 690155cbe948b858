"""Batching of requests that arrive at the same time.

On a CPU a larger batch rarely makes the network faster, and one single-threaded session keeps every core
busy. On a GPU a batch of 64 costs little more than one image, so waiting requests are joined into one batch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, TypeAlias

import numpy as np

from ..data.images import Pixels
from ..inference.model import Model
from ..inference.session import BATCH, Floats, Graph

_Request: TypeAlias = tuple[Pixels, Future[Floats]]


class EncoderPlan(NamedTuple):
    """Session of the encoder, number of request threads that keep it busy, and whether it joins requests."""

    encoder: Graph | BatchingEncoder
    threads: int
    batching: bool


class BatchingEncoder:
    """Session that joins concurrent calls: calls that find it busy form the next batch.

    No call waits for others to arrive, so a single request is as fast as without batching. A batch has at
    most ``most`` images, unless one request has more.
    """

    def __init__(self, encoder: Callable[[Pixels], Floats], *, most: int = BATCH) -> None:
        self._encoder = encoder
        self._most = most
        self._queue: list[_Request] = []  # waiting for the next batch
        self._changing = threading.Lock()
        self._running = threading.Lock()

    def __call__(self, pixels: Pixels) -> Floats:
        """Embed one request's images, shape ``(n, d)``."""
        mine: Future[Floats] = Future()
        with self._changing:
            self._queue.append((pixels, mine))
        while not mine.done():
            with self._running:
                if not mine.done():
                    self._run(self._next())
        return mine.result()

    def single_threaded(self) -> BatchingEncoder:
        """Return this session: concurrent workers take turns."""
        return self

    def _next(self) -> list[_Request]:
        """Remove the oldest requests that fit into one batch, at least one, from the queue."""
        with self._changing:
            sizes = np.cumsum([len(pixels) for pixels, _ in self._queue])
            count = max(1, int(np.searchsorted(sizes, self._most, side="right")))
            taken, self._queue = self._queue[:count], self._queue[count:]
        return taken

    def _run(self, requests: list[_Request]) -> None:
        images = [pixels for pixels, _ in requests]
        try:
            vectors = self._encoder(np.concatenate(images))
        except Exception as error:  # raised again in each caller
            for _, outcome in requests:
                outcome.set_exception(error)
            return
        ends = np.cumsum([len(pixels) for pixels in images])
        for (_, outcome), part in zip(requests, np.split(vectors, ends[:-1])):
            outcome.set_result(part)


def plan(model: Model) -> EncoderPlan:
    """Load the model's encoder for many callers: one thread per request on a CPU, batches elsewhere."""
    cores = os.cpu_count() or 1
    graph = Graph(model.folder / "encoder.onnx", device=model.device, threads=1)
    if graph.providers[0] == "CPUExecutionProvider":
        return EncoderPlan(graph, cores, batching=False)
    return EncoderPlan(BatchingEncoder(graph), 4 * cores, batching=True)
