"""Warnings about a threshold and their codes."""

import numpy as np
import pytest

from twinned.evaluation.fitting import fit_calibration, threshold_warnings
from twinned.metrics.comparisons import compare_pairs

RNG = np.random.default_rng(0)


def fitted(classes: int, images: int, apart: float, **given):
    """Draw comparisons of some classes and fit a calibration."""
    label = np.repeat(np.arange(classes), images)
    left, right = np.triu_indices(len(label), 1)
    same = label[left] == label[right]
    distance = RNG.normal(np.where(same, 1.0, 1.0 + apart), 0.2).clip(0)
    found = compare_pairs(distance, same, left=label[left], right=label[right])
    return fit_calibration(found, bootstrap=20, **given), found


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (fitted(3, 12, 1.0), "rests on 3 classes, too few to be reliable"),
        (fitted(8, 3, 1.0), "rests on 24 genuine comparisons"),
        (fitted(8, 12, 0.0), "is near chance: the equal error rate on its classes is 0."),
        (fitted(8, 12, 1.0, far=0.001), "which 4,032 impostor comparisons do not support: 30,000 are needed"),
        (fitted(8, 12, 1.0, unseen_classes=False), "is from classes that training saw"),
    ],
)
def test_each_threshold_warning_has_a_code(made, words):
    warnings = [note for note in threshold_warnings(*made) if words in note.text]
    assert len(warnings) == 1
    assert all(note.code.startswith("threshold-") for note in threshold_warnings(*made))


def test_reliable_threshold_has_no_warnings():
    assert list(threshold_warnings(*fitted(8, 12, 1.0))) == []
