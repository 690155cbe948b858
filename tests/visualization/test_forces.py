"""Plots of the forces of losses."""

from __future__ import annotations

import numpy as np
import pytest

from twinned import plots
from twinned.errors import DataError
from twinned.visualization import colors, style

POINTS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
FORCES = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, -2.0]])


def test_arrows_are_proportional_to_forces():
    (ax,) = plots.forces(POINTS, [("Toy", FORCES)], list("aabb"))
    arrows = {tuple(t.xyann): np.array(t.xy) - t.xyann for t in ax.texts if hasattr(t, "arrow_patch")}
    assert len(arrows) == 3, "the third point has no force"
    assert arrows[0, 0][0] == pytest.approx(2 * arrows[1, 0][1])
    assert arrows[0, 0][1] == 0
    assert arrows[1, 1][1] == pytest.approx(-arrows[0, 0][0])
    faces = [tuple(face) for points in ax.collections for face in points.get_facecolors()]
    assert [face == style.to_rgba(colors.PAPER) for face in faces] == [False, False, True, False]
    assert any("hollow" in text.get_text() for text in ax.texts)


def test_one_panel_per_loss_without_arrows_for_zero_forces():
    one, other = plots.forces(POINTS, [("One", FORCES), ("Other", 0 * FORCES)], list("aabb"))
    assert (one.get_title(loc="left"), other.get_title(loc="left")) == ("One", "Other")
    assert not [t for t in other.texts if hasattr(t, "arrow_patch")]
    plots.png([one, other])


@pytest.mark.parametrize(
    ("points", "figures", "labels"),
    [
        (POINTS, [], "aabb"),
        (POINTS, [("x", FORCES[:3])], "aabb"),
        (POINTS, [("x", FORCES)], "aab"),
        (np.zeros((4, 3)), [("x", FORCES)], "aabb"),
    ],
)
def test_mismatched_shapes_are_refused(points, figures, labels):
    with pytest.raises(DataError, match=r"points \(n, 2\)"):
        plots.forces(points, figures, list(labels))
