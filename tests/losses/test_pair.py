import math

import numpy as np
import pytest
import torch

from twinned import losses
from twinned.data import make_pairs
from twinned.errors import DataError, SettingError

GENERATOR = torch.Generator().manual_seed(0)
DISTANCE = 2 * torch.rand(50, generator=GENERATOR, dtype=torch.float64)
SAME = torch.rand(50, generator=GENERATOR) < 0.4


def slow_contrastive(d: float, same: bool) -> float:
    return d**2 / 2 if same else max(0.0, 0.8 - d) ** 2 / 2


def slow_chopra(d: float, same: bool) -> float:
    return 2 / 3 * d**2 if same else 2 * 3 * math.exp(-2.77 * d / 3)


def slow_cross_entropy(logit: float, same: bool) -> float:
    score = 1 / (1 + math.exp(-logit))
    return -math.log(score if same else 1 - score)


CASES = [
    (losses.ContrastiveLoss(margin=0.8), slow_contrastive),
    (losses.ChopraLoss(bound=3.0), slow_chopra),
    (losses.PairCrossEntropy(), slow_cross_entropy),
]
LOSSES = [loss for loss, _ in CASES]


@pytest.mark.parametrize(("loss", "slow"), CASES)
def test_equals_a_loop(loss, slow):
    expected = [slow(d, s) for d, s in zip(DISTANCE.tolist(), SAME.tolist())]
    assert loss(DISTANCE, SAME, reduction="none").tolist() == pytest.approx(expected)
    assert loss(DISTANCE, SAME).item() == pytest.approx(sum(expected) / 50)


def test_contrastive_factor_scales_the_loss():
    half, deck = losses.ContrastiveLoss(margin=0.8), losses.ContrastiveLoss(margin=0.8, factor=1)
    assert deck(DISTANCE, SAME).item() == pytest.approx(2 * half(DISTANCE, SAME).item())
    with pytest.raises(SettingError, match="factor is 0"):
        losses.ContrastiveLoss(factor=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_matches_finite_differences(loss):
    distance = DISTANCE.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda d: loss(d, SAME), distance)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_summed_in_float32(loss):
    distance = DISTANCE.bfloat16()
    value = loss(distance, SAME)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(distance.float(), SAME).item(), abs=1e-7)


def test_cross_entropy_is_finite_for_extreme_logits():
    logit = torch.tensor([-1e4, 1e4], requires_grad=True)
    value = losses.PairCrossEntropy()(logit, torch.tensor([True, False]))
    value.backward()
    assert value.item() == 1e4
    assert logit.grad.tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("distance", "same", "says"),
    [
        (torch.ones(3), torch.ones(2, dtype=torch.bool), r"\(3,\) and same \(2,\)"),
        (torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool), "shape"),
        (torch.ones(0), torch.ones(0, dtype=torch.bool), "at least one pair"),
        (torch.ones(3), torch.ones(3), "booleans"),
    ],
)
def test_invalid_pairs_are_refused(loss, distance, same, says):
    with pytest.raises(DataError, match=says):
        loss(distance, same)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_non_positive_settings_are_refused(value):
    with pytest.raises(SettingError, match="margin"):
        losses.ContrastiveLoss(margin=value)
    with pytest.raises(SettingError, match="bound"):
        losses.ChopraLoss(bound=value)


def test_unknown_reduction_is_refused():
    with pytest.raises(SettingError, match="'sum'"):
        losses.ContrastiveLoss()(DISTANCE, SAME, reduction="sum")


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_accepts_output_of_make_pairs(loss):
    left, right, same = make_pairs(np.repeat(["a", "b", "c"], 4), pairs=20)
    z = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    distance = (z[left] - z[right]).norm(dim=1)
    value = loss(distance, same)
    assert value == loss(distance, torch.from_numpy(same))
    value.backward()
    assert z.grad is not None
