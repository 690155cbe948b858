"""Explanations of pairs whose matching regions are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import twinned as tw
from twinned.data.preprocessing import ImageSpec
from twinned.errors import SettingError
from twinned.inference.explain import Explanation, explain

from ..conftest import slow


class Red:
    """Custom model without a graph: mean red of the left and of the right half."""

    spec = ImageSpec(height=32, width=32, channels=3)

    def embed_pixels(self, pixels):
        red = pixels[..., 0].astype(np.float32) / 255
        return np.stack([red[:, :, :16].mean(axis=(1, 2)), red[:, :, 16:].mean(axis=(1, 2))], axis=1)

    def distances(self, left, right):
        return np.abs(left[:, None] - right).sum(axis=-1)


@pytest.fixture(scope="module")
def model(color_model):
    return tw.load(color_model)


def test_exact_shares_locate_matches_and_sum_to_similarity(model, squares):
    left = squares(("red", 1, 1), ("green", 5, 6))
    right = squares(("red", 6, 2), ("blue", 1, 5))
    found = explain(model, left, right)
    assert found.method == "exact"
    similarity = 1 - model.verify(left, right).distance
    assert similarity == pytest.approx(0.5)
    for shares in (found.left_share, found.right_share, found.matches):
        assert shares.sum() == pytest.approx(similarity, abs=1e-6)
    assert found.strongest() == [((1, 1), (6, 2), pytest.approx(0.5))]  # only the red squares match
    assert found.left_share[5, 6] == found.right_share[1, 5] == 0  # green and blue have no partner


def test_exact_shares_equal_a_loop_over_region_pairs(model):
    random = np.random.default_rng(0)
    left, right = random.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    found = explain(model, left, right, method="exact")
    pooled = [
        image.reshape(8, 4, 8, 4, 3).astype(np.float64).mean(axis=(1, 3)) / 255 for image in (left, right)
    ]
    lengths = [np.linalg.norm(p.mean(axis=(0, 1))) for p in pooled]
    for r, c, s, t in [(0, 0, 0, 0), (1, 7, 3, 2), (7, 4, 0, 6)]:
        share = pooled[0][r, c] @ pooled[1][s, t] / (64 * 64 * lengths[0] * lengths[1])
        assert found.matches[r, c, s, t] == pytest.approx(share, rel=1e-4)


def test_occlusion_locates_the_same_regions(model, squares):
    left = squares(("red", 1, 1), ("green", 5, 6))
    right = squares(("red", 6, 2), ("blue", 1, 5))
    found = explain(model, left, right, method="occlusion", cells=8)
    assert found.method == "occlusion"
    assert found.strongest(1)[0][:2] == ((1, 1), (6, 2))
    # Without the red square, the images have nothing in common: the distance rises from 0.5 to 1.
    assert found.left_share[1, 1] == pytest.approx(0.5)
    # Without the green square, the left image is closer to the right one: the share is negative.
    assert found.left_share[5, 6] == pytest.approx(0.5 - 1 / np.sqrt(2), abs=1e-6)
    baseline = np.ones((8, 8), bool)
    baseline[[1, 5], [1, 6]] = False
    assert np.abs(found.left_share[baseline]).max() < 1e-6


def test_occlusion_is_the_second_difference_of_the_distance(squares):
    model = Red()
    left = squares(("red", 0, 0), ("red", 0, 1), ("red", 7, 7))
    right = squares(("red", 7, 0), ("white", 2, 6))
    found = explain(model, left, right, cells=8)
    assert found.method == "occlusion"
    for a, b in [((0, 0), (7, 0)), ((7, 7), (2, 6)), ((3, 3), (4, 4)), ((0, 1), (2, 6))]:
        covered = []
        for image, (row, column) in ((left, a), (right, b)):
            other = image.copy()
            other[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0  # the median of a black image
            covered.append(other)

        def apart(one, other):
            return model.distances(model.embed_pixels(one[None]), model.embed_pixels(other[None]))[0, 0]

        whole = apart(left, right)
        assert found.distance == pytest.approx(whole)
        assert found.left_share[a] == pytest.approx(apart(covered[0], right) - whole, abs=1e-7)
        assert found.right_share[b] == pytest.approx(apart(left, covered[1]) - whole, abs=1e-7)
        both = apart(covered[0], right) + apart(left, covered[1]) - whole - apart(*covered)
        assert found.matches[(*a, *b)] == pytest.approx(both, abs=1e-7)


def test_regions_of_a_wide_image_are_nearly_square():
    class Wide(Red):
        spec = ImageSpec(height=16, width=40, channels=3)

    blank = np.zeros((16, 40, 3), np.uint8)
    assert explain(Wide(), blank, blank, cells=4).left_share.shape == (4, 10)


def test_strongest_matches_use_each_region_once():
    matches = np.zeros((2, 2, 2, 2))
    matches[0, 0, 0, 0], matches[0, 0, 1, 1], matches[1, 1, 0, 0], matches[1, 0, 1, 0] = 9, 8, 7, 1
    blank = np.zeros((8, 8, 1), np.uint8)
    found = Explanation(blank, blank, matches, np.zeros((2, 2)), np.zeros((2, 2)), "exact", 0.0)
    assert found.strongest() == [((0, 0), (0, 0), 9.0), ((1, 0), (1, 0), 1.0)]
    assert found.strongest(1) == [((0, 0), (0, 0), 9.0)]


@pytest.mark.parametrize("encoder", ["conv4", *slow("resnet")])
def test_exported_encoder_is_explained_exactly(encoder, tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch to build the network")
    from twinned import encoders
    from twinned.inference.session import Graph, embed_pixels
    from twinned.nn import onnx_export
    from twinned.nn.siamese import SiameseNetwork

    torch.manual_seed(0)
    net = SiameseNetwork(encoders.build(encoder, image_size=(64, 64), channels=1, embedding_size=None)).eval()
    spec = ImageSpec(height=64, width=64, channels=1)
    onnx_export.export_encoder(net, spec, tmp_path / "encoder.onnx")

    class Made:
        encoder = Graph(tmp_path / "encoder.onnx")
        spec = ImageSpec(height=64, width=64, channels=1)

        def embed_pixels(self, pixels):
            return embed_pixels(pixels, self.encoder)

        def distances(self, left, right):
            return tw.distances.cosine(left, right, pairwise=True)

    left, right = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), dtype=np.uint8)
    found = explain(Made(), left, right, method="exact")
    assert found.matches.sum() == pytest.approx(1 - found.distance, abs=1e-4)
    # Both outputs share the convolutions of the graph.
    import onnx

    graph = onnx.load(tmp_path / "encoder.onnx").graph
    count = sum(isinstance(m, torch.nn.Conv2d) for m in net.encoder.modules())
    assert sum(node.op_type == "Conv" for node in graph.node) == count


def test_exact_is_refused_for_unsupported_models(squares, color_model):
    image = squares(("red", 1, 1))
    with pytest.raises(SettingError, match="Choose occlusion"):
        explain(Red(), image, image, method="exact")
    manhattan = tw.load(color_model)
    manhattan.distances = lambda left, right: np.abs(left[:, None] - right).sum(axis=-1)
    assert explain(manhattan, image, squares(("red", 0, 0), ("blue", 2, 2))).method == "occlusion"
    with pytest.raises(SettingError, match="Choose auto, exact or occlusion"):
        explain(Red(), image, image, method="magic")
    with pytest.raises(SettingError, match="between 2 and 16"):
        explain(Red(), image, image, cells=1)


def test_explain_imports_neither_torch_nor_matplotlib(color_model):
    code = (
        "import sys, json, numpy as np, twinned as tw; from twinned.inference.explain import explain;"
        f"m = tw.load({str(color_model)!r}); i = np.zeros((32, 32, 3), np.uint8); i[:9] = 200;"
        "explain(m, i, i); heavy = ('torch', 'matplotlib', 'sklearn');"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert json.loads(done.stdout) == []


def explained(method: str, share: float, distance: float) -> Explanation:
    pixels, shares = np.zeros((8, 8, 3), np.uint8), np.full((2, 2), share)
    return Explanation(pixels, pixels, np.zeros((2, 2, 2, 2)), shares, shares, method, distance)


def test_weak_evidence_is_called_so():
    assert explained("occlusion", 0.05, 0.78).is_weak(0.9)
    assert not explained("occlusion", 0.2, 0.78).is_weak(0.9)
    assert explained("exact", 0.02, 0.92).is_weak(0.5)
    assert not explained("exact", 0.2, 0.2).is_weak(0.5)
    text = explained("occlusion", 0.05, 0.98).text(0.9)
    assert text.startswith("Weak evidence: covering one region changes the distance of 0.98 by at most 0.05.")
    assert "not enough for the same" in text
    assert explained("exact", 0.2, 0.2).text(0.5) == (
        "The contributions of the regions add up to 0.8. Lines: regions that match best."
    )
