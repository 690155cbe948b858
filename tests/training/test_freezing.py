"""Which parameters learn how fast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from twinned.errors import SettingError
from twinned.losses.proxy import ProxyAnchorLoss
from twinned.nn.encoders.convnets import Conv4
from twinned.nn.encoders.papers import Koch2015
from twinned.nn.heads import WeightedL1
from twinned.nn.siamese import SiameseNetwork
from twinned.training.feature_cache import Tail
from twinned.training.freezing import parameter_groups


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_every_parameter_learns_once_and_proxies_faster(layer_decay):
    network = SiameseNetwork(Conv4(embedding_size=8))
    loss = ProxyAnchorLoss(5, 8)
    groups = parameter_groups(network, loss, weight_decay=0.1, layer_decay=layer_decay, proxy_rate=30.0)
    scale = {parameter: group["scale"] for group in groups for parameter in group["params"]}
    decay = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(scale)
    assert scale.keys() == {*network.parameters(), *loss.parameters()}
    assert scale[loss.weight] == 30
    for behind, stage in enumerate(reversed(network.encoder.stages())):
        for parameter in stage.parameters():
            assert scale[parameter] == pytest.approx(layer_decay**behind)
            assert decay[parameter] == (0.1 if parameter.ndim > 1 else 0)


def test_a_loss_without_weights_adds_no_group():
    network = SiameseNetwork(Conv4(embedding_size=8))
    groups = parameter_groups(network, nn.Module(), weight_decay=0.0, layer_decay=1.0, proxy_rate=10.0)
    assert {group["scale"] for group in groups} == {1.0}


def test_each_stage_may_have_a_weight_decay_of_its_own():
    network = SiameseNetwork(Koch2015(), head=WeightedL1())
    settings = {"weight_decay": 0.0, "layer_decay": 1.0, "proxy_rate": 1.0}
    each = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    groups = parameter_groups(network, nn.Module(), **settings, stage_decay=each)
    decay = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    for stage, expected in zip([*network.encoder.stages(), network.head], each, strict=True):
        for parameter in stage.parameters():
            assert decay[parameter] == (expected if parameter.ndim > 1 else 0)
    with pytest.raises(SettingError, match=r"5 stages and one for the head, 6 in all; got 2"):
        parameter_groups(network, nn.Module(), **settings, stage_decay=each[:2])


def test_stages_in_front_that_are_not_here_have_their_decay_left_out():
    whole = SiameseNetwork(Koch2015(), head=WeightedL1())
    maps = torch.zeros(1, *whole.encoder.through(torch.zeros(1, 1, 105, 105), 0, 2).shape[1:])
    tail = SiameseNetwork(Tail(whole.encoder, 2, maps), whole.head)
    settings = {"weight_decay": 0.0, "layer_decay": 1.0, "proxy_rate": 1.0}
    each = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    groups = parameter_groups(tail, nn.Module(), **settings, stage_decay=each, skipped=2)
    decay = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    for stage, expected in zip([*tail.encoder.stages(), tail.head], each[2:], strict=True):
        assert {decay[p] for p in stage.parameters() if p.ndim > 1} == {expected}
    with pytest.raises(SettingError, match=r"5 stages and one for the head, 6 in all; got 4"):
        parameter_groups(tail, nn.Module(), **settings, stage_decay=each[2:], skipped=2)
