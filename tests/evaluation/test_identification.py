from functools import cache, partial

import numpy as np
import pytest
from pydantic import ValidationError

from twinned.distances import cosine
from twinned.errors import DataError, SettingError
from twinned.evaluation.calibration import Identification
from twinned.evaluation.identification import fit_identification
from twinned.metrics import open_set
from twinned.metrics.comparisons import compare_all, compare_pairs

from ..conftest import slow

distances = partial(cosine, pairwise=True)


def people(seed, count, images):
    random = np.random.default_rng(seed)
    scale = np.linspace(1, 0.2, 16)
    centres = np.repeat(random.normal(size=(count, 16)) * scale, images, axis=0)
    label = np.repeat(np.arange(count), images)
    return (centres + 0.6 * random.normal(size=centres.shape)).astype(np.float32), label


@cache
def fitted(seed, count, images, **options):
    return fit_identification(compare_all(*people(seed, count, images), distances, **options))


def achieved(table, labels, images, fpir, seed=0):
    """Mean FPIR over new galleries and unknown probes, at the threshold of the table."""
    threshold = table.at(labels, fpir, images)
    rates = []
    for k in range(6):
        gallery, _ = people(1000 + 10 * seed + k, labels, images)
        strangers, _ = people(2000 + 10 * seed + k, 400, 1)
        rates.append(np.mean(distances(strangers, gallery).min(axis=1) <= threshold))
    return np.mean(rates)


@pytest.mark.parametrize(("labels", "images"), [(1, 1), (20, 5), *slow((20, 1), (60, 3))])
def test_fpir_is_near_the_target_within_held_out_sizes(labels, images):
    """The mean rate of four calibrations is near the target."""
    for fpir in (0.02, 0.1):
        rates = [achieved(fitted(seed, 100, 8), labels, images, fpir, seed) for seed in range(4)]
        assert 0.5 * fpir < np.mean(rates) < 1.3 * fpir


def test_fpir_is_below_the_target_beyond_held_out_sizes():
    """With eight people, the mean rate is below the target."""
    few = [fitted(seed, 8, 10) for seed in range(6)]
    for labels, images in ((20, 1), (50, 1), (50, 5), (500, 1)):
        rates = [achieved(table, labels, images, 0.01, seed) for seed, table in enumerate(few)]
        assert np.mean(rates) < 0.01
        assert max(rates) < 0.04


def test_sampled_comparisons_give_nearly_the_same_threshold():
    whole, some = (fitted(0, 150, 6, limit=limit) for limit in (10_000_000, 60_000))
    assert some.images == (1,)
    for labels in (1, 10, 30):
        assert some.at(labels, 0.05) == pytest.approx(whole.at(labels, 0.05), rel=0.05)


def test_threshold_decreases_with_gallery_size_images_and_rate():
    table = fitted(0, 30, 8)
    by_size = [table.at(n, 0.01) for n in (1, 2, 3, 7, 20, 29, 30, 31, 100, 10_000, 10_000_000)]
    by_rate = [table.at(20, rate) for rate in (0.5, 0.1, 0.03, 0.01, 1e-3, 1e-5, 1e-6, 1e-9)]
    for falling in (by_size, by_rate, [table.at(20, 0.01, k) for k in (1, 2, 4, 8, 80)]):
        assert np.all(np.diff(falling) <= 0)
        assert np.all(np.array(falling) > 0)
    assert by_size[0] > by_size[4] > by_size[-1]


def test_pair_lists_and_ties_give_a_threshold():
    random = np.random.default_rng(0)
    same = random.random(2000) < 0.5
    table = fit_identification(compare_pairs(random.random(2000) + ~same, same))
    assert table.at(1, 0.1) == pytest.approx(1.1, abs=0.02)
    assert 0 < table.at(1000, 0.01) < 1.01
    assert np.isfinite(fit_identification(compare_pairs([0, 0], [True, False])).at(5, 0.01))


def test_forgeries_are_not_unknown_probes():
    vectors, label = people(0, 12, 6)
    forged = np.arange(len(label)) % 6 == 5
    vectors[forged] = vectors[np.flatnonzero(forged) - 1]  # perfect forgeries
    mixed = compare_all(vectors, label, distances, forgery=forged)
    genuine = compare_all(vectors[~forged], label[~forged], distances)
    assert fit_identification(mixed).at(5, 0.05) == pytest.approx(
        fit_identification(genuine).at(5, 0.05), rel=0.1
    )


def test_open_set_equals_a_loop():
    random = np.random.default_rng(0)
    distance, label = random.random(200), random.integers(20, size=200)
    enrolled, correct = label < 10, random.random(200) < 0.9
    found = open_set(distance, 0.4, label=label, enrolled=enrolled, correct=correct)
    assert found.fpir == np.mean([d <= 0.4 for d, e in zip(distance, enrolled) if not e])
    missed = [not (d <= 0.4 and c) for d, c, e in zip(distance, correct, enrolled) if e]
    assert found.fnir == np.mean(missed)
    assert found.fpir_ci[0] < found.fpir < found.fpir_ci[1]
    assert (found.n_strangers, found.n_enrolled) == ((~enrolled).sum(), enrolled.sum())
    nobody = open_set([0.1], 0.4, label=["a"], enrolled=[True], correct=[True])
    assert (nobody.fpir, nobody.fpir_ci, nobody.fnir) == (None, None, 0)


def test_invalid_arguments_are_refused():
    table = fitted(0, 5, 2)
    for labels, rate, images in ((0, 0.1, 1), (1, 0, 1), (1, 1, 1), (1, 0.1, 0)):
        with pytest.raises(SettingError, match="at least 1 label"):
            table.at(labels, rate, images)
    with pytest.raises(DataError, match="Each probe"):
        open_set([0.1], 0.4, label=["a", "b"], enrolled=[True], correct=[True])
    good = table.model_dump()
    assert Identification(**good) == table
    for name, bad in (("fpir", (0.1, 0.01)), ("images", (1, 2, 4, 8, 16)), ("labels", ((2,),))):
        with pytest.raises(ValidationError):
            Identification(**{**good, name: bad})
