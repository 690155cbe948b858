from functools import partial

import numpy as np
import pytest

from twinned import verification as v
from twinned.distances import euclidean
from twinned.verification import references as r

apart = partial(euclidean, all_pairs=True)


def writers(seed: int = 0, classes: int = 24, images: int = 14) -> v.Comparisons:
    """Some hands are steadier than others; forgeries lie as far off as suits the hand that they imitate."""
    random = np.random.default_rng(seed)
    centre, spread = random.normal(size=(classes, 8)), np.exp(0.8 * random.normal(size=(classes, 1)))
    label = np.repeat(np.arange(classes), 2 * images)
    forgery = np.tile(np.arange(2 * images) >= images, classes)
    off = random.normal(size=(len(label), 8)) + 1.8 * forgery[:, None]
    return v.compare_all(centre[label] * 4 + spread[label] * off, label, apart, forgery=forgery)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_distance_to_a_set_as_a_slow_reference_has_it(scaled):
    random = np.random.default_rng(0)
    points, probes = random.normal(size=(4, 3)), random.normal(size=(5, 3))
    found = r.set_distance(apart(points, probes), apart(points, points), typical=0.7, scaled=scaled)
    for probe, distance in zip(probes, found, strict=True):
        to = [np.linalg.norm(probe - point) for point in points]
        among = [np.linalg.norm(points[i] - points[j]) for i in range(4) for j in range(i)]
        spread = (sum(among) + 0.7) / (len(among) + 1)
        assert distance == pytest.approx(np.mean(to) * (0.7 / spread) ** 0.5 if scaled else min(to), rel=1e-5)


def test_identical_references_of_a_class_that_never_differs_are_no_division_by_zero():
    to, among = np.full((2, 1), 0.3), np.zeros((2, 2))
    assert r.set_distance(to, among, typical=0.0, scaled=True).tolist() == [0.3]


def test_where_hands_differ_the_spread_of_the_references_tells_more_than_the_nearest():
    learnt, fresh = v.fit_references(writers(0)), writers(1)
    assert [row.images for row in learnt.rows] == [2, 3, 5, 10]
    assert all(row.scaled for row in learnt.rows)
    alone = v.eer(fresh.hardest().distance, fresh.hardest().same)
    found = v.compare_references(fresh, learnt)
    errors = [v.eer(pairs.distance, pairs.same) for pairs in found.values()]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < alone
    assert errors[-1] < 0.85 * alone
    for count, pairs in found.items():  # and the threshold holds on classes that it was not fitted on
        far, frr = v.far_frr(pairs.distance, pairs.same, learnt.row(count).threshold)
        assert max(far, frr) < v.eer(pairs.distance, pairs.same) + 0.08


def test_the_threshold_for_the_nearest_of_many_holds_the_rate_that_it_was_asked_for(world):
    fitted = v.fit_calibration(world(2, classes=60, images=14), far=0.05, bootstrap=5)
    fresh = world(3, classes=60, images=14)
    nearest = fitted.references.model_copy(
        update={"rows": tuple(row.model_copy(update={"scaled": False}) for row in fitted.references.rows)}
    )
    pairs = v.compare_references(fresh, nearest)[10]
    assert v.far_frr(pairs.distance, pairs.same, fitted.threshold)[0] > 0.1  # as if it were one reference
    pairs = v.compare_references(fresh, fitted.references)[10]
    assert v.far_frr(pairs.distance, pairs.same, fitted.references.row(10).threshold)[0] < 0.08


def test_probes_and_impostors_are_never_references():
    drawn = r._draw(writers(classes=5, images=6), seed=0)
    assert len(drawn) == 5 * 4
    for one in drawn:
        assert one.among.shape == (6, 6)
        assert one.impostor.shape == (6, 6)  # the class's own forgeries, not strangers
        assert set(one.who) == {one.label}
    pairs = r._held_up(drawn, 2, 1.0, scaled=False)
    assert pairs.same.sum() == 5 * 4 * 4
    assert (~pairs.same).sum() == 5 * 4 * 6
    assert (pairs.distance > 0).all()


def test_rows_end_where_classes_have_too_few_images(world):
    rows = v.fit_references(world(classes=8, images=6)).rows
    assert [row.images for row in rows] == [2, 3, 5]
    known = v.fit_references(world(classes=8, images=6))
    assert [known.row(count).images for count in (2, 3, 4, 5, 6, 40)] == [2, 3, 5, 5, 5, 5]


def test_a_few_classes_are_too_few_to_choose_a_distance_by():
    assert not any(row.scaled for row in v.fit_references(writers(classes=3)).rows)


def test_none_without_classes_to_draw_from(world):
    assert v.fit_references(world(classes=8, images=2)) is None
    assert v.fit_references(v.compare_pairs([0.1, 0.9], [True, False])) is None
    assert v.fit_calibration(v.compare_pairs([0.1, 0.9], [True, False])).references is None


def test_many_classes_take_bounded_memory_and_the_same_seed_gives_the_same(world):
    many = world(classes=700, images=4)
    one, again = v.fit_references(many, seed=3), v.fit_references(many, seed=3)
    assert one == again
    assert one.rows[0].n_classes <= 700


def test_json_round_trip(world):
    fitted = v.fit_calibration(world(classes=8, images=6), bootstrap=5)
    assert v.Calibration.model_validate_json(fitted.model_dump_json()) == fitted
