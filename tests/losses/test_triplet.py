import math

import pytest
import torch

from twinned import losses
from twinned.errors import DataError, SettingError

GENERATOR = torch.Generator().manual_seed(0)
POSITIVE, NEGATIVE = 2 * torch.rand(2, 50, generator=GENERATOR, dtype=torch.float64)

CASES = [
    (losses.TripletLoss(margin=0.3), lambda p, n: max(0.0, p - n + 0.3)),
    (losses.SoftTripletLoss(), lambda p, n: math.log(1 + math.exp(p - n))),
]
LOSSES = [loss for loss, _ in CASES]


@pytest.mark.parametrize(("loss", "slow"), CASES)
def test_equals_a_loop(loss, slow):
    expected = [slow(p, n) for p, n in zip(POSITIVE.tolist(), NEGATIVE.tolist())]
    assert loss(POSITIVE, NEGATIVE, reduction="none").tolist() == pytest.approx(expected)
    assert loss(POSITIVE, NEGATIVE).item() == pytest.approx(sum(expected) / 50)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_matches_finite_differences(loss):
    distances = POSITIVE.clone().requires_grad_(), NEGATIVE.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, distances)


def test_soft_margin_is_finite_for_large_distances():
    positive = torch.tensor([1e4, 0.0], requires_grad=True)
    value = losses.SoftTripletLoss()(positive, torch.tensor([0.0, 1e4]))
    value.backward()
    assert value.item() == 5e3
    assert positive.grad.tolist() == [0.5, 0.0]


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_summed_in_float32(loss):
    positive, negative = POSITIVE.bfloat16(), NEGATIVE.bfloat16()
    value = loss(positive, negative)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(positive.float(), negative.float()).item(), abs=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_invalid_triplets_are_refused(loss):
    with pytest.raises(DataError, match=r"\(3,\) and negative \(2,\)"):
        loss(torch.ones(3), torch.ones(2))
    with pytest.raises(DataError, match="at least one triplet"):
        loss(torch.ones(0), torch.ones(0))


@pytest.mark.parametrize("margin", [0.0, -0.2, float("nan")])
def test_non_positive_margin_is_refused(margin):
    with pytest.raises(SettingError, match="margin"):
        losses.TripletLoss(margin=margin)
