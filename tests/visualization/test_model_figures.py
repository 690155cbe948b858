"""Figure files of a trained model."""

from __future__ import annotations

import numpy as np
import pytest

import twinned as tw
from twinned import plots
from twinned.errors import SettingError
from twinned.inference import model_folder


def test_story_writes_three_figures_without_overwriting(color_model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    images = tw.load_images(pixels, list("aabbccdd"))
    files = plots.story(tw.load(color_model), images, tmp_path / "new", seed=0)
    assert [f.name for f in files] == ["architecture.png", "history.png", "embeddings.png"]
    assert sorted(files) == sorted((tmp_path / "new").iterdir())
    with pytest.raises(SettingError, match="exists"):
        plots.story(tw.load(color_model), images, tmp_path / "new", seed=0)


def test_model_without_history_has_two_figures(color_model, tmp_path):
    folder = tmp_path / "empty.twin"
    model_folder.copy(color_model, folder)
    (folder / "history.csv").write_text("step\n")
    model_folder.write(folder, model_folder.read(folder))
    model = tw.load(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    files = plots.story(model, tw.load_images(pixels, list("aabbccdd")), tmp_path / "new", seed=0)
    assert [f.name for f in files] == ["architecture.png", "embeddings.png"]


def test_wrapped_encoder_is_one_box(color_model):
    model = tw.load(color_model)
    model.record.layers = list
    texts = [t.get_text() for t in plots.draw_architecture(model).texts]
    assert "parameters not recorded" in texts
    assert texts.count("3 values") == texts.count("32 × 32 × 3") == 2
