"""Batching of concurrent requests, and the rule that enables it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from twinned.data.preprocessing import ImageSpec
from twinned.inference.model import Model
from twinned.inference.session import Graph, embed_stream
from twinned.server.batching import BatchingEncoder, plan

from ..conftest import EMBEDDING

SPEC = ImageSpec(height=8, width=8, channels=1)


def image(value: int, count: int = 1) -> np.ndarray:
    return np.full((count, *SPEC.shape), value, np.uint8)


def mean(pixels: np.ndarray) -> np.ndarray:
    """Encode an image as its mean pixel."""
    return pixels.reshape(len(pixels), -1).mean(axis=1, keepdims=True).astype(np.float32)


def all_at_once(ask: Callable[[int], None], threads: int) -> None:
    running = [threading.Thread(target=ask, args=(place,)) for place in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
        assert not thread.is_alive()


def test_concurrent_requests_get_their_own_results() -> None:
    batches: list[int] = []

    def slow(pixels: np.ndarray) -> np.ndarray:
        batches.append(len(pixels))
        time.sleep(0.002)
        return mean(pixels)

    encoder = BatchingEncoder(slow, most=8)
    wrong: list[int] = []

    def ask(place: int) -> None:
        for turn in range(20):
            value, count = (place * 20 + turn) % 256, 1 + turn % 3
            found = encoder(image(value, count))
            if found.shape != (count, 1) or (found != value).any():
                wrong.append(value)

    all_at_once(ask, 12)
    assert not wrong
    assert sum(batches) == 12 * sum(1 + turn % 3 for turn in range(20))
    assert max(batches) > 3, "no requests were joined"
    assert max(batches) <= 8


def test_request_larger_than_a_batch_runs_alone() -> None:
    assert BatchingEncoder(mean, most=4)(image(7, 11)).shape == (11, 1)


def test_many_images_run_in_several_batches() -> None:
    images = [np.full((8, 8), n, np.uint8) for n in range(70)]
    found = np.concatenate([part.vectors for part in embed_stream(images, SPEC, BatchingEncoder(mean))])
    assert found[:, 0].tolist() == list(range(70))


def test_error_reaches_only_the_joined_requests() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fails_on_nine(pixels: np.ndarray) -> np.ndarray:
        begun.set()
        go_on.wait(5)
        if (pixels == 9).any():
            raise RuntimeError("nine")
        return mean(pixels)

    encoder = BatchingEncoder(fails_on_nine)
    outcome: dict[int, object] = {}

    def ask(place: int) -> None:
        if place:
            begun.wait(5)
        try:
            outcome[place] = float(encoder(image(9 if place == 2 else place))[0, 0])
        except RuntimeError as error:
            outcome[place] = str(error)

    threading.Timer(0.2, go_on.set).start()
    all_at_once(ask, 3)
    assert outcome == {0: 0.0, 1: "nine", 2: "nine"}
    assert encoder(image(5))[0, 0] == 5


@pytest.mark.parametrize(
    ("provider", "batching"), [("CPUExecutionProvider", False), ("CUDAExecutionProvider", True)]
)
def test_requests_are_batched_except_on_cpu(
    model: Model, monkeypatch: pytest.MonkeyPatch, provider: str, batching: bool
) -> None:
    class OnProvider(Graph):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.providers = [provider]

    monkeypatch.setattr("twinned.server.batching.Graph", OnProvider)
    chosen = plan(model)
    assert chosen.batching is isinstance(chosen.encoder, BatchingEncoder) is batching
    assert chosen.threads == (4 if batching else 1) * (os.cpu_count() or 1)
    pixels = np.zeros((2, *model.spec.shape), np.uint8)
    np.testing.assert_allclose(chosen.encoder(pixels), model.embed_pixels(pixels), rtol=0, atol=EMBEDDING)
