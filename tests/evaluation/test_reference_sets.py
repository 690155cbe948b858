import json
from functools import partial
from math import comb

import numpy as np
import pytest
from pydantic import ValidationError

from twinned.distances import euclidean
from twinned.evaluation import reference_sets as r
from twinned.evaluation.calibration import Calibration, ReferenceThresholds
from twinned.evaluation.fitting import fit_calibration
from twinned.evaluation.reference_sets import (
    ReferenceSet,
    compare_references,
    draw_reference_sets,
    fit_references,
)
from twinned.metrics.comparisons import compare_pairs
from twinned.metrics.roc import eer, roc

pytestmark = pytest.mark.usefixtures("few_replicates")
apart = partial(euclidean, pairwise=True)


def writers(seed: int = 0, classes: int = 24, images: int = 14) -> list[ReferenceSet]:
    """Draw writers of different variance, and forgeries at a distance relative to it."""
    random = np.random.default_rng(seed)
    centre, spread = random.normal(size=(classes, 8)), np.exp(0.8 * random.normal(size=(classes, 1)))
    label = np.repeat(np.arange(classes), 2 * images)
    forgery = np.tile(np.arange(2 * images) >= images, classes)
    off = random.normal(size=(len(label), 8)) + 1.8 * forgery[:, None]
    return draw_reference_sets(centre[label] * 4 + spread[label] * off, label, apart, forgery=forgery)


@pytest.fixture
def sets(made_up):
    return lambda *world: draw_reference_sets(*made_up(*world), apart)


def alone(drawn: list[ReferenceSet]) -> float:
    """Equal error rate with one reference."""
    genuine = np.concatenate([one.genuine[0, 1:] for one in drawn])
    impostor = np.concatenate([one.impostor[0] for one in drawn])
    return eer(np.concatenate([genuine, impostor]), np.arange(len(genuine) + len(impostor)) < len(genuine))


@pytest.mark.parametrize("scaled", [False, True])
def test_set_distance_equals_a_loop(scaled):
    random = np.random.default_rng(0)
    points, probes = random.normal(size=(4, 3)), random.normal(size=(5, 3))
    found = r.set_distance(apart(points, probes), apart(points, points), typical=0.7, scaled=scaled, images=4)
    for probe, distance in zip(probes, found, strict=True):
        to = [np.linalg.norm(probe - point) for point in points]
        among = [np.linalg.norm(points[i] - points[j]) for i in range(4) for j in range(i)]
        spread = (sum(among) + 0.7) / (len(among) + 1)
        assert distance == pytest.approx(np.mean(to) * (0.7 / spread) ** 0.5 if scaled else min(to), rel=1e-5)


@pytest.mark.parametrize(("count", "images"), [(5, 5), (5, 2), (12, 10), (30, 10), (2, 3)])
def test_set_distance_averages_subsets_of_larger_sets(count, images):
    to = np.random.default_rng(0).random((count, 3))
    found = r.set_distance(to, np.zeros((count, count)), typical=1.0, scaled=False, images=images)
    k = min(images, count)
    nearest = np.sort(to, axis=0)
    slow = sum(nearest[i] * comb(count - 1 - i, k - 1) / comb(count, k) for i in range(count))
    np.testing.assert_allclose(found, slow, rtol=1e-12)


def test_identical_references_do_not_divide_by_zero():
    to, among = np.full((2, 1), 0.3), np.zeros((2, 2))
    assert r.set_distance(to, among, typical=0.0, scaled=True, images=2).tolist() == [0.3]


def test_scaled_distance_is_better_for_classes_of_unequal_spread():
    learnt, fresh = fit_references(writers(0)), writers(1)
    assert [row.images for row in learnt.rows] == [2, 3, 5, 10]
    assert all(row.scaled for row in learnt.rows)
    found = compare_references(fresh, learnt)
    errors = [eer(pairs.distance, pairs.same) for _, pairs in found]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < alone(fresh)
    assert errors[-1] < 0.85 * alone(fresh)
    for row, pairs in found:  # the threshold also holds on new classes
        far, frr = roc(pairs.distance, pairs.same).at(row.threshold)
        assert max(far, frr) < eer(pairs.distance, pairs.same) + 0.08


def test_threshold_for_several_references_holds_the_rate(sets):
    learnt = fit_references(sets(2, 60, 40), far=0.05)
    nearest = learnt.model_copy(
        update={"rows": tuple(row.model_copy(update={"scaled": False}) for row in learnt.rows)}
    )
    fresh = sets(3, 60, 40)
    one = np.concatenate([one.impostor[0] for one in sets(2, 60, 40)])
    row, pairs = compare_references(fresh, nearest)[-1]
    assert row.images == 10
    assert np.mean(pairs.impostor <= np.quantile(one, 0.05)) > 0.1  # the threshold for one reference
    row, pairs = compare_references(fresh, learnt)[-1]
    assert roc(pairs.distance, pairs.same).at(row.threshold)[0] < 0.08


def test_probes_and_impostors_are_not_references():
    drawn = writers(classes=5, images=6)
    assert len(drawn) == 5 * 48
    for one in drawn:
        assert one.genuine.shape == (6, 6)
        assert one.impostor.shape == (6, 6)  # forgeries of the class
        assert set(one.impostors.tolist()) == {one.label}
    pairs = r._score_probes(drawn, 2, 1.0, scaled=False)
    assert pairs.same.sum() == 5 * 48 * 4
    assert (~pairs.same).sum() == 5 * 48 * 6
    assert (pairs.distance > 0).all()


def test_rows_are_limited_by_images_per_class(sets, made_up):
    known = fit_references(sets(0, 8, 6))
    assert [row.images for row in known.rows] == [2, 3, 5]
    assert [known.row(count).images for count in (2, 3, 4, 5, 6, 40)] == [2, 3, 3, 5, 5, 5]
    vectors, label = made_up(0, 40, 12)
    few = (label < 2) | (np.arange(len(label)) % 12 < 6)  # two classes of 12 images, the others of 6
    uneven = fit_references(draw_reference_sets(vectors[few], label[few], apart))
    assert [row.images for row in uneven.rows] == [2, 3, 5]
    assert [row.n_classes for row in uneven.rows] == [40, 40, 40]


def test_classes_with_most_images_are_sampled(made_up):
    vectors, label = made_up(0, 140, 12)
    large = (label < 20) | (np.arange(len(label)) % 12 < 3)
    found = fit_references(draw_reference_sets(vectors[large], label[large], apart))
    assert [(row.images, row.n_classes) for row in found.rows] == [(2, 60), (3, 20), (5, 20), (10, 20)]


def test_comparisons_are_limited_for_many_images(sets):
    rows = fit_references(sets(0, 300, 20)).rows  # more comparisons than the limit
    assert [row.images for row in rows] == [2, 3, 5, 10]
    assert all(60 * 200 < row.n_impostor < 60 * 4 * 200 for row in rows)


def test_repeated_probe_counts_once(sets):
    drawn = sets(0, 8, 6)
    row = fit_references(drawn, far=0.01).rows[0]
    assert len(drawn) == 8 * 30  # every set is compared with all 42 images of the other classes
    assert (row.n_genuine, row.n_impostor) == (8 * 6, 8 * 42)
    assert not row.supported
    assert row.impostors_needed == 3000


def test_few_classes_use_the_nearest_reference():
    assert [(row.images, row.scaled) for row in fit_references(writers(classes=3)).rows] == [(2, False)]


def test_too_few_images_or_classes_give_no_references(made_up):
    assert draw_reference_sets(*made_up(0, 8, 2), apart) == []
    assert draw_reference_sets(*made_up(0, 1, 20), apart) == []
    assert fit_references([]) is None
    assert fit_calibration(compare_pairs([0.1, 0.9], [True, False])).references is None


def test_seed_determines_the_thresholds(sets):
    assert fit_references(sets(0, 8, 6)) == fit_references(sets(0, 8, 6))


def test_json_round_trip_and_validation(world, sets):
    fitted = fit_calibration(world(classes=8, images=6), sets=sets(0, 8, 6), bootstrap=5)
    text = fitted.model_dump_json()
    assert Calibration.model_validate_json(text) == fitted
    older = json.loads(text)
    del older["references"]
    assert Calibration(**older).references is None
    rows = fitted.references.rows
    for wrong in ({"rows": rows[::-1]}, {"rows": (rows[0], rows[0])}, {"typical": 1e300}, {"rows": ()}):
        with pytest.raises(ValidationError):
            ReferenceThresholds(**dict(fitted.references) | wrong)
