from functools import partial
from itertools import combinations

import numpy as np
import pytest

from twinned.distances import euclidean
from twinned.errors import DataError
from twinned.evaluation.fitting import unknown_probes_pass
from twinned.metrics import comparisons as module
from twinned.metrics.comparisons import Comparisons, compare_all, compare_pairs, count_pairs

distances = partial(euclidean, pairwise=True)


def by_loops(vectors, labels, forged):
    names = sorted(set(labels))
    rows = []
    for i, j in combinations(range(len(labels)), 2):
        one_label = labels[i] == labels[j]
        if forged[i] and forged[j]:
            continue
        if (forged[i] or forged[j]) and not one_label:
            continue
        with_forgery = forged[i] or forged[j]
        distance = np.linalg.norm(vectors[i] - vectors[j])
        same = one_label and not with_forgery
        rows.append((i, j, same, names.index(labels[i]), names.index(labels[j]), with_forgery, distance))
    return rows


@pytest.mark.parametrize("block", [1 << 22, 30])
def test_compare_all_equals_a_loop(monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK_VALUES", block)
    random = np.random.default_rng(0)
    labels = [str(c) for c in random.choice(["anna", "ben", "cleo", "dora"], size=25)]
    vectors, forged = random.normal(size=(25, 3)).astype(np.float32), random.random(25) < 0.3
    found = compare_all(vectors, labels, distances, forgery=forged)
    columns = list(zip(*by_loops(vectors, labels, forged)))
    fields = (found.left_image, found.right_image, found.same, found.left, found.right, found.skilled)
    for column, field in zip(columns, fields):
        assert list(field) == list(column)
    np.testing.assert_allclose(found.distance, columns[-1], rtol=1e-5)
    assert (found.distance.dtype, found.left.dtype, found.same.dtype) == (np.float32, np.int32, np.bool_)


def test_limit_keeps_genuine_and_forgeries_and_samples_impostors():
    random = np.random.default_rng(1)
    label = np.repeat(np.arange(60), 6)
    vectors, forged = random.normal(size=(360, 2)).astype(np.float32), np.tile([0] * 5 + [1], 60).astype(bool)
    whole = compare_all(vectors, label, distances, forgery=forged)
    some = compare_all(vectors, label, distances, forgery=forged, limit=9_000, seed=3)
    again = compare_all(vectors, label, distances, forgery=forged, limit=9_000, seed=3)
    assert np.array_equal(some.distance, again.distance)
    assert len(some) == pytest.approx(9_000, rel=0.05)
    rare = [c.subset(c.same | c.skilled) for c in (whole, some)]
    np.testing.assert_allclose(rare[0].distance, rare[1].distance, rtol=1e-6)  # blocks differ in rounding
    everyone = {*zip(whole.left_image, whole.right_image, whole.same)}
    drawn = [*zip(some.left_image, some.right_image, some.same)]
    assert len({*drawn}) == len(drawn)
    assert {*drawn} <= everyone
    # Uniform over the rows: early and late images are drawn equally often.
    strangers = some.subset(~some.same & ~some.skilled)
    expected = np.bincount(whole.against("random").subset(~whole.against("random").same).left // 12)
    share = np.bincount(strangers.left // 12) / expected
    assert share.max() - share.min() < 0.06


def test_limit_halves_many_genuine_comparisons():
    vectors = np.random.default_rng(0).normal(size=(300, 2))
    found = compare_all(vectors, np.arange(300) % 2, distances, limit=4_000)
    assert np.count_nonzero(found.same) == pytest.approx(2_000, rel=0.1)
    assert np.count_nonzero(~found.same) == pytest.approx(2_000, rel=0.1)


def test_compare_pairs_numbers_classes_jointly():
    found = compare_pairs([1, 2, 3], [True, False, False], left=["b", "b", "c"], right=["b", "a", "a"])
    assert found.left.tolist() == [1, 1, 2]
    assert found.right.tolist() == [1, 0, 0]
    assert found.n_classes == 3
    assert compare_pairs([1, 2], [True, False]).left.tolist() == [0, 1]


def test_concatenate_offsets_classes_and_images():
    parts = [compare_all(np.eye(4), [0, 0, 1, 1], distances) for _ in range(2)]
    joined = Comparisons.concatenate(parts)
    assert joined.left.tolist() == [*parts[0].left, *(parts[1].left + 2)]
    assert joined.right_image.tolist() == [*parts[0].right_image, *(parts[1].right_image + 4)]
    assert joined.n_classes == 4
    assert joined.skilled is None


def test_hardest_are_forgeries_if_marked():
    found = compare_pairs([1, 2, 3], [True, False, False], skilled=[False, True, False])
    assert found.hardest().distance.tolist() == [1, 2]
    assert found.against("random").distance.tolist() == [1, 3]
    plain = compare_pairs([1, 2], [True, False])
    assert plain.hardest() is plain


def test_count_pairs_equals_compared_pairs():
    rng = np.random.default_rng(0)
    labels, forged = rng.choice(list("abcd"), 40), rng.random(40) < 0.3
    found = compare_all(rng.random((40, 3)), labels, partial(euclidean, pairwise=True), forgery=forged)
    one_label = labels[found.left_image] == labels[found.right_image]
    assert count_pairs(labels, forged) == (one_label.sum(), (~one_label).sum())


def test_invalid_comparisons_are_refused():
    with pytest.raises(DataError, match="1 of 2 distances are NaN"):
        compare_pairs([1, np.nan], [True, False])
    with pytest.raises(DataError, match="lengths"):
        compare_pairs([1, 2, 3], [True, False])
    with pytest.raises(DataError, match="both images"):
        compare_pairs([1, 2], [True, False], left=["a", "b"])
    with pytest.raises(DataError, match="At least two"):
        compare_all([[1.0]], ["a"], distances)
    parts = [compare_pairs([1], [True], skilled=[False]), compare_pairs([1], [True])]
    with pytest.raises(DataError, match="got 2, 1 with marks"):
        Comparisons.concatenate(parts)


def test_sample_is_independent_of_block_size(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    found = []
    for much, block in ((2.0, 1 << 22), (0.0, 1 << 22), (0.0, 7 * 60)):
        monkeypatch.setattr(module, "_MUCH", much)
        monkeypatch.setattr(module, "_BLOCK_VALUES", block)
        found.append(compare_all(vectors, np.arange(60) // 4, distances, limit=600))
    gathered = found[0]
    apart = np.linalg.norm(vectors[gathered.left_image] - vectors[gathered.right_image], axis=1)
    for one in found:
        np.testing.assert_array_equal(one.left_image, gathered.left_image)
        np.testing.assert_array_equal(one.right_image, gathered.right_image)
        np.testing.assert_allclose(one.distance, apart, rtol=1e-5)


def test_warning_if_random_impostors_pass_more_than_forgeries():
    same = np.repeat([True, False, False], 50)
    skilled = np.repeat([False, True, False], 50)
    near, far = np.linspace(0, 1, 50), np.linspace(5, 6, 50)
    for strangers, expected in ((near, True), (far, False)):
        found = compare_pairs(np.concatenate([near, far, strangers]), same, skilled=skilled)
        assert (unknown_probes_pass(found, 2.0) is not None) == expected
    found = compare_pairs(np.concatenate([near, far, near]), same, skilled=skilled)
    warning = unknown_probes_pass(found, 2.0)
    assert warning.code == "threshold-random-impostors"
    assert "random impostors (1.000) than forgeries (0.000)" in warning.text
    assert unknown_probes_pass(compare_pairs(near, same[25:75]), 2.0) is None
