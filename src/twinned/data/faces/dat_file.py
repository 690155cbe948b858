"""Read files of dlib (.dat): trained networks and the shape predictor.

Nothing in a file is executed. Every length is compared with the bytes that are left before memory is
allocated.
Source of the format: dlib/serialize.h, dlib/dnn/core.h, dlib/dnn/layers.h (dlib 20.0).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError

Floats = NDArray[np.float32]

MAX_BYTES = 64 << 20
_MAX_LAYERS = 1000
_MAX_TEXT = 100
_MAX_EXPONENT = 900
_MAX_VERSION = 3
_MAX_SIDE = 4096
# Kinds of input: number of integers after the mean.
_INPUTS = {"input_rgb_image_sized": 2, "input_rgb_image_pyramid": 0}
_NONE: Floats = np.empty(0, np.float32)


class Reader:
    """Cursor over the bytes of a .dat file.

    Args:
        content: Bytes of the file, at most 64 MiB.
        name: Name of the file for messages.

    Raises:
        ModelError: If the content is too large. The methods raise it where the bytes do not fit the format.
    """

    def __init__(self, content: bytes, name: str) -> None:
        if len(content) > MAX_BYTES:
            raise ModelError(f"{name}: The file has {len(content):,} bytes; the limit is {MAX_BYTES:,}")
        self.content, self.name, self.place = content, name, 0

    def error(self, reason: str) -> ModelError:
        """Return an error with the name of the file and the current position."""
        return ModelError(f"{self.name}: The file is damaged at byte {self.place:,} ({reason})")

    def integers(self, count: int) -> NDArray[np.int64]:
        """Read integers, each a control byte (sign and length) and up to 8 bytes, low byte first.

        Returns:
            Array of shape ``(count,)``.
        """
        if not 0 <= count <= len(self.content) - self.place:  # an integer takes at least two bytes
            raise self.error(f"{count:,} integers are announced")
        content, place, values = self.content, self.place, np.empty(count, np.int64)
        try:
            for index in range(count):
                control = content[place]
                start, place = place + 1, place + 1 + (control & 0x0F)
                value = int.from_bytes(content[start:place], "little")
                values[index] = -value if control & 0x80 else value
        except (IndexError, OverflowError):
            raise self.error("an integer is expected") from None
        if place > len(content):
            raise self.error("the end of the file is inside an integer")
        self.place = place
        return values

    def integer(self, low: int = -(1 << 31), high: int = (1 << 31) - 1) -> int:
        """Read one integer from ``low`` to ``high``."""
        value = int(self.integers(1)[0])
        if not low <= value <= high:
            raise self.error(f"{value:,} is not within {low:,} to {high:,}")
        return value

    def real(self) -> float:
        """Read one float: mantissa and exponent."""
        return float(self.reals(self.integers(2))[0])

    def reals(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the floats of integers that alternate mantissa and exponent: ``(..., 2 n) -> (..., n)``."""
        mantissa, exponent = pairs[..., ::2], pairs[..., 1::2]
        if np.abs(exponent).max(initial=0) > _MAX_EXPONENT:
            raise self.error("a float is not finite")
        return np.ldexp(mantissa.astype(np.float64), exponent.astype(np.int32))

    def boolean(self) -> bool:
        """Read one boolean: the character 0 or 1."""
        value = self.content[self.place : self.place + 1]
        if value not in (b"0", b"1"):
            raise self.error("a boolean is expected")
        self.place += 1
        return value == b"1"

    def text(self) -> str:
        """Read one string of ASCII, at most 100 characters."""
        return self.characters(self.integer(0, _MAX_TEXT))

    def characters(self, length: int) -> str:
        """Read ASCII characters."""
        value = self.content[self.place : self.place + length]
        if len(value) < length or not value.isascii():
            raise self.error("a string is expected")
        self.place += length
        return value.decode("ascii")

    def tensor(self) -> Floats:
        """Read one tensor of float32 with four dimensions; a copy, since a view keeps the file in memory."""
        self.integer(2, 2)
        shape = [self.integer(0) for _ in range(4)]
        length = 4 * math.prod(shape)
        if length > len(self.content) - self.place:
            raise self.error(f"a tensor of shape {shape} is announced")
        values = np.frombuffer(self.content, "<f4", length // 4, self.place).reshape(shape)
        self.place += length
        if not np.isfinite(values).all():
            raise self.error("a tensor has values that are not finite")
        return values.astype(np.float32)

    def end(self) -> None:
        """Check that nothing is left."""
        if self.place != len(self.content):
            raise self.error(f"{len(self.content) - self.place:,} bytes follow the end")


class Layer(NamedTuple):
    """Layer of a network.

    Args:
        kind: Name in the file, such as ``con_4``.
        window: Height, width, stride y, stride x, padding y and padding x; empty without a window.
        weights: Weights of a convolution, ``(out, in, height, width)``, or of a matrix, ``(in, out)``.
        scale: Factor of each channel of an affine layer.
        bias: Summand of each channel of a convolution or an affine layer.
    """

    kind: str
    window: tuple[int, ...] = ()
    weights: Floats = _NONE
    scale: Floats = _NONE
    bias: Floats = _NONE


class Network(NamedTuple):
    """Network in a file.

    Args:
        mean: Mean of red, green and blue that the network subtracts; the difference is divided by 256.
        size: Height and width of the input; empty where they are free.
        layers: Layers in order from the input. Tags are left out.
    """

    mean: tuple[float, ...]
    size: tuple[int, ...]
    layers: list[Layer]


def read_network(content: bytes, name: str) -> Network:
    """Read a network for embeddings (``loss_metric_2``) or for detection (``loss_mmod_``).

    Args:
        content: Bytes of the file.
        name: Name of the file for messages.

    Raises:
        ModelError: If the file is damaged, or has a layer of another kind than dlib's face models.
    """
    reader = Reader(content, name)
    reader.integer(1, 1)
    _loss(reader)
    # Versions of the layers from the last to the first: 1 for a tag, which has no content. The length of the
    # name of the input follows them, and then the contents of the layers from the first to the last.
    versions: list[int] = []
    while (value := reader.integer(1, _MAX_TEXT)) <= _MAX_VERSION:
        versions.append(value)
        if len(versions) > _MAX_LAYERS:
            raise reader.error(f"more than {_MAX_LAYERS:,} layers are announced")
    kind = reader.characters(value)
    if kind not in _INPUTS:
        raise reader.error(f"input {kind!r} is not supported")
    mean = tuple(reader.real() for _ in range(3))
    size = tuple(reader.integer(1, _MAX_SIDE) for _ in range(_INPUTS[kind]))
    layers = []
    for number, version in enumerate(reversed(versions)):
        if version == 1:
            continue
        layers.append(_layer(reader))
        for _ in range(3):
            reader.boolean()  # state of training
        for _ in range(3):
            reader.tensor()  # gradients and cached output
        if number == 0 and version == 3:
            reader.integer()
    reader.end()
    return Network(mean, size, layers)


class ShapePredictor(NamedTuple):
    """Cascade of regression trees that moves a mean shape to the landmarks of a face.

    Coordinates are relative to the box of the face: 0 to 1 across it. A tree compares differences of pixels
    at its splits, which form a complete binary tree in level order, and adds the values of a leaf.

    Args:
        shape: Mean shape, ``(points, 2)``.
        first: Feature on the left side of each split, ``(levels, trees, splits)``.
        second: Feature that is subtracted from it.
        threshold: Threshold of each split; a larger difference goes to the left.
        leaves: Movement of the points, ``(levels, trees, splits + 1, points, 2)``.
        anchors: Point that each feature is relative to, ``(levels, features)``.
        offsets: Position relative to that point, ``(levels, features, 2)``.

    References:
        Kazemi & Sullivan, One millisecond face alignment with an ensemble of regression trees, CVPR 2014.
    """

    shape: Floats
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    threshold: Floats
    leaves: Floats
    anchors: NDArray[np.int64]
    offsets: Floats


def read_shape_predictor(content: bytes, name: str) -> ShapePredictor:
    """Read a shape predictor whose trees all have the same size.

    Args:
        content: Bytes of the file.
        name: Name of the file for messages.

    Raises:
        ModelError: If the file is damaged.
    """
    reader = Reader(content, name)
    reader.integer(1, 1)
    values = _column(reader)
    if len(values) % 2:
        raise reader.error("a shape has two coordinates for each point")
    points = len(values) // 2
    levels = reader.integer(1, _MAX_SIDE)
    forests = []
    for _ in range(levels):
        trees = reader.integer(1, _MAX_SIDE)
        forests.append(_forest(reader, trees, points))
    if len({forest[0].shape for forest in forests}) > 1:
        raise reader.error("the forests have different sizes")
    reader.integer(levels, levels)
    anchors = [reader.integers(reader.integer(1, _MAX_SIDE)) for _ in range(levels)]
    reader.integer(levels, levels)
    offsets = [
        reader.reals(reader.integers(4 * reader.integer(len(one), len(one)))).reshape(-1, 2)
        for one in anchors
    ]
    reader.end()
    if len({len(one) for one in anchors}) > 1:
        raise reader.error("the levels have different numbers of features")
    first, second, threshold, leaves = (np.stack(part) for part in zip(*forests, strict=True))
    features = len(anchors[0])
    for index, limit in ((first, features), (second, features), (np.stack(anchors), points)):
        if index.min() < 0 or index.max() >= limit:
            raise reader.error("an index is out of range")
    return ShapePredictor(
        values.reshape(points, 2).astype(np.float32),
        first,
        second,
        threshold.astype(np.float32),
        leaves.reshape(*leaves.shape[:3], points, 2).astype(np.float32),
        np.stack(anchors),
        np.stack(offsets).astype(np.float32),
    )


def _column(reader: Reader) -> NDArray[np.float64]:
    """Read a matrix of one column; negative sizes mark the format."""
    rows, _ = -reader.integer(-_MAX_SIDE, -1), reader.integer(-1, -1)
    return reader.reals(reader.integers(2 * rows))


def _forest(reader: Reader, trees: int, points: int) -> tuple[Any, Any, Any, Any]:
    """Read trees: indices of features, thresholds, and values of the leaves."""
    place = reader.place
    splits = reader.integer(1, _MAX_SIDE)
    reader.place = place
    # Each tree is a run of integers of the same length: the number of splits, (first, second, mantissa,
    # exponent) of each, the number of leaves, (rows, columns, mantissas and exponents) of each.
    column = 2 + 4 * points
    length = 1 + 4 * splits + 1 + (splits + 1) * column
    rows = reader.integers(trees * length).reshape(trees, length)
    split = rows[:, 1 : 1 + 4 * splits].reshape(trees, splits, 4)
    leaf = rows[:, 2 + 4 * splits :].reshape(trees, splits + 1, column)
    sizes = rows[:, 0], rows[:, 1 + 4 * splits] - 1
    if any((size != splits).any() for size in sizes) or (leaf[..., :2] != (-2 * points, -1)).any():
        raise reader.error("the trees have different sizes")
    if splits & (splits + 1):
        raise reader.error(f"a tree with {splits} splits is not complete")
    threshold = reader.reals(split[..., 2:])[..., 0]
    return split[..., 0], split[..., 1], threshold, reader.reals(leaf[..., 2:])


def _loss(reader: Reader) -> None:
    """Skip the loss, whose options are known for each model."""
    kind = reader.text()
    if kind == "loss_metric_2":
        reader.reals(reader.integers(2 * 2))
    elif kind == "loss_mmod_":
        reader.integer(1, 1)
        reader.integers(2)  # size of the window
        reader.reals(reader.integers(2 * 7))
    else:
        raise reader.error(f"loss {kind!r} is not supported")


def _layer(reader: Reader) -> Layer:
    """Read one layer without its state of training."""
    kind = reader.text()
    if kind in ("relu_", "add_prev_"):
        return Layer(kind)
    if kind in ("max_pool_2", "avg_pool_2"):
        return Layer(kind, tuple(reader.integer(0, _MAX_SIDE) for _ in range(6)))
    if kind == "con_4":
        return _convolution(reader)
    if kind == "affine_":
        scale, bias = _halves(reader, reader.tensor())
        _skip_views(reader)
        reader.integer(0, 0)  # one factor for each channel
        return Layer(kind, scale=scale, bias=bias)
    if kind == "bn_con2":
        return _batch_norm(reader)
    if kind == "fc_2":
        outputs, inputs = reader.integer(1, _MAX_SIDE), reader.integer(1, _MAX_SIDE)
        weights = reader.tensor()
        if weights.size != inputs * outputs:
            raise reader.error(f"{inputs}x{outputs} weights are expected; got {weights.size:,}")
        _skip_views(reader)
        reader.integer(1, 1)  # without a bias
        reader.reals(reader.integers(2 * 4))
        return Layer(kind, weights=weights.reshape(inputs, outputs))
    raise reader.error(f"layer {kind!r} is not supported")


def _convolution(reader: Reader) -> Layer:
    values = reader.tensor().ravel()
    filters, height, width = (reader.integer(1, _MAX_SIDE) for _ in range(3))
    strides_and_padding = [reader.integer(0, _MAX_SIDE) for _ in range(4)]
    _skip_views(reader)
    reader.reals(reader.integers(2 * 4))  # factors of the learning rate and the weight decay
    inputs, rest = divmod(values.size - filters, filters * height * width)
    if inputs < 1 or rest or 0 in strides_and_padding[:2]:
        raise reader.error(f"a convolution {filters}@{height}x{width} has {values.size:,} values")
    weights = values[:-filters].reshape(filters, inputs, height, width)
    return Layer("con_4", (height, width, *strides_and_padding), weights, bias=values[-filters:])


def _batch_norm(reader: Reader) -> Layer:
    """Read a batch norm as an affine layer: ``gamma * (x - mean) / sqrt(variance + eps) + beta``."""
    gamma, beta = _halves(reader, reader.tensor())
    _skip_views(reader)
    reader.tensor()  # mean and deviation of the last batch
    reader.tensor()
    mean, variance = reader.tensor().ravel(), reader.tensor().ravel()
    reader.integers(2)  # numbers of updates
    eps = reader.reals(reader.integers(2 * 5))[-1]
    if not mean.shape == variance.shape == gamma.shape or (variance + eps <= 0).any():
        raise reader.error("a batch norm has no valid statistics")
    scale = gamma / np.sqrt(variance + eps)
    return Layer("affine_", scale=scale.astype(np.float32), bias=(beta - scale * mean).astype(np.float32))


def _halves(reader: Reader, values: Floats) -> tuple[Floats, Floats]:
    if values.size == 0 or values.size % 2:
        raise reader.error(f"{values.size:,} values are not a factor and a summand for each channel")
    first, second = np.split(values.ravel(), 2)
    return first, second


def _skip_views(reader: Reader) -> None:
    """Skip the shapes of the two parts of a layer's values."""
    for _ in range(2):
        reader.integer(1, 1)
        for _ in range(4):
            reader.integer(0)
