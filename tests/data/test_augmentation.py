"""Augmentation: identity without options, seeds, and bounds of each option."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from twinned.data.augmentation import Augmentation

EVERYTHING = Augmentation(
    rotation=10,
    shear=0.2,
    scale=0.2,
    shift=0.1,
    elastic=0.03,
    flip=True,
    brightness=0.2,
    contrast=0.3,
    saturation=0.4,
    erase=0.3,
)


def batch(count: int = 6, height: int = 20, width: int = 20, channels: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8))


def dot(row: int, column: int, *, count: int = 64, size: int = 41, spread: float = 2.0) -> torch.Tensor:
    """Blurred white dot on black, the same on each image."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    bump = torch.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * spread**2))
    return (255 * bump).round().to(torch.uint8)[None, :, :, None].expand(count, -1, -1, -1)


def centers(images: torch.Tensor) -> torch.Tensor:
    """Row and column of each image's center of mass, ``(n, 2)``."""
    weight = images[:, 0]
    y, x = torch.meshgrid(*(torch.arange(s, dtype=torch.float32) for s in weight.shape[1:]), indexing="ij")
    total = weight.sum(dim=(1, 2))
    return torch.stack([(weight * y).sum(dim=(1, 2)) / total, (weight * x).sum(dim=(1, 2)) / total], dim=1)


def test_no_options_only_scale_and_permute():
    pixels = batch(channels=3)
    images = Augmentation()(pixels)
    torch.testing.assert_close(images, pixels.permute(0, 3, 1, 2) / 255)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 20, 20), (3, 20, 20), (1, 24, 13), (3, 13, 24)]
)
def test_seed_determines_a_batch_within_bounds(channels, height, width):
    pixels = batch(channels=channels, height=height, width=width)
    before = pixels.clone()
    first, second, other = (EVERYTHING(pixels, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.shape == (6, channels, height, width)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(pixels, before), "the input is not modified"


def test_images_are_augmented_independently():
    same = batch(1).expand(6, -1, -1, -1)
    images = EVERYTHING(same, seed=1)
    assert len({image.numpy().tobytes() for image in images}) == 6


def test_every_option_changes_images():
    plain = Augmentation()(batch(12))
    parts = {
        name: getattr(EVERYTHING, name)
        for name in EVERYTHING.__dataclass_fields__
        if name not in ("probability", "function")
    }
    for name, value in parts.items():
        changed = Augmentation(**{name: value})(batch(12), seed=3)
        assert not torch.allclose(changed, plain), name


def test_shift_is_a_symmetric_fraction_of_the_image():
    moved = centers(Augmentation(shift=0.1)(dot(20, 20), seed=0)) - 20
    assert moved.abs().max() <= 4.1 + 0.1
    assert moved.abs().max() > 3
    assert moved.mean(dim=0).abs().max() < 1.2
    assert torch.corrcoef(moved.T)[0, 1].abs() < 0.4, "rows and columns move independently"


def test_rotation_keeps_the_distance_from_the_center():
    moved = centers(Augmentation(rotation=30)(dot(20, 32), seed=0)) - 20
    radius, angle = moved.norm(dim=1), torch.atan2(moved[:, 0], moved[:, 1])
    torch.testing.assert_close(radius, torch.full((64,), 12.0), atol=0.1, rtol=0)
    assert math.radians(24) < angle.abs().max() <= math.radians(30.5)
    assert (angle > 0).any()
    assert (angle < 0).any()


def test_scale_varies_each_axis_up_to_the_factor():
    corner = centers(Augmentation(scale=0.25)(dot(30, 10), seed=0)) - 20
    factor = corner / torch.tensor([10.0, -10.0])
    assert factor.min() >= 1 / 1.26
    assert factor.max() <= 1.26
    assert factor.min() < 0.86
    assert factor.max() > 1.15
    assert (factor[:, 0] - factor[:, 1]).abs().max() > 0.1


def test_shear_moves_one_axis_by_a_fraction_of_the_other():
    moved = centers(Augmentation(shear=0.3)(dot(32, 20), seed=0)) - torch.tensor([32.0, 20.0])
    assert moved[:, 1].abs().max() <= 0.3 * 12 * 1.15
    assert moved[:, 1].abs().max() > 0.2 * 12


def test_probability_applies_to_each_option():
    plain = centers(Augmentation()(dot(20, 32, count=400)))
    sometimes = centers(Augmentation(rotation=30, probability=0.25)(dot(20, 32, count=400), seed=0))
    share = ((sometimes - plain).norm(dim=1) > 0.05).float().mean()
    assert share == pytest.approx(0.25, abs=0.06)


def test_elastic_sets_the_standard_deviation():
    moved = centers(Augmentation(elastic=0.05)(dot(20, 20, count=400, spread=1.0), seed=0)) - 20
    assert moved.std() == pytest.approx(0.05 * 20.5, rel=0.2)


@pytest.mark.parametrize("others", [{}, {"rotation": 0.001}])
def test_flip_mirrors_half_of_the_images(others):
    where = centers(Augmentation(flip=True, **others)(dot(15, 8, count=400), seed=0))
    left = (where[:, 1] - 8).abs() < 0.1
    right = (where[:, 1] - 32).abs() < 0.1
    assert (left | right).all()
    assert left.float().mean() == pytest.approx(0.5, abs=0.08)
    torch.testing.assert_close(where[:, 0], torch.full((400,), 15.0), atol=0.05, rtol=0)


def test_turns_are_rot90_after_mirroring():
    pixels = batch(8, channels=1)
    turned = Augmentation()(pixels, turns=torch.arange(8))
    for turn in range(8):
        image = pixels[turn, :, :, 0].numpy() / 255
        mirrored = image[:, ::-1] if turn >= 4 else image
        np.testing.assert_allclose(turned[turn, 0], np.rot90(mirrored, turn % 4), atol=1e-5)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 35, 35), (3, 24, 40)])
def test_warp_matches_affine_grid_and_bicubic_displacement(channels, height, width):
    pixels = batch(8, height, width, channels)
    x = pixels.permute(0, 3, 1, 2) / 255
    turned = Augmentation(rotation=30, elastic=0.05)(pixels, seed=4)
    chance = torch.Generator().manual_seed(4)
    angle = (torch.rand(8, generator=chance) * 2 - 1) * math.radians(30)
    for _ in range(6):  # two scales, two shears, two shifts
        torch.rand(8, generator=chance)
    knots = torch.randn(8, 2, 5, 5, generator=chance) * 0.05
    zero = torch.zeros(8)
    rows = [torch.cos(angle), -torch.sin(angle), zero, torch.sin(angle), torch.cos(angle), zero]
    affine = torch.stack(rows, dim=1).view(8, 2, 3)
    grid = F.affine_grid(affine, [8, 1, height, width], align_corners=False)
    wobble = F.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True)
    slow = F.grid_sample(x, grid + wobble.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
    torch.testing.assert_close(turned, slow, atol=1e-4, rtol=0)
    if height == width:
        turns = torch.arange(8)
        first = torch.stack([torch.rot90(i.flip(2) if t > 3 else i, t % 4, (1, 2)) for t, i in enumerate(x)])
        both = Augmentation(rotation=30, elastic=0.05)(pixels, turns=turns, seed=4)
        slow = F.grid_sample(
            first, grid + wobble.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
        )
        torch.testing.assert_close(both, slow, atol=1e-4, rtol=0)


def test_color_changes_follow_their_formulas():
    pixels = batch(50)
    plain = Augmentation()(pixels)
    brighter = Augmentation(brightness=0.1)(pixels, seed=0) - plain
    middle = (plain > 0.2) & (plain < 0.8)  # not clipped
    for change, inside in zip(brighter, middle, strict=True):
        assert change[inside].std() < 1e-6
        assert change[inside].abs().max() <= 0.1 + 1e-6
    greyish = Augmentation(saturation=0.99)(pixels, seed=0)
    torch.testing.assert_close(greyish.mean(dim=1)[:, 5:6], plain.mean(dim=1)[:, 5:6], atol=0.25, rtol=0)
    spread = (greyish - greyish.mean(dim=1, keepdim=True)).abs().mean(dim=(1, 2, 3))
    assert spread.min() < 0.5 * spread.max()
    harder = Augmentation(contrast=0.5)(pixels, seed=0).std(dim=(1, 2, 3)) / plain.std(dim=(1, 2, 3))
    assert 0.49 < harder.min() < 0.7
    assert 1.15 < harder.max() < 1.5


def test_saturation_leaves_gray_images_unchanged():
    pixels = batch(channels=1)
    assert torch.equal(Augmentation(saturation=0.9)(pixels, seed=0), Augmentation()(pixels))


def test_erase_fills_a_square_with_the_mean():
    pixels = batch(300, 20, 20, 1)
    plain, erased = Augmentation()(pixels), Augmentation(erase=0.3)(pixels, seed=0)
    holes = (plain != erased)[:, 0]
    hit = holes.any(dim=2).any(dim=1)
    assert hit.float().mean() == pytest.approx(0.5, abs=0.08)
    for image, hole, source in zip(erased[hit, 0], holes[hit], plain[hit, 0], strict=True):
        rows, columns = hole.any(dim=1).nonzero()[:, 0], hole.any(dim=0).nonzero()[:, 0]
        assert 5 <= rows[-1] - rows[0] + 1 <= 7
        assert 5 <= columns[-1] - columns[0] + 1 <= 7
        assert image[hole].std() < 1e-6
        assert image[hole][0] == pytest.approx(source.mean().item(), abs=1e-5)
