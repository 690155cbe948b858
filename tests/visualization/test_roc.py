"""Plots of verification: drawn values equal the computed ones."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import confusion_matrix

from twinned import plots
from twinned.distances import euclidean
from twinned.errors import DataError
from twinned.evaluation.fitting import fit_calibration
from twinned.evaluation.results import Evaluation
from twinned.evaluation.verification import evaluate_verification, reliability
from twinned.metrics.comparisons import compare_all


@pytest.fixture(scope="module")
def world():
    def made(seed, forgeries=False):
        random = np.random.default_rng(seed)
        centres = random.normal(size=(15, 4))
        label = np.repeat(np.arange(15), 6)
        vectors = (centres[label] + 0.6 * random.normal(size=(90, 4))).astype(np.float32)
        forgery = np.tile(np.arange(6) > 3, 15) if forgeries else None
        return compare_all(vectors, label, partial(euclidean, pairwise=True), forgery=forgery)

    calibration = fit_calibration(made(1), bootstrap=20)
    comparisons, forged = made(2), made(3, forgeries=True)
    return {
        "calibration": calibration,
        "comparisons": comparisons,
        "forged": forged,
        "result": evaluate_verification(comparisons, calibration, bootstrap=30),
        "against forgeries": evaluate_verification(forged, calibration, bootstrap=30),
    }


def words(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


def test_roc_has_curve_and_stored_threshold(world):
    result = world["result"]
    ax = plots.roc(result)
    curve, point = ax.lines
    far, frr = result.roc.thinned().far, result.roc.thinned().frr
    assert np.allclose(curve.get_xdata(), far, atol=1e-8)
    assert np.allclose(curve.get_ydata(), 1 - frr, atol=1e-8)
    assert point.get_xdata()[0] == pytest.approx(result.far)
    assert point.get_ydata()[0] == pytest.approx(1 - result.frr)
    assert ax.get_xscale() == "log"
    assert words(ax)[0] == f"EER {result.eer:.3g}"


def test_several_results_on_given_axes(world):
    results = {"first": world["result"], "second": world["against forgeries"]}
    axes = plots.plain()
    ax = plots.roc(results, ax=axes)
    assert ax is axes
    for (name, result), line, text in zip(results.items(), ax.lines, words(ax), strict=True):
        assert np.allclose(line.get_xdata(), result.roc.thinned().far, atol=1e-8)
        assert text == f"{name}: EER {result.eer:.3g}"
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 2
    with pytest.raises(DataError, match="got none"):
        plots.roc({})
    with pytest.raises(DataError, match="got none"):
        plots.roc({"a": Evaluation(None, None, None, "omniglot-runs")})


def test_evaluation_is_drawn_by_its_verification(world):
    whole = plots.roc(Evaluation(world["result"], None, None, "classes"))
    assert words(whole) == words(plots.roc(world["result"]))


def test_unsupported_rates_are_hatched(world):
    ax = plots.roc(world["result"])
    hatched = next(p for p in ax.patches if p.get_hatch())
    edge = hatched.get_x() + hatched.get_width()
    assert edge == pytest.approx(30 / world["result"].n_impostor)


def test_det_has_normal_deviate_axes(world):
    ax = plots.det(world["result"])
    rates = np.array([0.01, 0.05, 0.2, 0.4])
    for axis in (0, 1):
        on_screen = ax.transData.transform(np.stack([rates, rates], axis=1))[:, axis]
        ratio = np.diff(on_screen) / np.diff(norm.ppf(rates))
        assert np.allclose(ratio, ratio[0], rtol=1e-6)
    shown = [t.get_text() for t in ax.get_xticklabels()]
    assert shown[-1] == "0.4"
    assert "0.01" in shown
    assert np.allclose(ax.lines[0].get_ydata(), world["result"].roc.thinned().frr, atol=1e-6)


def test_threshold_that_accepts_all_stays_inside_the_axes(world):
    everything = world["calibration"].model_copy(update={"threshold": 99.0})
    result = evaluate_verification(world["comparisons"], everything, bootstrap=5)
    for ax in (plots.roc(result), plots.det(result)):
        point = next(line for line in ax.lines if line.get_marker() == "o").get_xydata()[0]
        assert ax.get_xlim()[0] <= point[0] <= ax.get_xlim()[1]
        assert ax.get_ylim()[0] <= point[1] <= ax.get_ylim()[1]


def test_forgeries_and_random_impostors_have_separate_curves(world):
    for draw in (plots.roc, plots.det):
        ax = draw(world["against forgeries"])
        assert words(ax)[0].startswith("against random impostors")
        assert words(ax)[1].startswith("against skilled forgeries")
        one, other = ax.lines[:2]
        assert one.get_color() != other.get_color()
        assert one.get_linestyle() != other.get_linestyle()


def test_curve_of_one_kind_of_comparison_is_refused(world):
    same = world["comparisons"].subset(world["comparisons"].same)
    result = evaluate_verification(same, world["calibration"], bootstrap=5)
    for draw in (plots.roc, plots.det):
        with pytest.raises(DataError, match="and 0"):
            draw(result)


def test_distance_histograms_have_unit_area_and_filled_errors(world):
    comparisons, threshold = world["comparisons"], world["calibration"].threshold
    ax = plots.distances(comparisons, threshold, bins=400)
    outlines = [p for p in ax.patches if not p.get_fill()]
    filled = [p for p in ax.patches if p.get_fill()]
    area = [float(p.get_data().values @ np.diff(p.get_data().edges)) for p in (*outlines, *filled)]
    assert area[:2] == pytest.approx([1, 1])
    assert area[2] == pytest.approx(np.mean(comparisons.genuine > threshold), abs=0.01)
    assert area[3] == pytest.approx(np.mean(comparisons.impostor <= threshold), abs=0.01)
    assert ax.lines[0].get_xdata()[0] == threshold
    assert len([p for p in plots.distances(world["forged"], threshold).patches if not p.get_fill()]) == 3


def test_equal_distances_can_be_drawn(world):
    alike = world["comparisons"].subset(np.arange(4))
    plots.png(plots.distances(type(alike)(np.zeros(4, np.float32), alike.same, alike.left, alike.right), 0.5))


def test_reliability_points_are_drawn(world):
    found = reliability(world["comparisons"], world["calibration"])
    ax = plots.reliability(found)
    assert np.allclose(ax.lines[1].get_xdata(), found.stated)
    assert np.allclose(ax.lines[1].get_ydata(), found.observed)
    heights = np.array([p.get_height() for p in ax.patches])
    assert (np.argsort(heights, kind="stable") == np.argsort(found.comparisons, kind="stable")).all()


def test_overview_has_four_panels(world):
    four = plots.overview(
        world["result"], world["comparisons"], reliability(world["comparisons"], world["calibration"])
    )
    titles = [ax.get_title(loc="left") for ax in four]
    assert titles == ["ROC", "DET", "Distances", "Reliability"]
    assert len({ax.figure for ax in four}) == 1


def test_confusion_rows_are_normalized():
    random = np.random.default_rng(0)
    truth = random.choice(["a", "b", "$c$"], 200)
    answer = np.where(random.random(200) < 0.7, truth, random.choice(["a", "b", "unknown"], 200))
    names = sorted({*truth, *answer})
    expected = confusion_matrix(truth, answer, labels=names)
    rows = expected.sum(axis=1, keepdims=True)
    ax = plots.confusion(truth.tolist(), answer.tolist())
    assert np.allclose(ax.images[0].get_array(), expected / np.maximum(rows, 1))
    assert [t.get_text() for t in ax.get_yticklabels()] == names
    plots.png(ax)  # "$c$" is not parsed as math


def test_confusion_of_many_classes_shows_the_hardest():
    truth = [str(n) for n in range(30) for _ in range(4)]
    answer = list(truth)
    answer[0], answer[1], answer[119] = "1", "29", "2"  # two errors of "0", one of "29"
    ax = plots.confusion(truth, answer, most=4)
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert sorted(names) == ["0", "1", "2", "29"]
    shares = np.asarray(ax.images[0].get_array())
    assert shares[names.index("0"), names.index("0")] == 0.5
    assert shares[names.index("29"), names.index("2")] == 0.25
    with pytest.raises(DataError, match="one answer per image"):
        plots.confusion(["a"], [])
