"""Batch for comparisons: 20 embeddings of 5 values, in 6 classes, one of them with a single image."""

import pytest
import torch
from torch import Tensor


def make_batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.randint(0, 5, (19,), generator=generator), torch.tensor([5])])
    embeddings = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    return embeddings.requires_grad_(), labels


@pytest.fixture(params=range(4))
def batch(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    return make_batch(request.param)
