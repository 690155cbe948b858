"""Diagrams of networks: shapes, parameter counts and grouping of layers."""

from __future__ import annotations

import importlib.util
from collections import Counter

import numpy as np
import pytest

from twinned import plots
from twinned.errors import SettingError
from twinned.visualization import style
from twinned.visualization.network import MOST_STAGES, summarize

KOCH = [
    ("convolutions.0", "Conv2d", (64, 96, 96), 6464),
    ("convolutions.1", "ReLU", (64, 96, 96), 0),
    ("convolutions.2", "MaxPool2d", (64, 48, 48), 0),
    ("convolutions.3", "Conv2d", (128, 42, 42), 401536),
    ("convolutions.4", "ReLU", (128, 42, 42), 0),
    ("dense", "Linear", (4096,), 37752832),
    ("head", "WeightedL1", (), 4097),
]


def words(ax):
    return Counter(t.get_text() for t in ax.texts)


def residual(blocks=20):
    """Layers of a wrapper around residual blocks, like a pretrained network."""
    rows = [("net.stem", "Conv2d", (8, 32, 32), 216), ("net.bn", "BatchNorm2d", (8, 32, 32), 16)]
    for n in range(blocks):
        side = 32 >> (n // 5)
        for name, kind, count in (("expand", "Conv2d", 500), ("bn0", "BatchNorm2d", 20), ("act", "SiLU", 0)):
            rows.append((f"net.blocks.{n}.{name}", kind, (8, side, side), count))
    return [*rows, ("dense", "Linear", (16,), 144)]


def test_weights_are_shown_once_and_shapes_per_branch():
    shown = words(plots.architecture(KOCH, image_shape=(105, 105, 1), distance="cosine"))
    assert shown["6,464 parameters"] == shown["401,536 parameters"] == shown["37,752,832 parameters"] == 1
    for shape in ("105 × 105 × 1", "48 × 48 × 64", "42 × 42 × 128", "4,096 values"):
        assert shown[shape] == 2, shape
    assert shown["one encoder, one set of weights"] == 1
    assert shown["WeightedL1"] == shown["4,097 parameters"] == 1
    total = sum(row[3] for row in KOCH)
    assert any(f"{total:,} parameters, counted once" in text for text in shown)


def test_cards_are_connected_to_both_branches():
    ax = plots.architecture(KOCH, image_shape=(105, 105, 1))
    middle = sum(ax.get_xlim()) / 2
    dots = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    stages = len(summarize(KOCH[:-1]))
    assert len(dots) == 2 * stages
    assert sum(x < middle for x in dots) == sum(x > middle for x in dots) == stages


def test_layers_are_grouped_with_preceding_weights():
    assert [s.title for s in summarize(KOCH[:-1])] == ["Conv · ReLU · MaxPool", "Conv · ReLU", "Linear"]
    assert [s.shape for s in summarize(KOCH[:-1])] == [(64, 48, 48), (128, 42, 42), (4096,)]


def test_long_network_is_summarized_without_losing_parameters():
    rows = residual()
    stages = summarize(rows)
    assert len(stages) <= MOST_STAGES
    assert sum(s.parameters for s in stages) == sum(row[3] for row in rows)
    assert stages[-1].shape == (16,)
    # Maps of one size form a stage: 32, 16, 8, 4, and the dense layer.
    assert [s.shape for s in stages] == [(8, 32, 32), (8, 16, 16), (8, 8, 8), (8, 4, 4), (16,)]
    flat = [(f"{n}", "Linear", (10,), 7) for n in range(100)]
    assert len(summarize(flat)) <= MOST_STAGES
    assert sum(s.parameters for s in summarize(flat)) == 700


def test_residual_blocks_are_kept_together():
    stages = summarize(residual(blocks=3))
    assert [s.title for s in stages[1:4]] == ["Conv · BatchNorm · SiLU"] * 3


def inverted(blocks):
    """Layers of inverted bottlenecks in the naming of the EfficientNet package."""
    rows = [
        ("stem.0.static_padding", "ZeroPad2d", (3, 65, 65), 0),
        ("stem.0", "Conv2dStaticSamePadding", (8, 32, 32), 216),
        ("stem.1", "BatchNorm2d", (8, 32, 32), 16),
        ("stem.2", "ReLU6", (8, 32, 32), 0),
    ]
    for stage, (number, channels, side) in enumerate(blocks):
        for n in range(number):
            for name in ("_expand_conv", "_depthwise_conv", "_project_conv"):
                path = f"blocks.{stage}.{n}.{name}"
                shape = (channels if name == "_project_conv" else 6 * channels, side, side)
                rows.append((f"{path}.static_padding", "ZeroPad2d", shape, 0))
                rows.append((path, "Conv2dStaticSamePadding", shape, 100))
                rows.append((f"blocks.{stage}.{n}.bn{name}", "BatchNorm2d", shape, 10))
    return [*rows, ("dense", "Linear", (16,), 144)]


def test_blocks_of_pretrained_network_have_readable_names():
    rows = inverted([(1, 16, 32), (2, 24, 16), (3, 40, 8), (3, 80, 8), (4, 112, 4)])
    stages = summarize(rows)
    assert [s.title for s in stages] == [
        "Conv · BatchNorm · ReLU6",
        "MBConv, 16",
        "MBConv ×2, 24",
        "MBConv ×3, 40",
        "MBConv ×3, 80",
        "MBConv ×4, 112",
        "Linear",
    ]
    assert sum(s.parameters for s in stages) == sum(row[3] for row in rows)
    # With fewer boxes, maps of one size are joined for any number of channels.
    assert [s.title for s in summarize(rows, most=5)][:3] == [
        "Conv · BatchNorm · MBConv",
        "MBConv ×2, 24",
        "MBConv ×6",
    ]
    assert summarize(residual())[1].title == "(Conv · BatchNorm · SiLU) ×5"


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "efficientnet_lite_pytorch")),
    reason="the extra pretrained is missing",
)
def test_symmetric_pretrained_network_is_drawn_once():
    from twinned import encoders
    from twinned.nn.siamese import SiameseNetwork

    name = "efficientnet_lite0_photo"
    built = encoders.build(
        name, image_size=(64, 64), channels=3, embedding_size=32, pretrained=False, symmetric=True
    )
    network = SiameseNetwork(built)
    shown = words(plots.architecture(network))
    total = sum(p.numel() for p in network.parameters())
    assert any(f"{total:,} parameters, counted once" in text for text in shown)
    for title in ("MBConv ×2, 40", "MBConv ×3, 80", "MBConv, 320", "Linear"):
        assert shown[title] == 1, title


def test_feature_maps_get_a_pooling_step():
    rows = [("0", "Conv2d", (8, 5, 5), 80)]
    assert words(plots.architecture(rows))["200 values"] == 2
    averaged = words(plots.architecture(rows, embedding_size=32))
    assert averaged["32 values"] == 2
    assert averaged["pooled and flattened"] == averaged["no parameters"] - 1 == 1


def test_encoder_without_recorded_layers_is_one_box():
    shown = words(plots.architecture([("x", "resnet.onnx", (64,), None)], image_shape=(32, 32, 3)))
    assert shown["parameters not recorded"] == 1
    assert not any("parameters, counted once" in text for text in shown)


def test_architecture_with_images_is_saved(tmp_path):
    images = tuple(np.full((20, 10), value, np.uint8) for value in (0, 255))
    ax = plots.architecture(KOCH, image_shape=(105, 105, 1), images=images)
    assert len(ax.images) == 2
    for suffix in ("png", "svg"):
        plots.save(ax, tmp_path / f"a.{suffix}")


def test_network_object_is_drawn():
    pytest.importorskip("torch", reason="needs PyTorch to build the network")
    from twinned import encoders, heads
    from twinned.nn.siamese import SiameseNetwork

    network = SiameseNetwork(encoders.Conv4(image_size=(48, 32), channels=3), heads.WeightedL1())
    shown = words(plots.architecture(network))
    total = sum(p.numel() for p in network.parameters())
    assert any(f"{total:,} parameters" in text for text in shown)
    assert shown["48 × 32 × 3"] == 2
    assert shown[f"{network.embedding_size:,} values"] == 2


def test_texts_do_not_overlap_or_overflow():
    rows = [
        (
            f"conv{n}",
            f"ConvTransposeWithA{'WWWWWWWWW' * n}VeryLongNameIndeed",
            (1024, 512 >> n, 1024 >> n),
            9**9,
        )
        for n in range(6)
    ]
    rows.append(("head", f"AHeadWithA{'VeryWide' * 6}Name", (), 7))
    ax = plots.architecture(rows, image_shape=(1024, 2048, 3))
    figure = ax.figure
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.texts if t.get_text()]
    cards = [
        p.get_window_extent()
        for p in ax.patches
        if isinstance(p, style.FancyBboxPatch) and p.get_height() < 1  # not the background panel
    ]
    assert len(cards) == 8  # six layers, the step to the embedding, the head
    titles = [
        t.get_window_extent() for t in ax.texts if any(f in t.get_text() for f in ("ConvT", "AHeadWith"))
    ]
    for title, card in zip(titles, [*cards[:6], cards[7]], strict=True):
        assert card.x0 < title.x0 < title.x1 < card.x1
    page = figure.bbox
    assert all(page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1 for b in boxes)
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert not (min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1)


def test_network_without_layers_is_refused():
    with pytest.raises(SettingError, match="without layers"):
        plots.architecture([("head", "Distance", (), 0)])
