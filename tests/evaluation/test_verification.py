import json

import numpy as np
import pytest

from twinned.errors import SettingError
from twinned.evaluation.fitting import fit_calibration
from twinned.evaluation.thresholds import cllr, min_cllr
from twinned.evaluation.verification import class_errors, evaluate_verification, mistakes, reliability
from twinned.metrics.comparisons import Comparisons, compare_pairs
from twinned.metrics.roc import roc, tally

KEYS = {
    *("eer", "eer_ci", "auc", "threshold", "far", "frr", "n_genuine", "n_impostor"),
    *("tar_at_far", "cllr", "min_cllr"),
}


@pytest.fixture
def calibration(world):
    return fit_calibration(world(seed=7, classes=30), bootstrap=5)


def test_figures_match_their_definitions(world, calibration):
    found = world(seed=1, classes=40)
    result = evaluate_verification(found, calibration)
    assert result.threshold == calibration.threshold
    assert result.far == np.mean(found.impostor.astype(float) <= calibration.threshold)
    assert result.frr == np.mean(found.genuine.astype(float) > calibration.threshold)
    curve = roc(found.distance, found.same)
    for name in ("eer", "auc", "d_prime"):
        assert getattr(result, name) == pytest.approx(getattr(curve, name)())
    assert result.min_cllr == pytest.approx(min_cllr(tally(found.distance, found.same)))
    assert result.cllr == pytest.approx(cllr(calibration.llr(found.distance), found.same, ~found.same))
    for far, row in result.tar_at_far.items():
        assert row.tar == pytest.approx(curve.tar_at_far(far))
        assert row.supported == (far * len(found.impostor) >= 30)
        assert row.ci[0] <= row.tar <= row.ci[1]
    for name in ("far", "frr", "eer", "auc", "d_prime"):
        low, high = getattr(result, f"{name}_ci")
        assert low < getattr(result, name) < high
    band = result.band
    assert np.all((band.low <= band.frr) & (band.frr <= band.high))


def test_json_keys_without_nan(world, calibration):
    found = evaluate_verification(world(), calibration, extra_far=0.05).to_json()
    assert set(found) >= KEYS
    assert [*found["tar_at_far"]] == ["0.1", "0.05", "0.01", "0.001", "0.0001"]
    assert found["impostors_needed"]["0.01"] == 3000
    assert set(found["tar_at_far"]["0.01"]) == {"tar", "ci", "supported"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("kind", [True, False])
def test_one_kind_of_comparison_gives_null_for_other_figures(world, calibration, kind):
    found = world()
    result = evaluate_verification(found.subset(found.same == kind), calibration).to_json()
    json.dumps(result, allow_nan=False)
    both = evaluate_verification(found, calibration)
    assert (result["frr"], result["far"]) == ((both.frr, None) if kind else (None, both.far))
    assert result["eer"] is result["auc"] is result["eer_ci"] is None
    assert set(result) >= KEYS


def test_zero_errors_have_wide_intervals(calibration):
    pairs = compare_pairs([0.0] * 50 + [99.0] * 50, [True] * 50 + [False] * 50)
    result = evaluate_verification(pairs, calibration)
    assert result.eer == result.far == result.frr == 0
    for ci in (result.eer_ci, result.far_ci, result.frr_ci):
        assert ci[0] == 0
        assert ci[1] == pytest.approx(3 / 50, abs=0.003)
    assert result.d_prime is None  # zero variance
    json.dumps(result.to_json(), allow_nan=False)


def test_random_and_skilled_impostors_are_reported_separately(world, calibration):
    found = world()
    forged = ~found.same & (found.left % 4 == 0)
    marked = Comparisons(found.distance, found.same, found.left, found.right, forged)
    result = evaluate_verification(marked, calibration).to_json()
    for kind, chosen in (("skilled", found.same | forged), ("random", ~forged)):
        alone = evaluate_verification(found.subset(chosen), calibration).to_json()
        assert {**alone, "impostors": kind} == result[kind]
    assert {k: result[k] for k in result["skilled"]} == result["skilled"]


def test_extra_far_is_validated(world, calibration):
    with pytest.raises(SettingError, match="between 0 and 1"):
        evaluate_verification(world(), calibration, extra_far=1)


def test_reliability_equals_a_loop(world, calibration):
    found = world(classes=10)
    got = reliability(found, calibration, bins=5)
    p = calibration.probability(found.distance)
    weight = np.where(found.same, 0.5 / len(found.genuine), 0.5 / len(found.impostor))
    rows = []
    for k in range(5):
        cell = (p >= k / 5) & ((p < (k + 1) / 5) | (k == 4))
        if cell.any():
            rows.append(
                (
                    np.average(p[cell], weights=weight[cell]),
                    np.average(found.same[cell], weights=weight[cell]),
                    cell.sum(),
                )
            )
    np.testing.assert_allclose(np.stack(got[:3], 1), rows)
    assert (got.low <= got.observed).all()
    assert (got.observed <= got.high).all()


def test_reliability_intervals_cover_new_classes(world, calibration):
    truth = reliability(world(seed=5, classes=200), calibration, bins=5, bootstrap=2).observed
    held = []
    for seed in range(20):
        got = reliability(world(seed=100 + seed, classes=12), calibration, bins=5, bootstrap=100)
        if len(got.observed) == 5:
            held.append((got.low <= truth) & (truth <= got.high))
    assert len(held) > 10
    assert np.mean(held) > 0.85


def test_class_errors_and_mistakes_equal_a_loop(world):
    found = world(classes=6, images=4)
    threshold = float(np.median(found.distance))
    errors = class_errors(found, threshold)
    for c, frr, far, n_genuine, n_impostor in zip(*errors):
        touches = (found.left == c) | (found.right == c)
        genuine, impostor = found.distance[touches & found.same], found.distance[touches & ~found.same]
        assert (n_genuine, n_impostor) == (len(genuine), len(impostor))
        assert (frr, far) == (np.mean(genuine > threshold), np.mean(impostor <= threshold))
    accepts, rejects = mistakes(found, threshold, count=5)
    wrong = np.sort(found.impostor[found.impostor <= threshold])[:5]
    assert found.distance[accepts].tolist() == wrong.tolist()
    assert not found.same[accepts].any()
    missed = np.sort(found.genuine[found.genuine > threshold])[::-1][:5]
    assert found.distance[rejects].tolist() == missed.tolist()


def test_mistakes_can_be_limited_per_class_pair():
    left = [0, 1, 0, 0, 2, 3, 3]
    right = [1, 0, 1, 2, 3, 3, 3]
    same = [False] * 5 + [True] * 2
    comparisons = compare_pairs([0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.8], same, left=left, right=right)
    assert mistakes(comparisons, 0.6, count=3).false_accepts.tolist() == [0, 1, 2]
    spread = mistakes(comparisons, 0.6, count=3, each=1)
    assert spread.false_accepts.tolist() == [0, 3, 4]
    assert spread.false_rejects.tolist() == [5]
    assert mistakes(comparisons, 0.6, count=9, each=2).false_accepts.tolist() == [0, 1, 3, 4]
