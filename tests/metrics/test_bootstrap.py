import numpy as np
import pytest
from scipy import stats

from twinned.evaluation.fitting import fit_calibration
from twinned.evaluation.verification import evaluate_verification
from twinned.metrics import bootstrap
from twinned.metrics.bootstrap import (
    _tail,
    interval,
    mean_interval,
    p_value,
    paired_replicates,
    rate_interval,
    replicates,
)
from twinned.metrics.comparisons import compare_pairs
from twinned.metrics.roc import Roc


def by_loops(comparisons, draws):
    """FAR and FRR at every distinct distance, with copies of the comparisons of the drawn classes."""
    weight = {c: draws.count(c) for c in range(comparisons.n_classes)}
    rows = []
    for d, s, a, b in zip(comparisons.distance, comparisons.same, comparisons.left, comparisons.right):
        rows += [(d, s)] * (weight[a] if a == b else weight[a] * weight[b])
    distance, same = (np.array(column) for column in zip(*rows))
    return [
        (np.mean(distance[~same] <= t), np.mean(distance[same] > t)) for t in np.unique(comparisons.distance)
    ]


def test_replicates_equal_explicit_resampling(world):
    found = world(classes=5, images=3)
    curves = list(replicates(found, count=6, seed=4))
    random = np.random.default_rng(4)
    draws = [random.integers(5, size=5).tolist() for _ in range(6)]
    assert len(curves) == 6
    for curve, drawn in zip(curves, draws):
        expected = by_loops(found, drawn)
        np.testing.assert_allclose(np.stack([curve.far, curve.frr], 1)[1:], expected, atol=1e-12)


def test_paired_replicates_draw_the_same_classes(world):
    a, b = world(0, classes=6, images=3), world(1, classes=6, images=3)
    pairs = list(paired_replicates(a, b, count=8, seed=4))
    for side, comparisons in enumerate((a, b)):
        alone = list(replicates(comparisons, count=8, seed=4))
        assert [pair[side].eer() for pair in pairs] == [curve.eer() for curve in alone]


@pytest.mark.parametrize("classes", [1, 2, 30])
def test_paired_replicates_of_equal_orders_have_no_difference(classes):
    random = np.random.default_rng(0)
    distance, same = random.random(60).astype(np.float32), random.random(60) < 0.4
    names = random.integers(classes, size=(2, 60))
    a = compare_pairs(distance, same, left=names[0], right=names[1])
    b = compare_pairs(2 * distance, same, left=names[0], right=names[1])
    assert all(x.eer() == y.eer() for x, y in paired_replicates(a, b, count=30))


@pytest.mark.parametrize("units", [12, 1000])
def test_p_value_is_below_5_percent_iff_interval_excludes_0(units):
    random = np.random.default_rng(units)
    for shift in np.linspace(-5, 5, 101):
        drawn = random.normal(shift, 1, 199)
        low, high = interval(drawn, figure=float(np.median(drawn)), units=units)
        assert (p_value(drawn, units=units) < 0.05) == (low > 0 or high < 0)
    assert p_value(np.zeros(50), units=units) == 1
    assert p_value(-drawn, units=units) == pytest.approx(p_value(drawn, units=units))


def test_p_value_matches_the_normal_distribution():
    drawn = stats.norm.ppf((np.arange(99_999) + 0.5) / 99_999, loc=2)
    assert p_value(drawn, units=10**9) == pytest.approx(2 * stats.norm.sf(2), rel=1e-3)


def test_forgery_has_the_weight_of_its_writer():
    # A comparison of a class with its forgery has weight w, not w * w.
    distance, same = [1, 2, 1, 2, 1, 2], [True, False] * 3
    writers = [0, 0, 1, 1, 2, 2]
    found = compare_pairs(distance, same, left=writers, right=writers, skilled=np.logical_not(same))
    for curve in replicates(found, count=20):
        assert curve.far.tolist() == [0, 0, 1]
        assert curve.frr.tolist() == [1, 0, 0]


def test_thinned_replicates_agree_with_full_ones(world, monkeypatch):
    found = world(classes=40, images=10)  # 79,800 comparisons
    full = list(replicates(found, count=30))
    monkeypatch.setattr(bootstrap, "_KEPT", 40_000)
    thin = list(replicates(found, count=30))
    for figure in (Roc.eer, Roc.auc, Roc.d_prime, lambda r: r.tar_at_far(0.01)):
        a, b = (np.array([figure(curve) for curve in curves]) for curves in (full, thin))
        assert np.sqrt(np.mean((a - b) ** 2)) < 0.2 * a.std()


@pytest.mark.slow
def test_intervals_cover_the_true_value(world):
    """Of 60 samples, about 57 have a 95 % interval that contains the true value."""
    truth = world(seed=999, classes=200, images=5)
    calibration = fit_calibration(truth, bootstrap=2)
    expected = evaluate_verification(truth, calibration, bootstrap=2)
    held = {"eer": 0, "far": 0, "frr": 0, "auc": 0}
    for seed in range(60):
        found = evaluate_verification(world(seed=seed, classes=15), calibration, bootstrap=80, seed=seed)
        for name in held:
            low, high = getattr(found, f"{name}_ci")
            held[name] += low <= getattr(expected, name) <= high
    assert all(count >= 50 for count in held.values()), held


def test_two_classes_resample_comparisons(world):
    found = world(classes=2, images=6)
    figures = {round(curve.d_prime(), 6) for curve in replicates(found, count=30)}
    assert len(figures) == 30
    assert bootstrap.class_count(found) == len(found)


def test_seed_determines_the_replicates(world):
    first, again, other = (next(replicates(world(), count=1, seed=s)).far for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert first.tolist() != pytest.approx(other.tolist())


@pytest.mark.parametrize("units", [5, 10, 30, 1000])
def test_tail_matches_student_t(units):
    wide = stats.t.ppf(0.975, units - 1) * np.sqrt(units / (units - 1))
    assert stats.norm.ppf(1 - _tail(units)) == pytest.approx(wide, rel=0.02)


def test_interval_contains_the_figure_and_ignores_nan():
    assert interval([1.0, 2.0, np.nan], figure=5.0, units=50)[1] == 5.0
    assert interval([np.nan], figure=0.5, units=50) is None
    assert interval([0.1, 0.2], figure=0.15, units=1) is None
    assert interval([0.1, 0.2], figure=np.nan, units=9) is None


def test_perfect_rate_has_a_nonzero_interval():
    low, high = rate_interval([1.0] * 100, figure=1.0, units=50, trials=60)
    assert high == 1.0
    assert low == pytest.approx(1 - 3 / 60, abs=0.003)  # rule of three


def test_mean_interval_resamples_clusters():
    # 40 clusters of 50 equal values are as uncertain as 40 values.
    random = np.random.default_rng(0)
    answer = random.random(40) < 0.7
    low, high = mean_interval(np.repeat(answer, 50), np.repeat(np.arange(40), 50))
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 40), rel=0.2)
    by_value = mean_interval(np.repeat(answer, 50), np.arange(2000))
    assert by_value[1] - by_value[0] < 0.3 * (high - low)


def test_mean_interval_resamples_the_alphabets_of_runs():
    random = np.random.default_rng(0)
    rate = np.repeat(random.uniform(0.6, 1, 10), 2)
    correct = random.random((20, 20)) < rate[:, None]
    low, high = mean_interval(correct.ravel(), np.repeat(np.arange(10), 40))
    spread = correct.reshape(10, -1).mean(axis=1).std(ddof=1) / np.sqrt(10)
    assert high - low == pytest.approx(2 * 2.26 * spread, rel=0.25)


def test_mean_interval_covers_the_true_mean():
    held = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        rate = random.beta(4, 1, size=12)  # mean 0.8
        answers = random.random((12, 10)) < rate[:, None]
        ci = mean_interval(answers.ravel(), np.repeat(np.arange(12), 10), replicates=300, seed=seed)
        held += ci[0] <= 0.8 <= ci[1]
    assert 0.88 <= held / 200 <= 0.99


def test_mean_interval_of_one_cluster_is_none():
    assert mean_interval([1, 0], ["a", "a"]) is None
    assert mean_interval([], []) is None
