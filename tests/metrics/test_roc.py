import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from twinned.errors import DataError, SettingError
from twinned.metrics.roc import (
    auc,
    best_threshold,
    coarse,
    eer,
    lfw_folds,
    pooled,
    roc,
    roc_of,
    tally,
)

# Few distinct distances: ties everywhere.
tied = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({same for _, same in pairs}) == 2
)


def split(pairs):
    distance, same = zip(*pairs)
    return np.array(distance, dtype=np.float32) / 4, np.array(same)


@given(tied)
@settings(deadline=None)
def test_roc_with_ties_equals_a_loop(pairs):
    distance, same = split(pairs)
    curve = roc(distance, same)
    assert curve.threshold.tolist() == [-np.inf, *sorted(set(distance.tolist()))]
    for threshold, far, frr in zip(curve.threshold, curve.far, curve.frr):
        assert far == np.mean([d <= threshold for d, s in zip(distance, same) if not s])
        assert frr == np.mean([d > threshold for d, s in zip(distance, same) if s])
    assert (curve.far[0], curve.frr[0], curve.far[-1], curve.frr[-1]) == (0, 1, 1, 0)


@given(tied)
@settings(deadline=None)
def test_auc_equals_pair_counts_and_scikit_learn(pairs):
    distance, same = split(pairs)
    wins = [(g < i) + 0.5 * (g == i) for g in distance[same] for i in distance[~same]]
    assert auc(distance, same) == pytest.approx(np.mean(wins))
    assert auc(distance, same) == pytest.approx(roc_auc_score(same, -distance))


@given(tied)
@settings(deadline=None)
def test_eer_lies_on_the_curve(pairs):
    distance, same = split(pairs)
    far, tpr, _ = roc_curve(same, -distance, drop_intermediate=False)
    # The curve is monotone, so bisection finds the point where both rates are equal.
    t = np.arange(len(far))
    low, high = 0.0, len(far) - 1.0
    for _ in range(60):
        middle = (low + high) / 2
        below = np.interp(middle, t, far) < np.interp(middle, t, 1 - tpr)
        low, high = (middle, high) if below else (low, middle)
    assert eer(distance, same) == pytest.approx(np.interp(high, t, far), abs=1e-9)


@given(tied, st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.9]))
@settings(deadline=None)
def test_thresholds_equal_exhaustive_search(pairs, target):
    distance, same = split(pairs)
    curve = roc(distance, same)
    threshold = curve.threshold_at_far(target)
    far, frr = curve.at(threshold)
    candidates = [-1.0, *np.unique(distance)]
    allowed = [c for c in candidates if np.mean(distance[~same] <= c) <= target]
    assert np.array_equal(distance <= threshold, distance <= max(allowed))
    assert curve.tar_at_far(target) == pytest.approx(1 - frr)
    assert far == np.mean(distance[~same] <= threshold)

    gaps = [abs(np.mean(distance[~same] <= c) - np.mean(distance[same] > c)) for c in candidates]
    far, frr = curve.at(curve.threshold_at_eer())
    assert abs(far - frr) == pytest.approx(min(gaps))

    best = best_threshold(distance, same)
    accuracy = [np.mean((distance <= c) == same) for c in candidates]
    assert np.mean((distance <= best) == same) == max(accuracy)


def test_threshold_lies_between_distances():
    distance, same = np.array([0.1, 0.2, 0.8, 0.9]), np.array([True, True, False, False])
    curve = roc(distance, same)
    assert curve.threshold_at_eer() == pytest.approx(0.5)
    assert curve.eer() == 0
    assert curve.threshold_at_far(0.01) == pytest.approx(0.5)
    # No impostor is accepted, even at distance 0.
    assert 0 < roc([0.2, 0.4], [False, True]).threshold_at_far(0.1) < 0.2
    assert roc([0.0, 0.4], [False, True]).threshold_at_far(0.1) < 0


def test_d_prime_matches_its_definition():
    random = np.random.default_rng(0)
    genuine, impostor = random.normal(1, 0.3, 500), random.normal(3, 0.9, 700)
    expected = (impostor.mean() - genuine.mean()) / np.sqrt((genuine.var() + impostor.var()) / 2)
    curve = roc(np.r_[genuine, impostor], np.r_[np.ones(500, bool), np.zeros(700, bool)])
    assert curve.d_prime() == pytest.approx(expected)


def test_coarse_and_thinned_curves_are_subsets():
    random = np.random.default_rng(0)
    same = random.random(200_000) < 0.1
    distance = random.normal(size=200_000) + 2 * ~same
    whole, thin = roc(distance, same), roc(distance, same).thinned(500)
    joined = roc_of(coarse(tally(distance, same)))
    for curve, most, near in ((thin, 520, 2e-4), (joined, 4100, 1e-5)):
        assert len(curve.threshold) < most
        rows = np.searchsorted(whole.threshold, curve.threshold)
        assert np.array_equal(whole.far[rows], curve.far)
        np.testing.assert_allclose(whole.frr[rows], curve.frr, atol=1e-12)
        assert curve.auc() == pytest.approx(whole.auc(), abs=near)
    assert joined.eer() == pytest.approx(whole.eer(), abs=1e-3)
    # Low rates keep their points.
    assert np.count_nonzero((joined.far > 0) & (joined.far < 1e-3)) > 100


@given(tied)
@settings(deadline=None)
def test_pooling_is_monotone_and_keeps_all_counts(pairs):
    distance, same = split(pairs)
    blocks = pooled(tally(distance, same))
    share = blocks.genuine / (blocks.genuine + blocks.impostor)
    assert np.all(np.diff(share) < 0)
    assert (blocks.genuine.sum(), blocks.impostor.sum()) == (same.sum(), (~same).sum())


def test_lfw_folds_equal_a_loop():
    random = np.random.default_rng(0)
    same, fold = np.tile([True, False], 300), np.repeat(np.arange(10), 60)
    distance = random.normal(size=600) + 1.5 * ~same
    found = lfw_folds(distance, same, fold)
    for k in range(10):
        others = fold != k
        scores = [np.mean((distance[others] <= t) == same[others]) for t in distance[others]]
        threshold = distance[others][int(np.argmax(scores))]
        # The threshold may differ within a gap between distances.
        assert found.accuracies[k] == pytest.approx(
            np.mean((distance[~others] <= threshold) == same[~others]), abs=1.5 / 60
        )
    assert found.mean == pytest.approx(found.accuracies.mean())
    assert found.standard_error == pytest.approx(np.std(found.accuracies, ddof=1) / np.sqrt(10))


def test_lfw_threshold_is_from_other_folds():
    # The best threshold is 2.5 on fold b and 0.5 on the others, which rejects the genuine pairs of b.
    distance, same = [0, 1, 0, 1, 2, 3], [True, False] * 3
    assert lfw_folds(distance, same, list("aaccbb")).accuracies[1] == 0.5


def test_invalid_arguments_are_refused():
    with pytest.raises(DataError, match="2 and 0"):
        roc([1, 2], [True, True])
    with pytest.raises(DataError, match="NaN"):
        roc([1, np.nan], [True, False])
    with pytest.raises(DataError, match="Each distance needs one"):
        roc([1, 2, 3], [True, False])
    with pytest.raises(DataError, match="two folds"):
        lfw_folds([1, 2], [True, False], [0, 0])
    for far in (0, 1, -1, np.nan):
        with pytest.raises(SettingError, match="between 0 and 1"):
            roc([1, 2], [True, False]).threshold_at_far(far)
