"""Plots of training histories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import twinned as tw
from twinned import plots
from twinned.errors import DataError

TABLE = {
    "step": [25, 50, 75],
    "seconds": [10.0, 20.0, 30.0],
    "epoch": [1, 2, 3],
    "loss": [2.0, 1.0, 0.5],
    "train_accuracy": [0.7, 0.8, 0.9],
    "held_out_accuracy": [0.6, 0.75, 0.7],
    "held_out_eer": [0.4, 0.25, 0.3],
}


def test_history_draws_loss_error_and_accuracy():
    above, below = plots.history(TABLE)
    assert np.allclose(above.lines[0].get_ydata(), TABLE["loss"])
    drawn = {line.get_label(): line for line in below.lines}
    assert np.allclose(drawn["equal error rate, held-out classes"].get_ydata(), TABLE["held_out_eer"])
    assert np.allclose(drawn["pair accuracy, training classes"].get_ydata(), TABLE["train_accuracy"])
    assert (
        len({(line.get_color(), str(line.get_linestyle()), line.get_marker()) for line in below.lines}) == 3
    )
    note = below.texts[0]
    assert note.get_text() == "best 0.25"
    assert note.xy == (50, 0.25)
    assert np.allclose(plots.history(TABLE, over="seconds")[0].lines[0].get_xdata(), TABLE["seconds"])


def test_history_of_a_model(tiny_model: Path) -> None:
    model = tw.load(tiny_model)
    (above, _), (expected, _) = plots.history(model), plots.history(model.record.history())
    assert np.allclose(above.lines[0].get_ydata(), expected.lines[0].get_ydata())


def test_history_without_held_out_classes():
    table = TABLE | {"held_out_accuracy": [np.nan] * 3, "held_out_eer": [np.nan] * 3}
    _, below = plots.history(table)
    assert [line.get_label() for line in below.lines] == ["pair accuracy, training classes"]
    plots.png(below)


def test_several_runs_differ_in_style_over_seconds():
    runs = {f"run {n} $": TABLE | {"held_out_accuracy": [0.1 * n] * 3} for n in range(9)}
    ax = plots.accuracy_over_time(runs)
    assert len(ax.lines) == 9
    assert np.allclose(ax.lines[0].get_xdata(), TABLE["seconds"])
    looks = {(line.get_color(), line.get_marker(), str(line.get_linestyle())) for line in ax.lines}
    assert len(looks) == 9
    plots.png(ax)


def test_missing_history_is_refused():
    with pytest.raises(DataError, match="no training history to draw"):
        plots.history({})
    with pytest.raises(DataError, match="at least one run"):
        plots.accuracy_over_time({})
    with pytest.raises(DataError, match="'held_out_accuracy'"):
        plots.accuracy_over_time({"a": {"seconds": [1.0]}})
