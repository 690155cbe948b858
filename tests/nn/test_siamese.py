"""The Siamese network: shared encoder, normalization of pixels, state and summary."""

from __future__ import annotations

import copy

import pytest
import torch

from twinned import encoders, heads
from twinned.nn.siamese import SiameseNetwork
from twinned.training.loop import EmaModel


@pytest.fixture
def network() -> SiameseNetwork:
    torch.manual_seed(0)
    encoder = encoders.Conv4(image_size=(24, 20), channels=3, embedding_size=8)
    return SiameseNetwork(encoder, normalize=True, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def test_koch_network_has_the_published_parameter_count():
    network = SiameseNetwork(encoders.Koch2015(), head=heads.WeightedL1())
    assert sum(p.numel() for p in network.parameters()) == 38_951_745
    assert sum(row.parameters for row in network.layers()) == 38_951_745
    assert "38,951,745 parameters" in network.summary()


def test_inputs_share_the_encoder(network):
    images = torch.rand(6, 3, 24, 20, dtype=torch.float64)
    left, right = images[:3], images[3:]
    network.eval().double()
    apart = network(left, right)
    torch.testing.assert_close(apart, network(right, left))
    torch.testing.assert_close(network(left, left), torch.zeros(3, dtype=torch.float64))
    assert apart.shape == (3,)
    assert (apart > 1e-6).all()
    # A step on one branch changes the other, since both share the weights.
    before = network.embed(right).detach()
    network.embed(left).sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 0.1 * parameter.grad
    assert not torch.allclose(network.embed(right), before)
    assert len({id(p) for p in network.parameters()}) == len(list(network.encoder.parameters()))


def test_embeddings_use_standardized_pixels(network):
    network.eval().double()
    images = torch.rand(4, 3, 24, 20, dtype=torch.float64)
    mean = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1).double()
    std = torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1).double()
    plain = network.encoder((images - mean) / std)
    torch.testing.assert_close(network.embed(images), plain / plain.norm(dim=1, keepdim=True))
    network.normalize = False
    torch.testing.assert_close(network.embed(images), plain)


def test_embeddings_are_float32_under_bfloat16_and_keep_float64(network):
    images = torch.rand(2, 3, 24, 20)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.embed(images).dtype == torch.float32
    assert network.double().embed(images.double()).dtype == torch.float64


def test_state_dict_round_trip_includes_mean_and_std(network):
    other = SiameseNetwork(
        encoders.Conv4(image_size=(24, 20), channels=3, embedding_size=8), normalize=True
    ).eval()
    state = network.eval().state_dict()
    assert set(state) == {"mean", "std"} | {f"encoder.{key}" for key in network.encoder.state_dict()}
    other.load_state_dict(state)
    images = torch.rand(4, 3, 24, 20)
    torch.testing.assert_close(other.embed(images), network.embed(images))
    assert other.statistics == network.statistics


def test_weights_only_state_requires_given_mean_and_std(network):
    weights = {k: v for k, v in network.state_dict().items() if k.startswith("encoder.")}

    def build(**given):
        encoder = encoders.Conv4(image_size=(24, 20), channels=3, embedding_size=8)
        return SiameseNetwork(encoder, normalize=True, **given).eval()

    other = build(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    other.load_state_dict(weights)
    images = torch.rand(4, 3, 24, 20)
    torch.testing.assert_close(other.embed(images), network.eval().embed(images))
    with pytest.raises(RuntimeError, match=r"Missing key.*mean"):
        build().load_state_dict(weights)


def test_averaging_keeps_mean_and_std(network):
    moved = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter += 0.1
    average = EmaModel(network, 0.99)
    for step in range(4):
        average.update(moved, step)
    assert torch.equal(average.network.mean, network.mean)
    assert torch.equal(average.network.std, network.std)
    assert not torch.equal(average.network.encoder.dense.weight, network.encoder.dense.weight)


def test_summary_counts_layers_once_without_side_effects(network):
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    rows = {row.name: row for row in network.layers()}
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert rows["blocks.0.0"].output == (64, 24, 20)
    assert rows["blocks.3.3"].output == (128, 1, 1)
    assert rows["dense"].parameters == 128 * 8 + 8
    assert sum(row.parameters for row in rows.values()) == sum(p.numel() for p in network.parameters())
    lines = network.summary().splitlines()
    assert len({len(line) for line in lines[:-1]}) == 1
    assert "64x24x20" in lines[2]


def test_symmetric_encoder_is_listed_once():
    kept = {"image_size": (24, 20), "channels": 3, "embedding_size": 8}
    plain, both = (SiameseNetwork(encoders.build("conv4", symmetric=way, **kept)) for way in (False, True))
    assert both.layers() == plain.layers()
    assert both.encoder.symmetric
    assert f"{sum(p.numel() for p in both.parameters()):,} parameters;" in both.summary()


def test_reused_weights_are_counted_once():
    encoder = encoders.Conv4(image_size=(24, 20), channels=3)
    again = torch.nn.Conv2d(128, 128, 3, padding=1)
    encoder.blocks.append(torch.nn.Sequential(again, torch.nn.ReLU(), again))
    network = SiameseNetwork(encoder)
    assert [row.parameters for row in network.layers() if row.name == "blocks.4.0"] == [
        128 * 128 * 9 + 128,
        0,
    ]
    assert sum(row.parameters for row in network.layers()) == sum(p.numel() for p in network.parameters())


def test_head_determines_the_distance():
    torch.manual_seed(0)
    left, right = torch.rand(2, 5, 1, 16, 16, dtype=torch.float64)
    encoder = encoders.Conv4(image_size=(16, 16), channels=1).eval().double()
    a, b = encoder(left), encoder(right)
    expected = {
        "euclidean": (a - b).square().sum(1).sqrt(),
        "squared_euclidean": (a - b).square().sum(1),
        "manhattan": (a - b).abs().sum(1),
        "cosine": 1 - torch.cosine_similarity(a, b),
    }
    for name, distance in expected.items():
        network = SiameseNetwork(encoder, heads.Distance(name)).eval().double()
        torch.testing.assert_close(network(left, right), distance)


@pytest.mark.parametrize(
    "head", [heads.WeightedL1(8), heads.SigmoidDistance(), heads.Relation([True, False], 8)]
)
def test_head_on_another_device_is_accepted(head):
    assert SiameseNetwork(encoders.Conv4(embedding_size=8), head.to("meta")).head is head
