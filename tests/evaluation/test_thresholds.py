import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from twinned.evaluation.calibration import Isotonic, Logistic
from twinned.evaluation.thresholds import cllr, fit_evidence, fit_isotonic, fit_logistic, min_cllr
from twinned.metrics.comparisons import compare_pairs
from twinned.metrics.roc import tally


def noisy(seed=0, n=2000, share=0.2):
    random = np.random.default_rng(seed)
    same = random.random(n) < share
    return np.round(random.gamma(4, 0.2, n) + 0.6 * ~same, 2), same


def test_logistic_matches_scikit_learn():
    distance, same = noisy()
    n_genuine, n_impostor = same.sum(), (~same).sum()
    line = fit_logistic(tally(distance, same))
    # Soft targets of Platt: each comparison occurs as same and as different.
    up, down = (n_genuine + 1) / (n_genuine + 2), 1 / (n_impostor + 2)
    weight = np.where(same, 0.5 / n_genuine, 0.5 / n_impostor) * 1e4
    target = np.where(same, up, down)
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    peer.fit(
        np.r_[distance, distance][:, None],
        np.r_[np.ones(2000), np.zeros(2000)],
        np.r_[weight * target, weight * (1 - target)],
    )
    assert line.slope == pytest.approx(peer.coef_[0, 0], rel=1e-4)
    assert line.intercept == pytest.approx(peer.intercept_[0], rel=1e-4)


def test_isotonic_matches_scikit_learn():
    distance, same = noisy()
    curve = fit_isotonic(tally(distance, same))
    weight = np.where(same, 1 / same.sum(), 1 / (~same).sum())
    expected = IsotonicRegression(increasing=False).fit(distance, same, weight).predict(distance)
    odds = np.exp(curve.llr(distance))
    bound = np.exp([-np.log(same.sum() + 1), np.log((~same).sum() + 1)])
    np.testing.assert_allclose(odds, (expected / np.maximum(1 - expected, 1e-300)).clip(*bound), rtol=1e-9)


@pytest.mark.parametrize("fit", [fit_logistic, fit_isotonic])
def test_separable_data_give_finite_bounded_ratios(fit):
    distance, same = np.r_[np.zeros(50), np.ones(70)], np.r_[np.ones(50, bool), np.zeros(70, bool)]
    llr = fit(tally(distance, same)).llr(np.array([0.0, 0.5, 1.0]))
    assert np.all(np.isfinite(llr))
    assert llr[0] > 3 > -3 > llr[2]
    assert abs(llr).max() < np.log(75)  # bounded by the number of comparisons


def test_evidence_does_not_increase_with_distance():
    distance, same = noisy()
    for fit in (fit_logistic, fit_isotonic):
        upside_down = fit(tally(distance, ~same)).llr(np.linspace(0, 5, 500))
        assert np.all(np.diff(upside_down) <= 0)
    assert fit_logistic(tally(distance, ~same)).slope == 0


def test_equal_distances_give_a_ratio_of_one():
    for fit in (fit_logistic, fit_isotonic):
        assert fit(tally([0.5] * 6, [True, False, False] * 2)).llr(0.5) == pytest.approx(0)


def test_cllr_equals_a_loop():
    llr, same = np.array([2.0, -1.0, 0.5, -3.0, 1.0]), np.array([True, True, False, False, False])
    genuine = [np.log2(1 + 1 / np.exp(x)) for x in llr[same]]
    impostor = [np.log2(1 + np.exp(x)) for x in llr[~same]]
    assert cllr(llr, same, ~same) == pytest.approx((np.mean(genuine) + np.mean(impostor)) / 2)


def test_min_cllr_is_the_minimum_over_monotone_functions():
    distance, same = noisy()
    weight = np.where(same, 1 / same.sum(), 1 / (~same).sum())
    best = IsotonicRegression(increasing=False).fit(distance, same, weight).predict(distance)
    with np.errstate(divide="ignore"):
        expected = cllr(np.log(best) - np.log(1 - best), same, ~same)
    assert min_cllr(tally(distance, same)) == pytest.approx(expected)
    assert min_cllr(tally(distance, same)) < cllr(
        fit_logistic(tally(distance, same)).llr(distance), same, ~same
    )
    assert min_cllr(tally([0, 0, 1, 1], [True, True, False, False])) == 0
    assert min_cllr(tally([1, 1], [True, False])) == 1


def test_cross_validation_chooses_the_method(world):
    straight, cost, least = fit_evidence(world(classes=30))
    assert cost is not None
    assert 0 < least <= cost < 1
    # Isotonic regression fits a step better than a line.
    random = np.random.default_rng(0)
    classes = random.integers(40, size=(2, 30_000))
    same = classes[0] == classes[1]
    same[:15_000], classes[1, :15_000] = True, classes[0, :15_000]
    inner = np.where(random.random(30_000) < 0.9, random.random(30_000), 20 * random.random(30_000))
    outer = np.where(random.random(30_000) < 0.9, 1 + 19 * random.random(30_000), random.random(30_000))
    stepped = compare_pairs(np.where(same, inner, outer), same, left=classes[0], right=classes[1])
    assert fit_evidence(stepped)[0].method == "isotonic"
    assert straight.method in ("logistic", "isotonic")


def test_cross_validated_cllr_equals_a_loop():
    """Computed per fold for both methods."""
    random = np.random.default_rng(3)
    left, right = random.integers(12, size=(2, 3000))
    same = left == right
    distance = np.round(random.normal(size=3000) + 1.5 * ~same + 3, 2).astype(np.float32)
    pairs = compare_pairs(distance, same, left=left, right=right)
    fit, cost, least = fit_evidence(pairs, seed=5)
    fold = np.empty(12, int)
    fold[np.random.default_rng(5).permutation(12)] = np.arange(12) % 5
    llr, truth = {"logistic": [], "isotonic": []}, []
    for k in range(5):
        others, own = (fold[left] != k) & (fold[right] != k), (fold[left] == k) & (fold[right] == k)
        for name, method in (("logistic", fit_logistic), ("isotonic", fit_isotonic)):
            llr[name].extend(method(tally(distance[others], same[others])).llr(distance[own]))
        truth.extend(same[own])
    truth = np.array(truth)
    costs = {name: cllr(np.array(values), truth, ~truth) for name, values in llr.items()}
    assert fit.method == min(costs, key=costs.get)
    assert cost == pytest.approx(min(costs.values()))
    inside = fold[left] == fold[right]  # the minimum is over the same comparisons
    assert least == pytest.approx(min_cllr(tally(distance[inside], same[inside])))
    assert least <= cost


def test_too_few_classes_for_folds_use_logistic(world):
    fit, cost, least = fit_evidence(world(classes=3))
    assert (fit.method, cost) == ("logistic", None)
    assert least == min_cllr(tally(world(classes=3).distance, world(classes=3).same))


def test_invalid_stored_evidence_is_refused():
    for bad in ({"intercept": np.nan, "slope": -1}, {"intercept": 0, "slope": 1}):
        with pytest.raises(ValidationError):
            Logistic(**bad)
    for knots, values in (
        ((0, 1), (1, 2)),
        ((1, 0), (2, 1)),
        ((0, 1), (1,)),
        ((), ()),
        ((0, np.inf), (1, 0)),
    ):
        with pytest.raises(ValidationError):
            Isotonic(knots=knots, values=values)
