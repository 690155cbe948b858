"""Joining requests changes nothing but the speed, and is only done where it pays."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from twinned.data.preprocessing import ImageSpec
from twinned.inference.session import embed_stream
from twinned.server.batching import BatchingEncoder, choose, rate

SPEC = ImageSpec(height=8, width=8, channels=1)


def image(value: int, count: int = 1) -> np.ndarray:
    return np.full((count, *SPEC.shape), value, np.uint8)


def mean(pixels: np.ndarray) -> np.ndarray:
    """An encoder whose one value is the mean pixel."""
    return pixels.reshape(len(pixels), -1).mean(axis=1, keepdims=True).astype(np.float32)


def all_at_once(ask: Callable[[int], None], threads: int) -> None:
    running = [threading.Thread(target=ask, args=(place,)) for place in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(10)
        assert not thread.is_alive()


def test_everybody_gets_their_own_answer() -> None:
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
    assert max(batches) > 3, "nothing was ever joined"
    assert max(batches) <= 8


def test_a_request_larger_than_a_batch_is_run_by_itself() -> None:
    assert BatchingEncoder(mean, most=4)(image(7, 11)).shape == (11, 1)


def test_more_images_than_a_batch_go_through_it_one_batch_after_another() -> None:
    images = [np.full((8, 8), n, np.uint8) for n in range(70)]
    found = np.concatenate([part.vectors for part in embed_stream(images, SPEC, BatchingEncoder(mean))])
    assert found[:, 0].tolist() == list(range(70))


def test_an_error_reaches_everybody_who_was_joined_and_nobody_after() -> None:
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


@pytest.mark.parametrize("pays", [True, False])
def test_the_faster_way_is_taken(pays: bool) -> None:
    """A graphics card is busy for as long with one image as with many; a core is not."""
    busy = threading.Lock()

    def load(threads: int) -> Callable[[np.ndarray], np.ndarray]:
        def encode(pixels: np.ndarray) -> np.ndarray:
            if pays:
                with busy:
                    time.sleep(0.02)
            else:
                time.sleep(0.01 * len(pixels))
            return mean(pixels)

        return encode

    plan = choose(load, SPEC)
    assert plan.together is pays
    assert isinstance(plan.encoder, BatchingEncoder) is pays
    assert plan.rates[pays] > plan.rates[not pays]


def test_the_rate_counts_images() -> None:
    def two_milliseconds(pixels: np.ndarray) -> np.ndarray:
        time.sleep(0.002)
        return mean(pixels)

    assert 300 < rate(two_milliseconds, 1, SPEC, seconds=0.2) < 1001
