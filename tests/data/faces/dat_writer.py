"""Write small files in dlib's format, with random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twinned.data.faces.dat_file import Layer, Network

MEAN = (122.782, 117.001, 104.298)


def integer(value: int) -> bytes:
    size = (abs(value).bit_length() + 7) // 8 or 1
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def integers(values: Sequence[int]) -> bytes:
    return b"".join(map(integer, values))


def real(value: float) -> bytes:
    mantissa, exponent = math.frexp(np.float32(value))
    return integer(round(mantissa * 2**24)) + integer(exponent - 24)


def reals(values: Sequence[float]) -> bytes:
    return b"".join(map(real, values))


def text(value: str) -> bytes:
    return integer(len(value)) + value.encode()


def tensor(values: NDArray[np.float32] | None = None, *shape: int) -> bytes:
    if values is None:
        return integers([2, 0, 0, 0, 0])
    return integers([2, *(shape or (values.size, 1, 1, 1))]) + values.astype("<f4").tobytes()


def _views() -> bytes:
    return integers([1, 1, 1, 1, 1]) * 2


def layer(one: Layer) -> bytes:
    """Bytes of a layer's details."""
    if one.kind == "con_4":
        height, width, *rest = one.window
        values = np.concatenate([one.weights.ravel(), one.bias])
        sizes = integers([len(one.weights), height, width, *rest])
        return text("con_4") + tensor(values) + sizes + _views() + reals([1, 1, 1, 0])
    if one.kind == "affine_":
        return text("affine_") + tensor(np.concatenate([one.scale, one.bias])) + _views() + integer(0)
    if one.kind == "fc_2":
        inputs, outputs = one.weights.shape
        sizes = integers([outputs, inputs])
        values = tensor(one.weights, inputs, outputs, 1, 1)
        return text("fc_2") + sizes + values + _views() + integer(1) + reals([1, 1, 1, 0])
    return text(one.kind) + integers(one.window)


def batch_norm(gamma: float, beta: float, mean: float, variance: float, channels: int) -> bytes:
    """Bytes of a batch norm with equal channels."""
    one = np.ones(channels, np.float32)
    values = tensor(np.concatenate([gamma * one, beta * one]))
    statistics = b"".join(tensor(v * one) for v in (0, 0, mean, variance))
    return text("bn_con2") + values + _views() + statistics + integers([1, 1000]) + reals([1, 0, 1, 0, 1e-4])


def network(details: Sequence[bytes], *, size: Sequence[int] = (), tags: Sequence[int] = ()) -> bytes:
    """Bytes of a network.

    Args:
        details: Bytes of each layer's details, from the input.
        size: Height and width of the input, for an encoder; a detector without.
        tags: Numbers of layers that a tag follows.
    """
    versions = []
    for number in range(len(details)):
        versions += [3 if number == 0 and not size else 2] + [1] * (number in tags)
    if size:
        loss, inputs = text("loss_metric_2") + reals([0.04, 0.6]), "input_rgb_image_sized"
    else:
        options = integers([1, 80, 80]) + reals([1, 1, 0.5, 0.338, 1, 0.5, 1])
        loss, inputs = text("loss_mmod_") + options, "input_rgb_image_pyramid"
    state = b"110" + tensor() * 3
    first, *rest = details
    body = [first + state + (b"" if size else integer(0)), *(one + state for one in rest)]
    head = integer(1) + loss + integers(versions[::-1]) + text(inputs) + reals(MEAN) + integers(size)
    return head + b"".join(body)


def residual_layers(seed: int = 0) -> tuple[list[Layer], list[int]]:
    """Layers of a small encoder: a pool, a block of the same size, a block of half the size; its tags."""
    rng = np.random.default_rng(seed)

    def values(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    def block(inputs: int, outputs: int, *, down: bool) -> list[Layer]:
        window = (3, 3, 2, 2, 0, 0) if down else (3, 3, 1, 1, 1, 1)
        pool = [Layer("avg_pool_2", (2, 2, 2, 2, 0, 0))] if down else []
        return [
            *convolution(inputs, outputs, window),
            Layer("relu_"),
            *convolution(outputs, outputs, (3, 3, 1, 1, 1, 1)),
            *pool,
            Layer("add_prev_"),
            Layer("relu_"),
        ]

    def convolution(inputs: int, outputs: int, window: tuple[int, ...]) -> list[Layer]:
        weights = values(outputs, inputs, *window[:2])
        return [
            Layer("con_4", window, weights, bias=values(outputs)),
            Layer("affine_", scale=1 + values(outputs), bias=values(outputs)),
        ]

    layers = [
        *convolution(3, 4, (5, 5, 2, 2, 0, 0)),
        Layer("relu_"),
        Layer("max_pool_2", (3, 3, 2, 2, 0, 0)),
        *block(4, 4, down=False),
        *block(4, 6, down=True),
        Layer("avg_pool_2", (0, 0, 1, 1, 0, 0)),
        Layer("fc_2", weights=values(6, 5)),
    ]
    return layers, [3, 10]


def encoder(seed: int = 0) -> tuple[bytes, Network]:
    """Bytes and contents of a small encoder for images of 35 x 35."""
    layers, tags = residual_layers(seed)
    mean = tuple(float(np.float32(value)) for value in MEAN)
    return network([layer(one) for one in layers], size=(35, 35), tags=tags), Network(mean, (35, 35), layers)


def predictor(seed: int = 0, *, points: int = 5, levels: int = 2, trees: int = 3, features: int = 7) -> bytes:
    """Bytes of a small shape predictor whose trees have three splits."""
    rng = np.random.default_rng(seed)

    def column(size: int) -> bytes:
        return integers([-size, -1]) + reals(rng.random(size).tolist())

    def tree() -> bytes:
        splits = b"".join(
            integers(rng.integers(0, features, 2).tolist()) + real(rng.normal(0, 20)) for _ in range(3)
        )
        return integer(3) + splits + integer(4) + b"".join(column(2 * points) for _ in range(4))

    forests = b"".join(integer(trees) + b"".join(tree() for _ in range(trees)) for _ in range(levels))
    anchors = b"".join(
        integer(features) + integers(rng.integers(0, points, features).tolist()) for _ in range(levels)
    )
    offsets = b"".join(integer(features) + reals(rng.random(2 * features).tolist()) for _ in range(levels))
    head = integer(1) + column(2 * points)
    return head + integer(levels) + forests + integer(levels) + anchors + integer(levels) + offsets
