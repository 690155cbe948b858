"""User-defined parts in `train`: encoder, loss, miner, augmentation, optimizer and schedule."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses as their_losses
from pytorch_metric_learning import miners as their_miners
from safetensors.torch import load_file
from torch import Tensor, nn

import twinned as tw
from twinned.data import decoded
from twinned.data.decoded import DecodedSet
from twinned.data.readers import load_images
from twinned.data.samplers import ClassBatches, prefetch
from twinned.errors import DataError, ImageError, SettingError, TrainingError
from twinned.losses import LOSSES, miners
from twinned.nn import encoders, onnx_export
from twinned.training import inputs
from twinned.training.callbacks import Callback
from twinned.training.state import Interrupted, Step
from twinned.training.trainer import Trainer

QUICK = {"precision": "float32", "quarter_turns": False, "mirrors": False, "augment.elastic": 0}


class Mine(nn.Module):
    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(400, size))

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.layers(x)
        return embedding


def hinge(distance: Tensor, same: Tensor) -> Tensor:
    return (distance * same + (1 - distance).clamp(min=0) * ~same).mean()


def spread(embeddings: Tensor, labels: Tensor) -> Tensor:
    unit = nn.functional.normalize(embeddings)
    similarity = unit @ unit.T
    return nn.functional.cross_entropy(similarity / 0.1, labels % len(labels))


@pytest.fixture
def quick(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train for a few steps; copy the graph of `tiny_model`."""

    def borrowed(network: Any, spec: Any, path: Path) -> None:
        shutil.copyfile(tiny_model / "encoder.onnx", path)

    monkeypatch.setattr(onnx_export, "export_encoder", borrowed)
    monkeypatch.setattr("twinned.training.save._choose_enrollment", lambda folder, manifest, *given: manifest)

    def train(data: Any, **given: Any) -> tw.Model:
        settings = QUICK | given.pop("settings", {})
        if callable(given.get("augment")):
            del settings["augment.elastic"]
        defaults = {"recipe": "glyph", "image_size": 20, "steps": 3, "progress": False}
        return tw.train(data, settings=settings, **defaults | given)

    return train


@pytest.fixture
def some(glyphs: Path) -> Any:
    images = load_images(glyphs)
    return images.with_classes(images.classes[:12])


@pytest.fixture
def registered() -> Iterator[None]:
    """Remove what a test registers."""
    tables = encoders.ENCODERS, LOSSES, miners.MINERS
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)  # type: ignore[arg-type]


class Losses(Callback):
    """Record the loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step(self, step: Step) -> None:
        self.values.append(step.loss)


def recipe(model: tw.Model) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((model.folder / "model.json").read_text())["recipe"]
    return found


@pytest.mark.parametrize(
    ("loss", "miner"),
    [
        (hinge, None),
        (spread, None),
        (hinge, miners.BatchHard()),
        (their_losses.TripletMarginLoss(), their_miners.BatchHardMiner()),
        (their_losses.ProxyAnchorLoss(12, 8), None),
        (their_losses.NormalizedSoftmaxLoss(12, 8), None),
        (tw.losses.TripletLoss(margin=0.3), "semi-hard"),
    ],
)
def test_custom_encoder_loss_and_miner(quick, some, loss, miner):
    encoder, seen = Mine(), Losses()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    model = quick(some, encoder=encoder, loss=loss, miner=miner, callbacks=[seen])
    assert len(seen.values) == 3
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    found = recipe(model)
    assert found["encoder"]["name"] == "unregistered:Mine"
    if isinstance(loss, tw.losses.Loss):
        assert found["loss"] == {"name": "triplet", "margin": 0.3}
    else:
        name = getattr(loss, "__name__", type(loss).__name__)
        assert found["loss"] == {"name": f"unregistered:{name}"}
    given = {None: None, "semi-hard": "semi-hard"}
    if isinstance(miner, miners.BatchHard):
        assert found["mining"]["miner"] == "batch-hard"
    elif miner in given:
        assert found["mining"]["miner"] == given[miner]


def test_custom_functions_replace_sections(quick, some):
    seen, steps = [], []

    def brighter(images: Tensor) -> Tensor:
        seen.append(images.shape)
        return (images + 0.1 * torch.rand(len(images), 1, 1, 1)).clamp(0, 1)

    class Rates(Callback):
        def on_step(self, step: Step) -> None:
            steps.append(step.learning_rate)

    model = quick(
        some,
        encoder=Mine(),
        augment=brighter,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5),
        schedule=lambda step, total: 1 / (1 + step),
        callbacks=[Rates()],
    )
    assert len(seen) >= 3
    assert steps == pytest.approx([0.5, 0.25, 0.5 / 3])
    assert recipe(model)["functions"] == {
        "augment": "brighter",
        "optimizer": "<lambda>",
        "schedule": "<lambda>",
    }


def test_images_decoded_during_training_give_the_same_model(quick, some, monkeypatch):
    torch.manual_seed(0)
    encoder = Mine()
    expected = quick(some, encoder=encoder, settings={"precision": "float32"})
    monkeypatch.setattr(decoded, "IN_MEMORY_BYTES", 1000)
    found = quick(some, encoder=encoder, settings={"precision": "float32"})
    assert found.manifest.data == expected.manifest.data
    assert found.record.image_hashes == expected.record.image_hashes
    before, after = (load_file(model.folder / "weights.safetensors") for model in (expected, found))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=1e-5)


@pytest.fixture
def at_third_batch(monkeypatch):
    """Call a function in the thread that reads ahead, before it reads the third batch."""

    def arrange(act: Any) -> None:
        def acting(batches: Any, *options: Any) -> Any:
            def batch(step: int) -> Any:
                if step == 2 and not acted:
                    acted.append(step)
                    act()
                return batches(step)

            return prefetch(batch, *options)

        acted: list[int] = []
        monkeypatch.setattr(inputs, "prefetch", acting)

    monkeypatch.setattr(decoded, "IN_MEMORY_BYTES", 1000)
    return arrange


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_batches_are_read_saves_the_run(quick, some, at_third_batch, tmp_path, number):
    output = tmp_path / "m.twin"
    at_third_batch(lambda: signal.raise_signal(number))
    with pytest.raises(
        Interrupted, match=r"^stopped after step \d of 9; saved in .*m.twin.partial; continue"
    ):
        quick(some, output=output, encoder=Mine(), steps=9)
    assert "read-ahead" not in " ".join(thread.name for thread in threading.enumerate())
    seen = Losses()
    quick(some, output=output, encoder=Mine(), steps=9, resume=True, callbacks=[seen])
    assert 0 < len(seen.values) < 9


def test_file_that_is_gone_is_named_and_the_run_is_saved(
    quick, at_third_batch, tmp_path, glyphs, monkeypatch
):
    output, data, away = tmp_path / "m.twin", tmp_path / "data", tmp_path / "away"
    shutil.copytree(glyphs, data)
    monkeypatch.setattr(decoded, "_allocate", lambda shape: None)  # decoded at each step
    at_third_batch(lambda: data.rename(away))
    with pytest.raises(
        ImageError, match=r"png: no such file; the run is saved in .*; continue it with `resume"
    ):
        quick(data, output=output, encoder=Mine(), steps=9)
    away.rename(data)
    seen = Losses()
    quick(data, output=output, encoder=Mine(), steps=9, resume=True, callbacks=[seen])
    assert 0 < len(seen.values) < 9


def test_callbacks_see_the_final_training_only(quick, some, monkeypatch):
    taken, scores, fits = [], [], []

    class Watch(Callback):
        def on_step(self, step: Step) -> bool:
            taken.append(step.step)
            return step.step == 9

        def on_evaluation(self, found: Any, network: nn.Module) -> None:
            scores.append(found)

    def fit(self: Trainer, *args: Any, steps: int | None = None, **given: Any) -> Any:
        fits.append(steps)
        return plain(self, *args, steps=steps, **given)

    plain = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", fit)
    quick(some.with_classes(some.classes[:6]), encoder=Mine(), steps=30, callbacks=[Watch()])
    assert taken == list(range(10))
    assert len(scores) == 1
    assert scores[0].train_accuracy > 0
    assert fits == [None, 5, 5, 5]  # half of the steps that were taken


def test_parts_accept_names_and_sections(quick, some):
    section = tw.TrainConfig().augment.model_copy(update={"rotation": 3.0})
    model = quick(some, encoder="conv4", miner="batch-hard", optimizer="sgd", augment={"rotation": 3})
    found = recipe(model)
    assert found["mining"]["miner"] == "batch-hard"
    assert found["optimizer"]["name"] == "sgd"
    assert found["augment"]["rotation"] == section.rotation


def test_training_equals_a_plain_loop(quick, some, strangers):
    torch.manual_seed(0)
    encoder, steps = nn.Sequential(nn.Flatten(), nn.Linear(400, 32), nn.ReLU(), nn.Linear(32, 8)), 12
    model = quick(
        some,
        validation=strangers,
        encoder=encoder,
        loss=spread,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        schedule=lambda step, total: 1.0,
        augment=lambda images: images,
        steps=steps,
        settings={"ema_decay": 0, "normalize": False, "classes_per_batch": 4, "images_per_class": 3}
        | {"same_group_fraction": 0.0, "evaluations": 1},
    )
    data = DecodedSet.from_images(some, model.spec, progress=False)
    images = torch.from_numpy(data.pixels).permute(0, 3, 1, 2) / 255
    batches = ClassBatches(data.images.class_index, classes=4, images=3)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        batch = batches(step)
        x = (images[batch.index] - model.spec.mean[0]) / model.spec.std[0]
        optimizer.zero_grad()
        spread(encoder(x), torch.from_numpy(batch.labels)).backward()
        optimizer.step()
    saved = load_file(model.folder / "weights.safetensors")
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(saved[f"encoder.module.{name}"], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"encoder": Mine}, "got the class Mine. Create an object"),
        ({"encoder": 3}, "encoder is a name or a torch.nn.Module; got 3"),
        ({"encoder": nn.Conv2d(1, 4, 3)}, r"Conv2d returned shape \(2, 4, 18, 18\) for 2 images"),
        (
            {"encoder": Mine(), "image_size": 16},
            r"Mine does not accept images of shape \(n, 1, 16, 16\): mat1",
        ),
        ({"encoder": Mine(), "settings": {"dropout": 0.1}}, "dropout has no effect with encoder Mine"),
        ({"loss": nn.TripletMarginLoss()}, r"TripletMarginLoss takes \(anchor, positive, negative\)"),
        ({"loss": hinge, "margin": 1}, "margin has no effect with loss hinge"),
        ({"loss": spread, "miner": miners.BatchHard()}, "spread takes embeddings and labels only"),
        ({"loss": their_losses.ArcFaceLoss(3, 8)}, "vectors for 3 classes, and training has 8"),
        ({"loss": "unregistered:hinge"}, r"loss hinge is not registered.*register_loss\('hinge'\)"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)}, "other parameters"),
        ({"optimizer": lambda parameters: None}, "must return a torch.optim.Optimizer"),
        ({"optimizer": lambda p: torch.optim.SGD(Mine().parameters(), lr=1)}, "do not belong to the Siamese"),
        (
            {"optimizer": torch.optim.SGD, "learning_rate": 1},
            "learning_rate has no effect with optimizer SGD",
        ),
        ({"augment": lambda images: images[:1]}, "augment returned"),
        ({"schedule": "cosine"}, "schedule is a function; got 'cosine'"),
        ({"schedule": lambda step, total: None}, "schedule returned None for step 0"),
        ({"schedule": lambda step, total: -1}, "schedule returned -1 for step 0"),
        ({"loss": tw.losses.TripletLoss(), "miner": lambda distance, labels: 3}, "the miner returned 3"),
        ({"augment": lambda images: 255 * images}, "augment returned 0 to 255"),
        ({"callbacks": [Losses]}, "list of twinned.Callback objects; got the class Losses"),
        ({"callbacks": Losses()}, "list of twinned.Callback objects; got <"),
        ({"callbacks": [print]}, "got <built-in function print>"),
    ],
)
def test_incompatible_parts_are_refused(quick, some, given, message):
    with pytest.raises((SettingError, DataError), match=message):
        quick(some, **given)


def test_global_random_state_is_unchanged(quick, some):
    encoder = Mine()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    quick(some, encoder=encoder)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.usefixtures("registered")
def test_registered_parts_are_recorded_by_name(quick, some):
    @tw.register_encoder("mine")
    class Named(Mine):
        def __init__(self, embedding_size: int = 4) -> None:
            super().__init__(embedding_size)

    @tw.register_loss("my-loss")
    class Scaled(nn.Module):
        def __init__(self, scale: float = 2.0) -> None:
            super().__init__()
            self.scale = scale

        def forward(self, distance: Tensor, same: Tensor) -> Tensor:
            return self.scale * hinge(distance, same)

    @tw.register_miner("all-of-them")
    def everything(distance: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return miners.AllPairs()(distance, labels)

    found = recipe(quick(some, encoder="mine", loss="my-loss", miner="all-of-them"))
    assert found["encoder"]["name"] == "mine"
    assert found["loss"] == {"name": "my-loss"}
    assert found["mining"]["miner"] == "all-of-them"
    found = recipe(
        quick(some, encoder=Named(), loss=Scaled(scale=3.0), miner=everything, embedding_size=None)
    )
    assert found["encoder"]["name"] == "mine"
    assert found["loss"] == {"name": "my-loss", "scale": 3.0}
    found = recipe(quick(some, encoder=Named(6)))["encoder"]
    assert (found["name"], found["embedding_size"]) == ("mine", 6)
    with pytest.raises(SettingError, match="Loss my-loss has no setting width; it has scale"):
        quick(some, loss="my-loss", settings={"loss.width": 2})


def test_fine_tuning_requires_missing_parts(quick, some, strangers):
    before = quick(some, encoder="conv4", loss=hinge, schedule=lambda step, total: 1.0)
    options = {"steps": 2, "progress": False, "settings": {"precision": "float32"}}
    with pytest.raises(SettingError, match=r"The loss hinge is not registered.*register_loss\('hinge'\)"):
        tw.finetune(before, strangers, **options)
    model = tw.finetune(before, strangers, loss=hinge, **options)
    assert recipe(model)["loss"]["name"] == "unregistered:hinge"
    assert "function-missing" in model.manifest.note_codes
    assert recipe(model)["functions"]["schedule"] is None
    assert recipe(tw.finetune(before, strangers, loss="supcon", **options))["loss"]["name"] == "supcon"


def test_loss_without_gradient_or_finite_value_is_refused(quick, some):
    with pytest.raises(DataError, match=r"without a gradient. Compute it from the embeddings"):
        quick(some, encoder=Mine(), loss=lambda embeddings, labels: embeddings.detach().sum())
    with pytest.raises(TrainingError, match=r"the loss \(nan\) was not finite at step 0"):
        quick(some, encoder=Mine(), loss=lambda embeddings, labels: embeddings.sum() * float("nan"))


def test_repr_of_losses_shows_options():
    shown = repr(tw.losses.embedding_loss(hinge, distance="euclidean", miner=miners.MultiSimilarity()))
    assert shown.splitlines()[1].strip() == "loss=hinge, distance='euclidean'"
    assert "MultiSimilarity(epsilon=0.1)" in shown


@pytest.mark.usefixtures("registered")
def test_taken_or_malformed_names_are_refused():
    with pytest.raises(SettingError, match="'conv4' is taken by another encoder"):
        tw.register_encoder("conv4")(Mine)
    with pytest.raises(SettingError, match="cannot be registered as 'a:b'"):
        tw.register_loss("a:b")(hinge)
    with pytest.raises(SettingError, match=r"takes a class or a function.*got an object of class Mine"):
        tw.register_encoder("mine")(Mine())
    with pytest.raises(SettingError, match=r"Miner hinge1 takes \(distance\)"):

        @tw.register_miner("one")
        def hinge1(distance: Tensor) -> Tensor:
            return distance

    tw.register_encoder("mine")(Mine)
    tw.register_encoder("mine")(Mine)  # as in a notebook


@pytest.mark.usefixtures("registered")
def test_entry_points_register_parts(tmp_path, monkeypatch):
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    lines = ["[twinned.encoders]", "plug = plugin_parts:Flat", "[twinned.losses]", "plug = plugin_parts:loss"]
    (info / "entry_points.txt").write_text(
        "\n".join([*lines, "[twinned.miners]", "plug = plugin_parts:mine"])
    )
    (tmp_path / "plugin_parts.py").write_text(
        "from torch import nn\n"
        "class Flat(nn.Sequential):\n"
        "    def __init__(self, image_size, channels):\n"
        "        size = image_size[0] * image_size[1] * channels\n"
        "        super().__init__(nn.Flatten(), nn.Linear(size, 5))\n"
        "def loss(embeddings, labels):\n"
        "    return embeddings.square().sum()\n"
        "def mine(distance, labels):\n"
        "    return ()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "plug" in encoders.ENCODERS.names()
    assert encoders.create_encoder("plug", image_size=(8, 8), channels=1).embedding_size == 5
    assert tw.losses.create_loss("plug").__name__ == "loss"
    assert tw.miners.create_miner("plug").__name__ == "mine"
    assert tw.TrainConfig().merge({"loss": "plug"}).loss.name == "plug"
