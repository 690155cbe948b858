"""Advice on a model and on an evaluation."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from twinned.evaluation.advice import judgement, on_evaluation, on_model
from twinned.evaluation.verification import VerificationResult


def fit(**changes: Any) -> Any:
    facts = {"eer": 0.02, "far": None, "supported": True, "n_classes": 40, "eer_ci": (0.01, 0.03)}
    return SimpleNamespace(**facts | changes)


@pytest.mark.parametrize(
    ("eer", "start"),
    [
        (0.0, "Very good: fewer than 1 of 1,000"),
        (0.025, "Good: about 1 of 40 answers"),
        (0.1, "Usable: about 1 of 10 answers"),
        (0.2, "Weak: about 1 of 5 answers"),
        (0.45, "Weak: the answers are nearly guesses"),
    ],
)
def test_judgement_describes_the_error_rate(eer: float, start: str) -> None:
    assert judgement(eer).startswith(start)


def test_a_model_without_training_steps_does_not_improve_with_time() -> None:
    assert judgement(0.05).endswith("Training on more images or for longer would help")
    assert judgement(0.05, can_train_longer=False).endswith("Training on more images would help")
    assert "longer" not in judgement(0.2, can_train_longer=False)


def test_no_errors_on_few_images_are_not_very_good() -> None:
    assert judgement(0.0, (0.0, 0.15)).startswith("Usable: no wrong answers on few images, so up to 1 of 7")
    assert judgement(0.0, (0.0, 0.0005)).startswith("Very good")


@pytest.mark.parametrize(
    ("changes", "unseen", "words"),
    [
        ({}, False, "used in training"),
        ({"n_classes": 8}, True, "only 8 classes"),
        ({"supported": False}, None, "only 40 classes"),
    ],
)
def test_a_model_with_a_doubtful_threshold_is_to_be_calibrated(
    changes: dict[str, Any], unseen: bool | None, words: str
) -> None:
    judged, doubt, measure = on_model(fit(**changes), unseen=unseen)
    assert judged.startswith("Good")
    assert words in doubt
    assert "twinned calibrate" in doubt
    assert "twinned evaluate" in measure


def test_a_model_without_a_threshold_is_to_be_calibrated() -> None:
    assert "twinned calibrate" in on_model(None, unseen=None)[-1]


def test_a_good_model_is_to_be_measured_only() -> None:
    assert len(on_model(fit(), unseen=True)) == 2


def test_advice_on_an_evaluation_names_each_problem() -> None:
    counts = {"n_genuine": 1000, "n_impostor": 100_000, "n_classes": 50}
    good = VerificationResult(threshold=0.5, impostors="all", far=0.02, frr=0.02, eer=0.02, **counts)
    assert on_evaluation(good, fit(), seen=0)[0].startswith("Good")
    lenient = on_evaluation(replace(good, far=0.2, frr=0.001), fit(), seen=3)
    assert "3 of these were used in training" in lenient[1]
    assert "too lenient" in lenient[2]
    strict = on_evaluation(replace(good, far=0.001, frr=0.2, n_classes=5), fit(), seen=0)
    assert "too strict" in strict[1]
    assert "more classes" in strict[2]
    asked = on_evaluation(replace(good, far=0.001, frr=0.2), fit(far=0.001), seen=0)
    assert not any("too strict" in text for text in asked)  # the price of a rare false accept
    unknown = on_evaluation(good, fit(), seen=0, open_set={"fnir": 0.9, "target": 0.01})
    assert "90% of the images of enrolled classes are unknown" in unknown[1]
