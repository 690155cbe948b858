"""Cohort score normalization: one additional value corrects similarities for local density."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import normalize

from twinned import encoders
from twinned.data.preprocessing import ImageSpec
from twinned.inference.session import Graph, embed_pixels
from twinned.nn.onnx_export import export_encoder
from twinned.nn.score_norm import CohortScoreNorm
from twinned.nn.siamese import SiameseNetwork


def some(count: int, seed: int = 0, size: int = 16) -> torch.Tensor:
    return normalize(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)))


def test_added_value_equals_a_loop():
    members, labels = some(12).double(), torch.arange(12) // 3
    cohort = CohortScoreNorm.of(members, labels)
    usual = []
    for i in range(12):
        others = sorted(1 - float(members[i] @ members[j]) for j in range(12) if labels[j] != labels[i])
        usual += others[:3]
    assert abs(float(cohort.usual) - np.mean(usual)) < 1e-12
    z = some(5, seed=1).double()
    for row, found in zip(z, cohort(z), strict=True):
        nearest = sorted(1 - float(row @ member) for member in members)[:3]
        w = 0.5**0.5 * (1 + 3 * (np.mean(nearest) - np.mean(usual)))
        slow = torch.cat([row, torch.tensor([w], dtype=torch.float64)])
        torch.testing.assert_close(found, slow / slow.norm(), atol=1e-12, rtol=0)


def test_distances_grow_in_dense_regions_and_shrink_in_sparse_ones():
    members = torch.cat([normalize(some(64, seed=2) * 0.3 + torch.eye(16)[0]), some(64, seed=3)])
    cohort = CohortScoreNorm.of(members, torch.arange(128) // 4)
    crowd, apart = torch.eye(16)[0], torch.eye(16)[5]
    near = torch.eye(16)[1] * 0.6
    pairs = torch.stack([crowd, normalize(crowd + near, dim=0), apart, normalize(apart + near, dim=0)])
    before, after = 1 - pairs @ pairs.T, 1 - cohort(pairs) @ cohort(pairs).T
    assert torch.isclose(before[0, 1], before[2, 3])
    assert after[0, 1] > 1.1 * after[2, 3]


def test_cohort_is_exported_with_the_network(tmp_path):
    torch.manual_seed(0)
    encoder = encoders.build("conv4", image_size=(20, 24), channels=1, embedding_size=16)
    cohort = CohortScoreNorm.of(some(40), torch.arange(40) // 4)
    network = SiameseNetwork(encoder, normalize=True, cohort=cohort).eval()
    assert network.embedding_size == 17
    spec = ImageSpec(height=20, width=24, channels=1, mean=(0.0,), std=(1.0,))
    export_encoder(network, spec, tmp_path / "encoder.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 1), dtype=np.uint8)
    with torch.no_grad():
        expected = network.embed(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)
    found = embed_pixels(pixels, Graph(tmp_path / "encoder.onnx"))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
