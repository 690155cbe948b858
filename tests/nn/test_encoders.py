"""Encoders: published sizes, embeddings, feature maps and stages."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from twinned import encoders
from twinned.errors import SettingError
from twinned.nn.encoders import ENCODERS, registry


def convolution(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel**2 + outputs


def test_parameter_counts_match_the_papers():
    expected = {
        "koch2015": convolution(1, 64, 10)
        + convolution(64, 128, 7)
        + convolution(128, 128, 4)
        + convolution(128, 256, 4)
        + convolution(256 * 6 * 6, 4096, 1),
        "chopra2005": convolution(1, 15, 7)
        + convolution(15, 45, 6)
        + convolution(45, 250, 5)
        + convolution(250, 50, 1),
        "deck_shared": convolution(3, 32, 3) + convolution(32, 64, 3) + convolution(64 * 14 * 14, 128, 1),
        "deck_face": convolution(3, 64, 3) + convolution(64, 128, 3) + convolution(128 * 22 * 22, 128, 1),
        "deck_signature": convolution(1, 32, 3) + convolution(32, 64, 3) + convolution(64 * 23 * 48, 128, 1),
    }
    for name, count in expected.items():
        shape = encoders.input_shape(name)
        assert shape is not None
        encoder = encoders.build(name, image_size=shape[:2], channels=shape[2])
        assert sum(p.numel() for p in encoder.parameters()) == count, name
    assert expected["koch2015"] == 38_951_745 - 4_097


def test_koch_weights_are_initialized_as_published():
    torch.manual_seed(0)
    encoder = encoders.Koch2015()
    first, dense = encoder.convolutions[0], encoder.dense
    assert first.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert dense.weight.std().item() == pytest.approx(0.2, rel=0.01)
    for layer in (first, dense):
        assert layer.bias.mean().item() == pytest.approx(0.5, abs=0.005)
        assert layer.bias.std().item() == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "koch2015"])
def test_embedding_is_independent_of_the_batch(name):
    torch.manual_seed(0)
    height, width, channels = encoders.input_shape(name) or (40, 52, 3)
    encoder = encoders.build(name, image_size=(height, width), channels=channels).eval().double()
    images = torch.rand(5, channels, height, width, dtype=torch.float64)
    with torch.no_grad():
        together = encoder(images)
        alone = torch.cat([encoder(image[None]) for image in images])
    assert together.shape == (5, encoder.embedding_size)
    assert (encoder.image_size, encoder.channels) == ((height, width), channels)
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "koch2015"])
def test_stages_have_all_parameters_in_order(name):
    shape = encoders.input_shape(name) or (32, 32, 1)
    encoder = encoders.build(name, image_size=shape[:2], channels=shape[2])
    of_stages = [id(p) for stage in encoder.stages() for p in stage.parameters()]
    assert of_stages == [id(p) for p in encoder.parameters()]


@pytest.mark.parametrize("name", ["conv4", "resnet"])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 40), (35, 35), (56, 48), (105, 105)])
def test_convnets_accept_any_image_size(name, height, width):
    encoder = encoders.build(name, image_size=(height, width), channels=1).eval()
    assert encoder(torch.rand(2, 1, height, width)).shape == (2, encoder.embedding_size)
    assert encoder.embedding_size <= 9 * encoder.features(torch.rand(1, 1, height, width)).shape[1]


@pytest.mark.parametrize("name", ["conv4", "resnet", "chopra2005", "deck_face", "deck_signature"])
def test_embedding_size_is_respected(name):
    shape = encoders.input_shape(name) or (32, 32, 1)
    encoder = encoders.build(name, image_size=shape[:2], channels=shape[2], embedding_size=17).eval()
    assert encoder.embedding_size == 17
    assert encoder(torch.rand(2, shape[2], *shape[:2])).shape == (2, 17)


@pytest.mark.parametrize("name", ["conv4", "resnet"])
def test_dropout_is_active_in_training_only(name):
    torch.manual_seed(0)
    encoder = encoders.build(name, image_size=(32, 32), channels=1, dropout=0.5)
    images = torch.rand(4, 1, 32, 32)
    encoder.eval()
    torch.testing.assert_close(encoder(images), encoder(images), rtol=0, atol=0)
    encoder.train()
    assert (encoder(images) == 0).float().mean() > 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "vgg"}, "Unknown encoder 'vgg'. Choose one of conv4"),
        ({"name": "koch2015", "image_size": (35, 35)}, "takes images of 105x105 with 1 channels; got 35x35"),
        (
            {"name": "koch2015", "image_size": (105, 105), "embedding_size": 9},
            "embeddings of 4096 values; got 9",
        ),
        ({"name": "chopra2005", "image_size": (56, 46), "dropout": 0.5}, "chopra2005 has no dropout"),
        ({"name": "conv4", "image_size": (15, 40)}, "at least 16x16; got 15x40"),
        ({"name": "resnet", "image_size": (40, 8)}, "at least 16x16; got 40x8"),
        ({"name": "deck_face", "image_size": (12, 40)}, "at least 16 pixels a side"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    settings = {"image_size": (35, 35), "channels": 1} | settings
    with pytest.raises(SettingError, match=message):
        encoders.build(settings.pop("name"), **settings)


def test_deck_networks_match_the_slides():
    face, signature = encoders.deck(), encoders.build("deck_signature", image_size=(100, 200), channels=1)
    first = encoders.build("deck", image_size=(28, 28), channels=1)
    shared = encoders.build("deck_shared", image_size=(64, 64), channels=3)
    assert [block[0].out_channels for block in first.convolutions] == [64]
    assert [block[0].out_channels for block in shared.convolutions] == [32, 64]
    assert first.dense.in_features == 64 * 13 * 13
    assert [type(layer).__name__ for layer in face.convolutions[0]] == ["Conv2d", "ReLU", "MaxPool2d"]
    assert [block[0].out_channels for block in face.convolutions] == [64, 128]
    assert [block[0].out_channels for block in signature.convolutions] == [32, 64]
    assert face.dense.out_features == signature.dense.out_features == 128
    assert (face(torch.rand(2, 3, 96, 96)) >= 0).all()


def test_deck_networks_are_initialized_as_in_keras():
    torch.manual_seed(0)
    encoder = encoders.deck((64,), image_size=(28, 28), channels=1)
    bound = (6 / (64 * 13 * 13 + 128)) ** 0.5  # Glorot & Bengio 2010
    assert bound * 0.99 < encoder.dense.weight.abs().max().item() <= bound
    assert encoder.convolutions[0][0].weight.abs().max().item() <= (6 / (9 + 9 * 64)) ** 0.5
    assert not encoder.dense.bias.any()
    assert not encoder.convolutions[0][0].bias.any()


def test_loaded_weights_have_no_known_license(tmp_path):
    encoder = encoders.build("conv4", image_size=(20, 24), channels=1)
    save_file(encoder.state_dict(), tmp_path / "mine.safetensors")
    encoders.load_weights(encoder, tmp_path / "mine.safetensors")
    assert encoder.license == "not known: weights of mine.safetensors"


def test_symmetric_encoder_averages_mirror_images_in_evaluation():
    encoder = encoders.build("conv4", image_size=(20, 24), channels=1, symmetric=True).double()
    plain = encoders.build("conv4", image_size=(20, 24), channels=1).double()
    plain.load_state_dict(encoder.state_dict())
    x = torch.rand(3, 1, 20, 24, dtype=torch.float64)
    assert torch.equal(encoder(x), plain(x))  # in training mode
    encoder.eval(), plain.eval()
    torch.testing.assert_close(encoder(x), encoder(x.flip(3)))
    torch.testing.assert_close(encoder(x), (plain(x) + plain(x.flip(3))) / 2)


def test_encoder_is_installed_if_all_packages_are(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda package: None if package == "missing" else object())
    monkeypatch.setitem(ENCODERS, "plain", ENCODERS["conv4"])
    monkeypatch.setitem(ENCODERS, "large", ENCODERS["conv4"]._replace(packages=("there", "missing")))
    assert encoders.installed("plain")
    assert encoders.installed("efficientnet_lite0")
    assert not encoders.installed("large")
    with pytest.raises(SettingError, match="Unknown encoder 'vgg'"):
        encoders.installed("vgg")


@pytest.mark.skipif(
    not encoders.installed("efficientnet_lite0_face"), reason="the extra pretrained is missing"
)
def test_feature_maps_of_a_pretrained_network_are_local():
    encoder = encoders.build("efficientnet_lite0_face", image_size=(64, 64), channels=3).eval()
    assert encoder.embedding_size == 80 * 3 * 3 + 192 * 4 * 4
    assert len(encoder.stages()) == 8  # stem, six of the network's stages, the embedding layer
    image = torch.zeros(1, 3, 64, 64)
    other = image.clone()
    other[:, :, 48:, 48:] = 2  # the lower right corner
    with torch.no_grad():
        plain, changed = encoder.pooled_features(image), encoder.pooled_features(other)
    assert torch.linalg.vector_norm(plain[:, : 80 * 9]).item() == pytest.approx(1, abs=1e-5)
    assert torch.linalg.vector_norm(plain[:, 80 * 9 :]).item() == pytest.approx(1, abs=1e-5)
    apart = (plain - changed)[0, : 80 * 9].view(80, 3, 3).abs().sum(dim=0)
    assert apart[2, 2] == apart.max()
    assert apart[2, 2] > 5 * apart[0, 0]
