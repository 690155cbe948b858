"""Pretrained encoders: baseline, fitted projection, and automatic selection."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import twinned
from twinned import encoders, recipes
from twinned.data.readers import load_images
from twinned.inference.model_folder import UNTOUCHED
from twinned.metrics.comparisons import compare_pairs
from twinned.nn import onnx_export
from twinned.training import cross_validation, encoder_selection
from twinned.training.validation import ValidationScore

needs_weights = pytest.mark.skipif(
    not encoders.installed("efficientnet_lite0"), reason="the extra pretrained is not installed"
)


@pytest.fixture(scope="module")
def baseline(strangers: Path) -> twinned.Model:
    return twinned.train(
        strangers, recipe="photo", encoder="efficientnet_lite0", image_size=32, steps=0, progress=False
    )


@needs_weights
def test_zero_steps_use_the_encoder_output_and_all_classes(baseline, strangers):
    manifest = baseline.manifest
    assert (manifest.embedding_size, manifest.encoder, manifest.distance) == (
        1280,
        "efficientnet_lite0",
        "cosine",
    )
    assert manifest.classes == []
    assert manifest.calibration.n_classes == 8
    assert manifest.calibration.unseen_classes
    assert manifest.spec.mean == pytest.approx((0.485, 0.456, 0.406))
    assert "Apache-2.0: EfficientNet-Lite0" in (baseline.folder / "README.md").read_text()
    network = encoders.build("efficientnet_lite0", image_size=(32, 32), channels=3).eval()
    file = next(strangers.rglob("*.png"))
    pixels = twinned.data.preprocessing.read_image(file, manifest.spec)
    x = (
        torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - torch.tensor(manifest.spec.mean).view(3, 1, 1)
    ) / (torch.tensor(manifest.spec.std).view(3, 1, 1))
    with torch.no_grad():
        values = torch.nn.functional.normalize(network(x)).numpy()
    np.testing.assert_allclose(baseline.embed([file]), values, atol=1e-4)


@pytest.mark.slow
@needs_weights
def test_fitted_projection_is_kept_only_if_better(baseline, strangers, glyphs, monkeypatch):
    def borrowed(network: Any, spec: Any, path: Path) -> None:
        shutil.copyfile(baseline.folder / "encoder.onnx", path)

    monkeypatch.setattr(onnx_export, "export_encoder", borrowed)
    given = {
        "image_size": 32,
        "embedding_size": 1280,
        "encoder": "efficientnet_lite0",
        "settings": {"views": 0, "freeze": "all", "cohort": 0},
        "progress": False,
    }
    for better in (True, False):
        monkeypatch.setattr(
            "twinned.training.cross_validation.is_better", lambda before, after, answer=better: answer
        )
        model = twinned.train(strangers, recipe="photo", steps=1, **given)
        found = model.evaluate(glyphs, ways=4, episodes=20, progress=False)
        assert (UNTOUCHED in model.manifest.files) == better
        assert ("untouched" in found.to_json()) == better
        assert ("before training\n  equal error rate" in str(found)) == better
        assert model.manifest.setting("encoder.embedding_size") == (1280 if better else None)
        assert len(model.manifest.classes) == (8 if better else 0)
        reason = "the embedding layer was solved" if better else "the encoder was kept as it came"
        assert str(model.record.without_history()).startswith(reason)
        assert sum("learning rate have no effect" in note for note in model.manifest.notes) == 1


def validation_score(errors: float, *, wrong: int = 0) -> ValidationScore:
    """Return the score of 20 comparisons with `wrong` errors of each kind."""
    same = np.array([True, False] * 10)
    distance = np.where(same, 0.1, 0.9)
    distance[: 2 * wrong] = 1 - distance[: 2 * wrong]
    return ValidationScore(
        compare_pairs(distance, same, left=np.arange(20), right=np.arange(20)), 1 - errors, 20
    )


@pytest.mark.parametrize(
    ("before", "after", "better"),
    [
        (validation_score(0.2), validation_score(0.1), True),
        (validation_score(0.2), validation_score(0.2), False),
        (validation_score(0.1, wrong=2), validation_score(0.15, wrong=1), True),
        (validation_score(0.4, wrong=1), validation_score(0.1, wrong=2), False),
    ],
    ids=["fewer", "as many", "fewer in sum", "a higher equal error rate"],
)
def test_is_better_requires_fewer_errors_and_no_higher_eer(before, after, better):
    assert cross_validation.is_better(before, after) is better


@pytest.mark.parametrize(
    ("large", "small", "chosen"), [(0.2, 0.1, "conv4"), (0.1, 0.2, "efficientnet_lite0_photo")]
)
def test_auto_selects_the_encoder_with_fewer_errors(strangers, monkeypatch, large, small, chosen):
    def score(few: Any, unseen: Any, config: Any, *_: Any) -> ValidationScore:
        return validation_score(small if config.recipe == "photo-small" else large)

    monkeypatch.setattr(encoder_selection, "_score", score)
    ways = recipes.get("photo-small"), recipes.get("photo")
    images = load_images(strangers)
    found, why = encoder_selection.select_encoder(images, *ways, seconds=9, device=torch.device("cpu"))
    assert found.encoder.name == chosen
    assert why.text.startswith(f"encoder {chosen} instead of ")
    assert "on 4 classes held out" in why.text


@pytest.mark.slow
@needs_weights
def test_pilot_runs_respect_time_and_use_held_out_classes(strangers):
    device = torch.device("cpu")
    small = recipes.get("photo-small").merge({"height": 32, "width": 32})
    large = recipes.get("photo").merge({"height": 32, "width": 32})
    images = load_images(strangers)
    found, _ = encoder_selection.select_encoder(images, small, large, seconds=6.5, device=device)
    assert found in (small, large)
    few = images.with_classes(images.classes[:3])
    _, why = encoder_selection.select_encoder(few, small, large, seconds=3, device=device)
    assert "fewer than 4 classes are too few" in why.text
    hurried, why = encoder_selection.select_encoder(images, small, large, seconds=2, device=device)
    assert hurried == large
    assert why.text == "encoder efficientnet_lite0_photo: there is no time for pilot runs"
