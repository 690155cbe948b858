"""Heads: plain distances, and learned scores whose distance is 1 - score."""

from __future__ import annotations

import pytest
import torch

from twinned import heads
from twinned.errors import SettingError


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 7, 5, generator=generator)
    return a, b


@pytest.mark.parametrize("head", [heads.WeightedL1(5), heads.SigmoidDistance("manhattan")])
def test_learned_distance_is_one_minus_the_score(head, pair):
    logit, score, distance = head.logit(*pair), head.score(*pair), head(*pair)
    assert logit.shape == score.shape == distance.shape == (7,)
    torch.testing.assert_close(score, torch.sigmoid(logit))
    torch.testing.assert_close(distance, 1 - score)
    assert ((distance >= 0) & (distance <= 1)).all()
    torch.testing.assert_close(distance, head(*pair[::-1]))
    assert head.learned


def test_weighted_l1_equals_the_published_formula(pair):
    head = heads.WeightedL1(5)
    a, b = pair
    for row in range(7):
        total = head.weight.bias[0].clone()
        for j in range(5):
            total += head.weight.weight[0, j] * abs(a[row, j] - b[row, j])
        torch.testing.assert_close(head.logit(a, b)[row], total)


def test_weighted_l1_is_initialized_as_published():
    torch.manual_seed(0)
    for head in (heads.WeightedL1(20_000), heads.WeightedL1()):
        head.logit(*torch.zeros(2, 1, 20_000))
        assert head.weight.in_features == 20_000
        assert head.weight.weight.std().item() == pytest.approx(0.2, rel=0.02)
        assert head.weight.bias.item() == pytest.approx(0.5, abs=0.05)


def test_sigmoid_distance_has_scale_and_shift_and_decreases(pair):
    head = heads.SigmoidDistance("euclidean")
    assert {name for name, _ in head.named_parameters()} == {"scale", "shift"}
    assert sum(p.numel() for p in head.parameters()) == 2
    a, b = pair
    order = (a - b).norm(dim=1).argsort()
    score = head.score(a, b)[order]
    assert (score[1:] <= score[:-1]).all()
    torch.testing.assert_close(head.logit(a, b), -(a - b).norm(dim=1) + 1)


def test_heads_are_created_by_name():
    assert heads.create_head("distance", distance="manhattan", embedding_size=4).name == "manhattan"
    assert heads.create_head("weighted-l1", distance="cosine", embedding_size=4).weight.in_features == 4
    assert heads.create_head("sigmoid-distance", distance="cosine", embedding_size=4).name == "cosine"
    assert not heads.create_head("distance", distance="cosine", embedding_size=4).learned
    with pytest.raises(SettingError, match="'dot' is not known; choose one of distance, weighted-l1"):
        heads.create_head("dot", distance="cosine", embedding_size=4)
    with pytest.raises(SettingError, match="'hamming'"):
        heads.create_head("distance", distance="hamming", embedding_size=4)


def test_deck_heads_are_initialized_as_in_keras():
    torch.manual_seed(0)
    difference = heads.deck(embedding_size=128)
    bound = (6 / 129) ** 0.5  # Glorot & Bengio 2010
    assert 0.9 * bound < difference.weight.weight.abs().max().item() <= bound
    assert difference.weight.bias.item() == 0
    scales = [heads.deck("euclidean").scale.item() for _ in range(50)]
    assert -(3**0.5) <= min(scales) < -1.5
    assert 1.5 < max(scales) <= 3**0.5
    assert heads.deck("euclidean").shift.item() == 0
    with pytest.raises(SettingError, match="'cosine' is not known"):
        heads.deck("cosine")
