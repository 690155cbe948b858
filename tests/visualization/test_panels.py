"""Panels of images: neighbors, one-shot answers, pairs and matches."""

from __future__ import annotations

import numpy as np
import pytest

from twinned import plots
from twinned.errors import DataError
from twinned.metrics.comparisons import compare_pairs
from twinned.visualization import colors, style
from twinned.visualization.panels import Shown

IMAGE = np.zeros((8, 12), np.uint8)


def words(ax):
    return [t.get_text() for t in ax.texts]


def frames(ax):
    return [p.get_edgecolor() for p in ax.patches if not p.get_fill()]


def test_neighbors_mark_correctness_and_threshold():
    hits = [Shown(IMAGE, "anna", 0.1), Shown(IMAGE, "ben", 0.2), Shown(IMAGE, "anna", 0.5)]
    ax = plots.neighbours([Shown(IMAGE, "anna"), Shown(IMAGE)], [hits, hits[:1]], threshold=0.3)
    assert len(ax.images) == 2 + 3 + 1
    assert words(ax).count("✓ anna") == 2
    assert "✗ ben" in words(ax)
    assert words(ax).count("0.100") == 2
    assert "anna" in words(ax)  # label of the query; neighbors of an unlabeled query have no mark
    blue, orange = style.to_rgba(colors.BLUE), style.to_rgba(colors.VERMILLION)
    assert frames(ax)[1:4] == [blue, orange, blue]
    dotted = [line for line in ax.lines if len(line.get_xdata()) == 2]
    assert len(dotted) == 1  # only the first row has an image beyond the threshold
    second, third = ax.images[2].get_extent(), ax.images[3].get_extent()
    assert second[1] < dotted[0].get_xdata()[0] < third[0]
    assert "dotted line: threshold 0.3" in words(ax)
    near = plots.neighbours([Shown(IMAGE, "anna")], [hits[:1]], threshold=0.3)
    assert "threshold 0.3" in words(near)  # and no line to name


def test_neighbors_without_threshold_have_no_line():
    ax = plots.neighbours([Shown(IMAGE)], [[Shown(IMAGE, "a", 0.5)]])
    assert not ax.lines
    with pytest.raises(DataError, match="got 1 queries and 2 rows"):
        plots.neighbours([Shown(IMAGE)], [[], []])


@pytest.mark.parametrize(
    ("truth", "threshold", "expected"),
    [
        ("ben", None, ["ben", "✓ correct"]),
        ("anna", None, ["ben", "✗ it is anna"]),
        ("ben", 0.1, ["unknown", "✗ it is ben"]),
        ("dora", 0.1, ["unknown", "✓ correct, it is dora"]),
        ("dora", 0.3, ["ben", "✗ it is dora"]),
        ("dora", None, ["ben", "✗ it is dora"]),
        (None, 1.0, ["ben"]),
    ],
)
def test_one_shot_shows_the_nearest_class(truth, threshold, expected):
    support = [Shown(IMAGE, "anna", 0.4), Shown(IMAGE, "ben", 0.2), Shown(IMAGE, "cleo", 0.9)]
    ax = plots.one_shot(Shown(IMAGE, truth), support, threshold=threshold)
    shown = words(ax)
    at = shown.index("answer")
    assert shown[at + 1 : at + 1 + len(expected)] == expected
    verdict = ax.texts[at + 1 : at + 1 + len(expected)]
    assert {t.get_color() for t in verdict} == {colors.VERMILLION if "✗" in expected[-1] else colors.BLUE}


def test_one_shot_requires_distances():
    with pytest.raises(DataError, match="got 1 examples, 0 distances"):
        plots.one_shot(Shown(IMAGE), [Shown(IMAGE, "a")])


def test_one_shot_fits_twenty_ways():
    ax = plots.one_shot(Shown(IMAGE), [Shown(IMAGE, f"class {n}", n / 20) for n in range(20)])
    assert len(ax.images) == 21
    for image in ax.images:
        left, right, low, high = image.get_extent()
        assert 0 <= left < right <= ax.get_xlim()[1]
        assert 0 <= min(low, high) < max(low, high) <= ax.get_ylim()[0]


def test_hardest_pairs_show_decision_and_truth():
    pairs = [(Shown(IMAGE, "a"), Shown(IMAGE, "b", 0.1)), (Shown(IMAGE, "c"), Shown(IMAGE, "c", 0.9))]
    shown = words(plots.hardest_pairs(pairs, [False, False], threshold=0.5))
    assert "0.100: same, truth different" in shown
    assert "0.900: different, correct" in shown
    assert "a / b" in shown
    assert "c" in shown
    with pytest.raises(DataError, match="2 pairs and 1"):
        plots.hardest_pairs(pairs, [True], threshold=0.5)


def test_worst_mistakes_are_the_most_confident_errors():
    distance, same = [0.1, 0.2, 0.6, 0.9, 0.3], [False, False, True, True, True]
    comparisons = compare_pairs(distance, same, left=list("abcde"), right=list("bcdea"))
    images, labels = [np.full((8, 8), 40 * n, np.uint8) for n in range(5)], list("abcde")
    with pytest.raises(DataError, match="not known"):
        plots.worst_mistakes(comparisons, images, labels, threshold=0.5)
    rows = np.arange(5)
    known = type(comparisons)(
        comparisons.distance,
        comparisons.same,
        comparisons.left,
        comparisons.right,
        None,
        rows,
        (rows + 1) % 5,
    )
    shown = words(plots.worst_mistakes(known, images, labels, threshold=0.5, count=1))
    assert [text for text in shown if "truth" in text] == [
        "0.100: same, truth different",
        "0.900: different, truth same",
    ]
    with pytest.raises(DataError, match="no error"):
        plots.worst_mistakes(known.subset(np.array([4])), images, labels, threshold=0.5)


def test_matches_are_tinted_and_linked():
    white = np.full((16, 16, 1), 255, np.uint8)
    left, right = np.zeros((4, 4)), np.zeros((2, 2))
    left[0, 0], left[3, 3], right[1, 0] = 1.0, -1.0, 0.5
    ax = plots.matches(white, white, left_map=left, right_map=right, links=[((0, 0), (1, 0), 0.7)])
    assert len(ax.images) == 4
    tinted = np.asarray(ax.images[1].get_array()).astype(int)
    corner, middle, last = tinted[2, 2], tinted[len(tinted) // 2, len(tinted) // 2], tinted[-2, -2]
    assert corner[2] > corner[0] + 60  # blue
    assert last[0] > last[2] + 60  # orange
    assert np.ptp(middle) == 0  # gray: no evidence
    assert words(ax).count("1") == 2
    extent = ax.images[1].get_extent()
    x, y = next(line.get_xydata()[0] for line in ax.lines)
    assert x == pytest.approx(extent[0] + (extent[1] - extent[0]) / 8)
    assert y == pytest.approx(extent[3] + (extent[2] - extent[3]) / 8)
    plots.matches(white, white, left_map=0 * left, right_map=0 * right)  # no error without matches


@pytest.mark.parametrize("shape", [(100, 100), (100, 250), (300, 100)])
def test_images_keep_their_aspect_ratio_inside_the_figure(shape):
    image = np.zeros((*shape, 3), np.uint8)
    ax = plots.matches(image, image, left_map=np.ones((2, 4)), right_map=np.ones((2, 4)), caption="wi " * 60)
    assert len(ax.images) == 4
    boxes = [drawn.get_extent() for drawn in ax.images]
    for left, right, low, high in boxes:
        assert (right - left) / abs(high - low) == pytest.approx(shape[1] / shape[0])
        assert 0 <= left < right <= ax.get_xlim()[1]
        assert 0 <= min(low, high) < max(low, high) <= ax.get_ylim()[0]
    assert boxes[1][1] < boxes[3][0]  # the maps are side by side
    assert boxes[1][2:] == boxes[3][2:]
    ax.figure.canvas.draw()
    page = ax.figure.bbox
    for text in ax.texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert page.y0 <= box.y0 < box.y1 <= page.y1
