"""Preprocessing of images for a model, and its specification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from twinned.data.images import open_image
from twinned.data.preprocessing import ImageSpec, otsu, read_image
from twinned.errors import SettingError


def saved(path: Path, pixels: NDArray[Any] | Image.Image, **options: Any) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


# Resizing


def test_pad_keeps_the_aspect_ratio_and_fills_with_border_color() -> None:
    wide = np.full((10, 40), 90, np.uint8)
    wide[2:8, 2:38] = 200
    pixels = read_image(wide, ImageSpec(height=40, width=40, channels=1, fit="pad"))[:, :, 0]
    np.testing.assert_array_equal(pixels[15:25], wide)
    assert (np.delete(pixels, np.s_[15:25], axis=0) == 90).all()
    colour = np.zeros((10, 40, 3), np.uint8) + np.array([10, 20, 30], np.uint8)
    filled = read_image(colour, ImageSpec(height=40, width=40, fit="pad"))
    assert (filled == [10, 20, 30]).all()


def test_crop_keeps_the_aspect_ratio_and_the_center() -> None:
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 255
    assert (read_image(wide, ImageSpec(height=20, width=20, channels=1, fit="crop")) == 255).all()


def test_stretch_averages_all_pixels() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = read_image(stripes, ImageSpec(height=8, width=8, channels=1))
    assert np.abs(small.astype(int) - 127).max() < 8  # averaged, not subsampled


def signature(paper: int, ink: int, *, top: int = 30, left: int = 100) -> NDArray[np.uint8]:
    """Box-shaped stroke on slightly noisy paper."""
    rng = np.random.default_rng(0)
    page = rng.integers(-3, 4, (120, 300)) + paper
    stroke = rng.integers(-3, 4, (40, 80)) + ink
    stroke[6:-6, 6:-6] = page[:28, :68]
    page[top : top + 40, left : left + 80] = stroke
    return page.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("paper", "ink"), [(240, 60), (252, 20), (200, 120), (15, 230)])
def test_binary_ink_is_invariant_to_paper_position_and_polarity(paper: int, ink: int) -> None:
    spec = ImageSpec(height=44, width=84, channels=1, ink="binary")
    expected = read_image(signature(253, 10), spec)
    assert set(np.unique(expected)) >= {0, 255}
    assert 0.1 < (expected < 128).mean() < 0.5
    np.testing.assert_array_equal(read_image(signature(paper, ink, top=60, left=200), spec), expected)


def test_gray_ink_keeps_gray_values() -> None:
    spec = ImageSpec(height=44, width=84, channels=1, ink="grey")
    pixels = read_image(signature(240, 60), spec)
    assert abs(int(np.median(pixels[pixels < 128])) - 60) <= 3
    assert (pixels[20:24, 40:44] == 255).all()


def test_ink_of_an_empty_page_is_white() -> None:
    for level in (0, 128, 255):
        page = np.full((30, 30), level, np.uint8)
        assert (read_image(page, ImageSpec(height=16, width=16, ink="binary")) == 255).all()


def test_ink_of_a_large_photo_is_cropped_before_resizing(tmp_path: Path) -> None:
    """Ink is cropped at full size, since a reduced JPEG has too few pixels of a small signature."""
    page = np.full((2400, 3200), 245, np.uint8)
    page[100:300, 100:500] = 20
    page[110:290:8, 110:490] = 245  # stripes, 4 pixels apart
    page[111:290:8, 110:490] = page[112:290:8, 110:490] = page[113:290:8, 110:490] = 245
    path = saved(tmp_path / "page.jpg", page, quality=95)
    spec = ImageSpec(height=200, width=400, channels=1, ink="binary")
    np.testing.assert_allclose(
        (read_image(path, spec) < 128).mean(), (read_image(np.asarray(open_image(path)), spec) < 128).mean()
    )


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_otsu_equals_a_loop(values: NDArray[np.uint8]) -> None:
    def between(level: int) -> float:
        dark, light = values[values <= level].astype(float), values[values > level].astype(float)
        if not dark.size or not light.size:
            return -1.0
        return float(dark.size * light.size * (dark.mean() - light.mean()) ** 2)

    best = max(between(level) for level in range(256))
    assert between(otsu(values)) == pytest.approx(best)


# ImageSpec


def test_spec_defaults_and_json_round_trip() -> None:
    spec = ImageSpec(height=35, width=35, channels=1)
    assert spec.shape == (35, 35, 1)
    assert (spec.mean, spec.std) == ((0.0,), (1.0,))
    assert ImageSpec.model_validate_json(spec.model_dump_json()) == spec
    assert ImageSpec(height=16, width=24, channels=3).mean == (0.0, 0.0, 0.0)
    assert hash(spec) == hash(ImageSpec(height=35, width=35, channels=1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 7},
        {"width": 4096},
        {"channels": 2},
        {"channels": "x"},
        {"mean": (0.5,)},
        {"std": (0.0, 1.0, 1.0)},
        {"mean": (float("nan"), 0.0, 0.0)},
        {"std": (float("inf"), 1.0, 1.0)},
        {"fit": "squash"},
    ],
)
def test_invalid_spec_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"^image .*; got "):
        ImageSpec(**{"height": 16, "width": 16, **wrong})


def test_unknown_spec_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        ImageSpec(height=16, width=16, colour=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="height"):
        ImageSpec(width=16)  # type: ignore[call-arg]
