import json

import numpy as np
import pytest
from pydantic import ValidationError

from twinned.errors import DataError, SettingError
from twinned.evaluation.calibration import Calibration
from twinned.evaluation.fitting import fit_calibration
from twinned.evaluation.thresholds import supported as supported_
from twinned.evaluation.verification import reliability
from twinned.metrics.comparisons import compare_pairs
from twinned.metrics.roc import roc


def test_threshold_is_at_the_eer_or_the_requested_far(world):
    found = world(classes=40)
    equal, rare = fit_calibration(found), fit_calibration(found, far=0.01)
    curve = roc(found.distance, found.same)
    assert equal.threshold == curve.threshold_at_eer()
    assert rare.threshold == curve.threshold_at_far(0.01)
    assert (equal.far, rare.far) == (None, 0.01)
    assert equal.eer == curve.eer()
    for calibration in (equal, rare):
        low, high = calibration.threshold_ci
        assert low < calibration.threshold < high
        assert (calibration.n_genuine, calibration.n_impostor) == (len(found.genuine), len(found.impostor))
        assert calibration.n_classes == 40
    assert 0 < equal.min_cllr < equal.cllr < 1


def test_far_is_supported_by_30_errors(world):
    found = world(classes=20)  # 4,750 impostor comparisons
    supported, not_supported = (fit_calibration(found, far=far, bootstrap=5) for far in (0.01, 0.001))
    assert (supported.supported, supported.impostors_needed) == (True, 3_000)
    assert (not_supported.supported, not_supported.impostors_needed) == (False, 30_000)
    assert supported_(0.001, 30_000)
    assert not supported_(0.001, 29_999)
    perfect = fit_calibration(compare_pairs([0, 0, 1, 1, 1], [True, True, False, False, False]))
    assert (perfect.eer, perfect.supported, perfect.impostors_needed) == (0, False, 90)
    # the number needed depends on the rate only
    for far, needed in ((0.0001, 300_000), (1e-310, 30 * 10**12)):
        asked = fit_calibration(found, far=far, bootstrap=5)
        assert (asked.supported, asked.impostors_needed) == (False, needed)
        assert not supported_(far, 30_000)


def test_decisions_and_probability_follow_the_distance(world):
    calibration = fit_calibration(world())
    distance = np.linspace(0, 8, 300).astype(np.float32)
    p = calibration.probability(distance)
    assert np.all(np.diff(p) <= 0)
    assert np.all((p >= 0) & (p <= 1))
    assert np.array_equal(calibration.same(distance), distance.astype(float) <= calibration.threshold)
    assert calibration.same(calibration.threshold)
    assert calibration.probability(0.3).shape == ()


def test_prior_shifts_the_log_odds(world):
    calibration = fit_calibration(world())
    distance = np.linspace(1, 4, 9)
    even, rare = calibration.probability(distance), calibration.probability(distance, prior=0.01)
    np.testing.assert_allclose(rare / (1 - rare), even / (1 - even) / 99)
    stored = fit_calibration(world(), prior=0.01)
    np.testing.assert_allclose(stored.probability(distance), rare)


def test_probability_is_calibrated_on_new_classes(world):
    calibration = fit_calibration(world(seed=0, classes=120), bootstrap=2)
    found = reliability(world(seed=1, classes=120), calibration)
    many = found.comparisons > 300
    assert np.count_nonzero(many) >= 8
    assert np.abs(found.stated - found.observed)[many].max() < 0.1


def test_threshold_is_fitted_on_forgeries():
    random = np.random.default_rng(0)
    writer = np.tile(np.arange(10), 60)
    kind = np.repeat([0, 1, 2], 200)  # genuine, random, skilled
    distance = random.normal(size=600) + np.array([0, 6, 2])[kind] + 5
    right = np.where(kind == 1, (writer + 1) % 10, writer)
    found = compare_pairs(distance, kind == 0, left=writer, right=right, skilled=kind == 2)
    calibration = fit_calibration(found)
    hard = kind != 1
    assert calibration.threshold == roc(found.distance[hard], kind[hard] == 0).threshold_at_eer()
    assert calibration.n_impostor == 200


def test_json_round_trip_and_validation(world):
    calibration = fit_calibration(world(), unseen_classes=False)
    text = calibration.model_dump_json()
    assert Calibration.model_validate_json(text) == calibration
    assert "NaN" not in text
    assert not calibration.unseen_classes
    good = json.loads(text)
    damaged = {
        "threshold": [float("nan"), float("inf"), "far"],
        "threshold_ci": [[2.0, 1.0], [float("nan"), 1.0], [1.0]],
        "far": [0, 1, 2],
        "prior": [0, 1],
        "eer": [-0.1, 1.1],
        "n_genuine": [0, -1],
        "evidence": [{"method": "guess"}, {"method": "logistic", "intercept": 0.0, "slope": 2.0}],
        "unknown": [1],
    }
    for name, values in damaged.items():
        for value in values:
            with pytest.raises(ValidationError):
                Calibration.model_validate({**good, name: value})


def test_seed_determines_the_calibration(world):
    assert fit_calibration(world(), seed=3) == fit_calibration(world(), seed=3)
    assert fit_calibration(world(), seed=3).threshold_ci != fit_calibration(world(), seed=4).threshold_ci


def test_invalid_data_and_settings_are_refused(world):
    found = world()
    with pytest.raises(DataError, match="0 genuine"):
        fit_calibration(found.subset(~found.same))
    with pytest.raises(DataError, match="0 impostor"):
        fit_calibration(found.subset(found.same))
    with pytest.raises(SettingError, match="false accept rate"):
        fit_calibration(found, far=1.5)
    with pytest.raises(SettingError, match="prior"):
        fit_calibration(found, prior=0)
    with pytest.raises(SettingError, match="prior"):
        fit_calibration(found, bootstrap=1).probability(1.0, prior=1.0)
