"""Muon against a singular value decomposition, torch.optim.Muon and AdamW."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from twinned.losses.proxy import ProxyAnchorLoss
from twinned.nn.encoders.convnets import Conv4
from twinned.nn.encoders.papers import Koch2015
from twinned.nn.siamese import SiameseNetwork
from twinned.training.optimizers import Muon, orthogonal, parameter_groups


@pytest.mark.parametrize("shape", [(6, 30), (30, 6), (12, 12), (1, 9)])
def test_orthogonal_keeps_directions_and_equalizes_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, lengths, v = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ orthogonal(matrix) @ v.T
    expected = (lengths / matrix.norm()).tolist()
    for _ in range(5):
        expected = [3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5 for x in expected]
    torch.testing.assert_close(found, torch.diag(torch.tensor(expected, dtype=torch.float64)))
    assert min(expected) > 0.5
    assert max(expected) < 1.3


def test_orthogonal_of_zero_is_zero():
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


def steps(optimizer: torch.optim.Optimizer, weight: nn.Parameter, count: int = 6) -> None:
    random = torch.Generator().manual_seed(1)
    for _ in range(count):
        weight.grad = torch.randn(weight.shape, generator=random).to(weight.dtype)
        optimizer.step()


def test_matrix_updates_match_torch_muon():
    mine = nn.Parameter(torch.randn(8, 20, generator=torch.Generator().manual_seed(0)))
    theirs = copy.deepcopy(mine)
    steps(Muon([{"params": [mine], "orthogonal": True, "weight_decay": 0.1}], lr=0.1), mine)
    settings = {"lr": 0.1, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    steps(torch.optim.Muon([theirs], **settings), theirs)
    torch.testing.assert_close(mine, theirs, atol=0.02, rtol=0)  # torch computes the update in bfloat16


def test_filters_update_as_matrix_rows_in_any_layout():
    kernel = nn.Parameter(torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double())
    turned = nn.Parameter(kernel.detach().clone(memory_format=torch.channels_last))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    for weight in (kernel, turned):
        steps(Muon([{"params": [weight], "orthogonal": True}], lr=0.1), weight)
    optimizer = Muon([{"params": [matrix], "orthogonal": True}], lr=0.1)
    random = torch.Generator().manual_seed(1)
    for _ in range(6):
        matrix.grad = torch.randn(kernel.shape, generator=random).flatten(1).to(matrix.dtype)
        optimizer.step()
    torch.testing.assert_close(kernel.flatten(1), matrix)
    torch.testing.assert_close(turned, kernel)


def test_other_updates_match_adamw():
    mine = nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double())
    theirs = copy.deepcopy(mine)
    steps(Muon([{"params": [mine], "weight_decay": 0.1}], lr=0.01), mine)
    steps(torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1), theirs)
    torch.testing.assert_close(mine, theirs)


def test_encoder_matrices_are_orthogonal_unless_huge():
    for encoder, huge in ((Conv4(embedding_size=8), 0), (Koch2015(), 1)):
        network = SiameseNetwork(encoder)
        proxies = nn.Linear(8, 5)
        groups = parameter_groups(network, proxies, weight_decay=0.1, proxy_lr_scale=10.0)
        marked = {p for group in groups if group["orthogonal"] for p in group["params"]}
        matrices = {p for p in encoder.parameters() if p.ndim > 1}
        assert marked <= matrices
        assert len(matrices) - len(marked) == huge


def test_parameters_are_in_one_group_and_proxies_have_higher_rate():
    network, loss = SiameseNetwork(Conv4(embedding_size=8)), ProxyAnchorLoss(5, 8)
    groups = parameter_groups(network, loss, weight_decay=0.1, proxy_lr_scale=30.0)
    scale = {parameter: group["scale"] for group in groups for parameter in group["params"]}
    decay = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(scale)
    assert scale.keys() == {*network.parameters(), *loss.parameters()}
    assert scale[loss.weight] == 30
    assert {scale[parameter] for parameter in network.parameters()} == {1}
    assert all(decay[parameter] == (0.1 if parameter.ndim > 1 else 0) for parameter in decay)


def test_loss_without_weights_adds_no_group():
    network = SiameseNetwork(Conv4(embedding_size=8))
    groups = parameter_groups(network, nn.Module(), weight_decay=0.0, proxy_lr_scale=10.0)
    assert {group["scale"] for group in groups} == {1.0}
