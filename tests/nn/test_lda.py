"""The LDA projection, compared with a covariance computed in loops, and on new classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twinned.errors import SettingError, TrainingError
from twinned.metrics.roc import eer as equal_error_rate
from twinned.nn.lda import fit_lda_projection


@pytest.fixture
def values() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat_interleave(5)
    centres = torch.randn(6, 7, generator=random)
    spread = torch.tensor([3.0, 1, 1, 0.3, 0.3, 0.1, 0.1])
    return centres[labels] + spread * torch.randn(30, 7, generator=random) + 4, labels


@pytest.mark.parametrize("shrink", [0.01, 1.0])
def test_projection_whitens_the_within_class_covariance(values, shrink):
    x, labels = values
    weight, bias = fit_lda_projection(x, labels, 7, shrinkage=shrink)
    within = np.zeros((7, 7))
    for label in range(6):
        own = x[labels == label].double().numpy()
        for row in own:
            apart = row - own.mean(axis=0)
            within += np.outer(apart, apart) / len(x)
    within += shrink * np.trace(within) / 7 * np.eye(7)
    w = weight.double().numpy()
    spread = w @ within @ w.T
    np.testing.assert_allclose(spread, spread[0, 0] * np.eye(7), atol=1e-5)
    out = x @ weight.T + bias
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(7), atol=1e-5, rtol=0)
    assert out.square().sum(dim=1).mean() == pytest.approx(1, abs=1e-5)


def test_fewer_outputs_are_the_directions_of_most_variance(values):
    x, labels = values
    whole = x @ fit_lda_projection(x, labels, 7)[0].T
    some = x @ fit_lda_projection(x, labels, size=3)[0].T
    apart = [(z - z.mean(dim=0)).square().sum() for z in (whole, some)]
    singular = torch.linalg.svdvals(whole - whole.mean(dim=0)).square()
    # Both are normalized, so only relative singular values are comparable.
    ours = torch.linalg.svdvals(some - some.mean(dim=0)).square()
    torch.testing.assert_close(ours / apart[1], singular[:3] / singular[:3].sum(), atol=1e-4, rtol=1e-3)


def test_projection_separates_new_classes_better():
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(12).repeat_interleave(8)
    noise = torch.cat([torch.full((5,), 4.0), torch.full((5,), 0.2)])
    x = torch.randn(12, 10, generator=random)[labels] + noise * torch.randn(96, 10, generator=random)
    weight, bias = fit_lda_projection(x[labels < 6], labels[labels < 6], 10, shrinkage=0.1)

    def nearest_is_own(z: torch.Tensor, own: torch.Tensor) -> float:
        apart = torch.cdist(z, z).fill_diagonal_(torch.inf)
        return float((own[apart.argmin(dim=1)] == own).float().mean())

    new = labels >= 6
    plain = nearest_is_own(x[new], labels[new])
    assert nearest_is_own(x[new] @ weight.T + bias, labels[new]) > plain + 0.3


def test_degenerate_data_are_refused():
    with pytest.raises(TrainingError, match="two different images"):
        fit_lda_projection(torch.eye(4), torch.arange(4), 4)
    with pytest.raises(TrainingError, match="two different images"):
        fit_lda_projection(torch.ones(4, 3), torch.zeros(4, dtype=torch.long), 3)
    with pytest.raises(SettingError, match="size 4 is larger than the 3 features"):
        fit_lda_projection(torch.rand(4, 3), torch.tensor([0, 0, 1, 1]), size=4)


def test_fewer_images_than_features_with_constant_features():
    """Like the last feature map of a network; needs double precision."""
    random = torch.Generator().manual_seed(0)
    values = torch.randn(48, 1280, generator=random).relu() * (torch.rand(1280, generator=random) < 0.6)
    weight, bias = fit_lda_projection(values, torch.arange(48) // 8, size=128)
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias).all()
    assert (values @ weight.T + bias).square().sum(dim=1).mean() == pytest.approx(1, rel=1e-3)


def test_small_sample_solution_equals_the_full_solution():
    torch.manual_seed(0)
    labels = torch.arange(20) % 5
    values = torch.randn(20, 60) + 2 * torch.randn(5, 60)[labels]
    weight, bias = fit_lda_projection(values, labels, size=6, shrinkage=0.5)
    # Repeated images, so that there are more images than features.
    again = fit_lda_projection(values.repeat(4, 1), labels.repeat(4), size=6, shrinkage=0.5)
    short, long = values @ weight.T + bias, values @ again[0].T + again[1]
    assert weight.shape == (6, 60)
    torch.testing.assert_close(torch.cdist(short, short), torch.cdist(long, long), rtol=1e-4, atol=1e-4)


def test_fewer_images_than_outputs_keep_the_distances():
    torch.manual_seed(0)
    values, labels = torch.randn(12, 60), torch.arange(12) // 3
    weight, bias = fit_lda_projection(values, labels, size=20)
    whole, shift = fit_lda_projection(values, labels, 60)
    assert weight.shape == (20, 60)
    assert torch.isfinite(weight).all()
    torch.testing.assert_close(
        torch.cdist(values @ weight.T + bias, values @ weight.T + bias),
        torch.cdist(values @ whole.T + shift, values @ whole.T + shift),
        rtol=1e-3,
        atol=1e-3,
    )


def test_sparse_features():
    values = torch.relu(torch.randn(30, 640, generator=torch.Generator().manual_seed(0)) - 1.5)
    values[:, 200:] = 0
    weight, bias = fit_lda_projection(values, torch.arange(30) // 6, size=640)
    outputs = values @ weight.T + bias
    assert torch.isfinite(outputs).all()
    assert outputs.square().sum(dim=1).mean().item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(("wide", "size"), [(400, 64), (30, 16)])
def test_random_rotation_keeps_distances_and_leading_directions(wide, size):
    """Compared with the full projection, for fewer and for more images than features."""
    random = torch.Generator().manual_seed(4)
    labels = torch.arange(8).repeat_interleave(4)
    x = torch.randn(8, wide, generator=random)[labels] + torch.randn(32, wide, generator=random)
    new = torch.randn(200, wide, generator=random)
    weight, bias = fit_lda_projection(x, labels, size=size, random_rotation=True)
    whole, shift = fit_lda_projection(x, labels, wide)
    z, full = new @ weight.T + bias, new @ whole.T + shift
    ratio = torch.pdist(z).square() / torch.pdist(full).square()
    left, lead = size - size // 16, size // 16
    spread = (2 * (wide - left) / left / (wide + 2)) ** 0.5  # of a random projection's squared lengths
    assert (ratio.std() / ratio.mean()).item() == pytest.approx(spread, rel=0.25)
    best = fit_lda_projection(x, labels, size=lead)[0]
    aligned = torch.linalg.svdvals(weight[:lead] @ torch.linalg.pinv(best))
    torch.testing.assert_close(aligned / aligned[0], torch.ones(lead), atol=0.02, rtol=0)


def test_random_rotation_of_few_images_separates_new_classes_better():
    """New classes differ in directions that the few training classes do not show."""
    random = torch.Generator().manual_seed(5)
    labels = torch.arange(40).repeat_interleave(6)
    x = torch.randn(40, 80, generator=random)[labels] + 0.6 * torch.randn(240, 80, generator=random)
    few, new = labels < 4, labels >= 10
    ends = torch.triu_indices(180, 180, 1)

    def eer_on_new(random_rotation: bool) -> float:
        weight, bias = fit_lda_projection(x[few], labels[few], size=16, random_rotation=random_rotation)
        z = torch.nn.functional.normalize(x[new] @ weight.T + bias)
        same = labels[new][ends[0]] == labels[new][ends[1]]
        return equal_error_rate(1 - (z[ends[0]] * z[ends[1]]).sum(1).numpy(), same.numpy())

    assert eer_on_new(True) < 0.7 * eer_on_new(False)
