import numpy as np
import pytest
from scipy import stats

from twinned.metrics.intervals import (
    _tail,
    interval,
    mean_interval,
    rate_interval,
)


@pytest.mark.parametrize("units", [5, 10, 30, 1000])
def test_tail_follows_student(units):
    wide = stats.t.ppf(0.975, units - 1) * np.sqrt(units / (units - 1))
    assert stats.norm.ppf(1 - _tail(units)) == pytest.approx(wide, rel=0.02)


def test_interval_holds_the_figure_and_leaves_out_nan():
    assert interval([1.0, 2.0, np.nan], figure=5.0, units=50)[1] == 5.0
    assert interval([np.nan], figure=0.5, units=50) is None
    assert interval([0.1, 0.2], figure=0.15, units=1) is None
    assert interval([0.1, 0.2], figure=np.nan, units=9) is None


def test_a_perfect_share_never_looks_certain():
    low, high = rate_interval([1.0] * 100, figure=1.0, units=50, trials=60)
    assert high == 1.0
    assert low == pytest.approx(1 - 3 / 60, abs=0.003)  # rule of three


def test_mean_interval_resamples_clusters_not_values():
    # 40 clusters whose 50 values are all alike: as uncertain as 40 values, not 2000.
    random = np.random.default_rng(0)
    answer = random.random(40) < 0.7
    low, high = mean_interval(np.repeat(answer, 50), np.repeat(np.arange(40), 50))
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 40), rel=0.2)
    by_value = mean_interval(np.repeat(answer, 50), np.arange(2000))
    assert by_value[1] - by_value[0] < 0.3 * (high - low)


def test_mean_interval_covers():
    held = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        rate = random.beta(4, 1, size=12)  # mean 0.8
        answers = random.random((12, 10)) < rate[:, None]
        ci = mean_interval(answers.ravel(), np.repeat(np.arange(12), 10), replicates=300, seed=seed)
        held += ci[0] <= 0.8 <= ci[1]
    assert 0.88 <= held / 200 <= 0.99


def test_mean_interval_of_one_cluster_or_none():
    assert mean_interval([1, 0], ["a", "a"]) is None
    assert mean_interval([], []) is None
