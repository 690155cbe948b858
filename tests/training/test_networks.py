"""`Model.from_network` and `Model.to_torch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import twinned as tw
from twinned.data.preprocessing import ImageSpec
from twinned.data.readers import load_images
from twinned.errors import ModelError, SettingError
from twinned.inference import model_folder
from twinned.nn import encoders, heads, onnx_export

from ..conftest import slow

SPEC = ImageSpec(height=20, width=20, channels=1, mean=(0.8,), std=(0.3,))


class Small(nn.Module):
    """Convolution, batch norm and a linear layer."""

    def __init__(self, size: int = 12) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(486, size)
        )

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.layers(x)
        return embedding


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(encoders.ENCODERS)
    yield
    encoders.ENCODERS.clear()
    encoders.ENCODERS.update(before)


def vectors(network: Any, model: tw.Model, files: list[Path]) -> tuple[Tensor, Tensor]:
    """Return the embeddings of the files by the network and by the model."""
    images = torch.stack([model.preprocess(file) for file in files])
    with torch.no_grad():
        return network(images), torch.from_numpy(model.embed(list(map(str, files))))


@pytest.mark.usefixtures("registered")
def test_module_round_trips_through_model(strangers, tmp_path):
    tw.register_encoder("small")(Small)
    torch.manual_seed(0)
    module = Small()
    module(torch.rand(8, 1, 20, 20))  # update the running statistics of batch norm
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = tw.Model.from_network(module, strangers, output=tmp_path / "m.twin", progress=False)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert model.manifest.encoder == "small"
    assert model.spec == ImageSpec(height=20, width=20, channels=1)
    assert model.manifest.note_codes[0] == "trained-elsewhere"
    files = sorted(strangers.rglob("*.png"))[:6]
    ours, theirs = vectors(module.eval(), model, files)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert model.verify(str(files[0]), str(files[0])).same

    network = tw.load(tmp_path / "m.twin").to_torch()
    again, _ = vectors(network.embed, model, files)
    assert (ours - again).abs().max() <= 1e-5
    other = tw.Model(model.folder).to_torch()
    nn.init.zeros_(other.encoder.module.layers[0].weight)
    other.load_state_dict(network.state_dict())
    assert torch.equal(vectors(other.embed, model, files)[0], again), "the state is complete"

    found = tw.finetune(model, strangers, steps=2, progress=False)
    assert found.manifest.encoder == "small"


def test_unregistered_encoder_is_named_in_the_error(glyphs, strangers, monkeypatch, tiny_model):
    def borrowed(network: Any, spec: Any, path: Path) -> None:
        path.write_bytes((tiny_model / "encoder.onnx").read_bytes())

    monkeypatch.setattr(onnx_export, "export_encoder", borrowed)
    model = tw.Model.from_network(Small(48), strangers, spec=SPEC, progress=False)
    assert model.manifest.encoder == "unregistered:Small"
    message = r"The encoder Small is not registered. Register it with twinned.register_encoder\('Small'\)"
    with pytest.raises(SettingError, match=message):
        model.to_torch()
    with pytest.raises(SettingError, match=message):
        tw.finetune(model, glyphs, steps=1, progress=False)
    again = tw.finetune(model, glyphs, encoder=Small(48), steps=1, progress=False)
    assert again.manifest.encoder == "unregistered:Small"


@pytest.mark.usefixtures("registered")
def test_weights_must_fit_the_registered_encoder(strangers, monkeypatch, tiny_model):
    def borrowed(network: Any, spec: Any, path: Path) -> None:
        path.write_bytes((tiny_model / "encoder.onnx").read_bytes())

    monkeypatch.setattr(onnx_export, "export_encoder", borrowed)
    model = tw.Model.from_network(Small(48), strangers, spec=SPEC, progress=False)
    tw.register_encoder("Small")(Small)
    with pytest.raises(ModelError, match="does not hold the weights of encoder Small"):
        model.to_torch()


def trained(once: Callable[..., Path], glyphs: Path, **given: Any) -> tw.Model:
    def make(folder: Path) -> None:
        tw.train(glyphs, folder, recipe="glyph", image_size=20, steps=3, progress=False, **given)

    return tw.Model(once("-".join(map(str, given.values())) or "plain", make))


@pytest.mark.parametrize("loss", ["supcon", *slow("cross-entropy")])
def test_trained_network_round_trips(once, glyphs, strangers, loss):
    model = trained(once, glyphs, loss=loss)
    files = sorted(strangers.rglob("*.png"))[:6]
    network = model.to_torch()
    assert not network.training
    ours, theirs = vectors(network.embed, model, files)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    again = tw.Model.from_network(network, strangers, progress=False)
    assert again.manifest.encoder == model.manifest.encoder
    assert again.distance == model.distance
    assert again.manifest.head == model.manifest.head
    np.testing.assert_allclose(again.embed(files), model.embed(files), atol=1e-5)
    same = [m.paired_distances(m.embed(files[:3]), m.embed(files[3:])) for m in (model, again)]
    np.testing.assert_allclose(*same, atol=1e-5)
    back, _ = vectors(again.to_torch().embed, again, files)
    assert (ours - back).abs().max() <= 1e-5


def test_preprocess_returns_network_pixels(once, glyphs, strangers):
    model = trained(once, glyphs, loss="supcon")
    pixels = model.preprocess(next(strangers.rglob("*.png")))
    assert pixels.dtype == torch.float32
    assert pixels.shape == (1, 20, 20)
    assert 0 <= pixels.min() <= pixels.max() <= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"network": 3}, "A network must be a torch.nn.Module; got int"),
        ({"far": 2.0}, "A false accept rate must be between 0 and 1"),
        ({"spec": ImageSpec(height=16, width=16, channels=1)}, "Small does not accept images of shape"),
        ({"network": heads.Distance()}, "Distance does not accept images"),
    ],
)
def test_invalid_network_or_options_are_refused(strangers, given, message):
    with pytest.raises(SettingError, match=message):
        tw.Model.from_network(**{"network": Small(), "calibration_images": strangers} | given, progress=False)


def test_graph_with_a_fixed_batch_size_is_refused(strangers):
    class Fixed(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.reshape(int(x.shape[0]), 1, 20, 20))

    with pytest.raises(onnx_export.ExportError, match="computes batches of 3 images only"):
        tw.Model.from_network(Fixed(), strangers, spec=SPEC, progress=False)


def test_images_of_different_sizes_require_a_spec(mixed_sizes: Path):
    with pytest.raises(SettingError, match=r"different sizes, such as 20x20 and 20x24.*Set spec=ImageSpec"):
        tw.Model.from_network(Small(), mixed_sizes, progress=False)


@pytest.fixture
def mixed_sizes(tmp_path: Path) -> Path:
    from PIL import Image

    for number in range(2):
        (tmp_path / str(number)).mkdir()
        for index in range(2):
            Image.new("L", (20 + 4 * index, 20)).save(tmp_path / str(number) / f"{index}.png")
    return tmp_path


def test_wrapped_model_has_no_network(strangers, tmp_path, once, glyphs):
    model = trained(once, glyphs, loss="supcon")
    wrapped = tw.wrap(model.folder / "encoder.onnx", load_images(strangers), progress=False)
    with pytest.raises(SettingError, match=r"the encoder was wrapped.*use Model.from_network"):
        wrapped.to_torch()


def test_damaged_weights_are_refused(once, glyphs, tmp_path):
    model_folder.copy(trained(once, glyphs, loss="supcon").folder, tmp_path / "m.twin")
    state = load_file(tmp_path / "m.twin" / "weights.safetensors")
    del state[next(name for name in state if name.startswith("encoder."))]
    save_file(state, tmp_path / "m.twin" / "weights.safetensors")
    with pytest.raises(ModelError, match=r"differs from the one that model.json was written for"):
        tw.Model(tmp_path / "m.twin").to_torch()
