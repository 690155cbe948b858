"""Reading files of dlib: round trips and damaged files."""

from __future__ import annotations

import contextlib

import dat_writer as dat
import numpy as np
import pytest

from twinned.data.faces import dat_file
from twinned.data.faces.dat_file import Reader, read_network, read_shape_predictor
from twinned.errors import ModelError


def test_integers_and_floats() -> None:
    values = [0, 1, -1, 255, 256, -70_000, 2**40, -(2**62)]
    reader = Reader(dat.integers(values), "x")
    assert reader.integers(len(values)).tolist() == values
    reader.end()
    floats = [0.0, 1.0, -0.5, 0.338, 1e-20, -3e10]
    reader = Reader(dat.reals(floats), "x")
    assert reader.reals(len(floats)).tolist() == pytest.approx(floats, rel=1e-6)


def test_encoder_round_trip() -> None:
    content, expected = dat.encoder()
    found = read_network(content, "x")
    assert (found.size, found.mean) == (expected.size, pytest.approx(expected.mean))
    assert [one.kind for one in found.layers] == [one.kind for one in expected.layers]
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert one.window == other.window
        for mine, theirs in zip(one[2:], other[2:], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_batch_norm_is_read_as_an_affine_layer() -> None:
    first = dat.residual_layers()[0][0]
    content = dat.network([dat.layer(first), dat.batch_norm(2.0, 0.5, 3.0, 4.0, 4)])
    _, norm = read_network(content, "x").layers
    deviation = np.sqrt(4 + 1e-4)
    np.testing.assert_allclose(norm.scale, np.full(4, 2 / deviation), rtol=1e-6)
    np.testing.assert_allclose(norm.bias, np.full(4, 0.5 - 6 / deviation), rtol=1e-6)


def test_shape_predictor_sizes() -> None:
    found = read_shape_predictor(dat.predictor(), "x")
    assert found.shape.shape == (5, 2)
    assert found.first.shape == found.second.shape == found.threshold.shape == (2, 3, 3)
    assert found.leaves.shape == (2, 3, 4, 5, 2)
    assert (found.anchors.shape, found.offsets.shape) == ((2, 7), (2, 7, 2))


@pytest.mark.parametrize(
    ("content", "read"),
    [(dat.encoder()[0], read_network), (dat.predictor(), read_shape_predictor)],
    ids=["network", "predictor"],
)
def test_damaged_file_is_a_model_error(content: bytes, read) -> None:
    rng = np.random.default_rng(0)
    for end in rng.integers(0, len(content), 60):
        with pytest.raises(ModelError, match="damaged"):
            read(content[:end], "x")
    with pytest.raises(ModelError, match="follow the end"):
        read(content + b"0", "x")
    for place in rng.integers(0, len(content), 200):  # a changed byte may leave a valid file
        changed = bytearray(content)
        changed[place] = rng.integers(0, 256)
        with contextlib.suppress(ModelError):
            read(bytes(changed), "x")


def test_lengths_are_checked_before_allocation() -> None:
    announced = dat.integers([2, 2**20, 2**20, 1, 1])  # a tensor of 4 TiB
    with pytest.raises(ModelError, match="announced"):
        Reader(announced, "x").tensor()
    with pytest.raises(ModelError, match="announced"):
        Reader(b"\x01\x01", "x").integers(1 << 40)
    with pytest.raises(ModelError, match="limit"):
        Reader(bytes(dat_file.MAX_BYTES + 1), "x")


def test_unknown_layer_is_named_in_the_error() -> None:
    with pytest.raises(ModelError, match="'con_9'"):
        read_network(dat.network([dat.text("con_9")]), "x")
    with pytest.raises(ModelError, match="not finite"):
        Reader(dat.tensor(np.array([np.nan], np.float32)), "x").tensor()
