"""Choice between nearest image and prototype, and thresholds for prototypes."""

from functools import partial

import numpy as np
import pytest

from twinned.distances import cosine, euclidean
from twinned.evaluation import identification
from twinned.evaluation.identification import choose_enrollment, nearest_label

distances = partial(cosine, pairwise=True)


def people(seed, count, images, noise=0.6):
    """Draw a center per person and images near it."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(count, 16)), images, axis=0)
    return (centres + noise * random.normal(size=centres.shape)).astype(np.float32), np.arange(
        count * images
    ) // images


def two_clusters(seed, count, images):
    """Draw persons with two distant clusters each."""
    vectors, label = people(seed, 2 * count, images // 2, 0.1)
    return vectors, label // 2


def test_nearest_label_equals_a_loop():
    vectors, label = people(0, 7, 4)
    names = np.array(["b", "a", "e", "g", "c", "f", "d"])[label]
    order = np.random.default_rng(1).permutation(len(label))
    enrolled, rest = order[:15], order[15:]
    for prototype in (False, True):
        found, apart = nearest_label(
            vectors[rest], vectors[enrolled], names[enrolled], distances, prototype=prototype
        )
        for row, query in enumerate(rest):
            by_name = {}
            for name in set(names[enrolled]):
                its = vectors[enrolled][names[enrolled] == name]
                its = its.mean(axis=0)[None] if prototype else its
                by_name[name] = distances(vectors[query][None], its).min()
            assert found[row] == min(by_name, key=by_name.get)
            assert apart[row] == pytest.approx(min(by_name.values()), abs=1e-6)


@pytest.mark.parametrize("prototype", [False, True])
def test_queries_are_compared_in_blocks(monkeypatch, prototype):
    vectors, label = people(0, 9, 6)
    whole = nearest_label(vectors[20:], vectors[:20], label[:20], distances, prototype=prototype)
    monkeypatch.setattr(identification, "_BLOCK_VALUES", 60)
    parts = nearest_label(vectors[20:], vectors[:20], label[:20], distances, prototype=prototype)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_allclose(whole[1], parts[1], atol=1e-6)


def test_better_enrollment_is_chosen_with_its_figures():
    noisy = choose_enrollment(*people(0, 40, 10, 1.0), distances)
    assert noisy.prototype
    assert noisy.named["prototype"] > noisy.named["nearest"] + 0.05
    assert noisy.identification is not None
    two = choose_enrollment(*two_clusters(0, 40, 10), distances)
    assert not two.prototype
    assert two.named["nearest"] > two.named["prototype"] + 0.05
    assert two.identification is None
    assert choose_enrollment(*people(0, 40, 10, 1.0), distances) == noisy, "the same for the same seed"


def test_nearest_is_the_default_for_few_classes_or_images():
    for count, images in ((3, 10), (40, 2)):
        assert not choose_enrollment(*people(0, count, images, 1.0), distances).named


@pytest.mark.parametrize("distance", [cosine, euclidean])
@pytest.mark.parametrize(("labels", "images"), [(20, 1), (20, 4), (50, 8)])
def test_prototype_thresholds_hold_the_rate(distance, labels, images):
    """On new galleries and unknown probes, the rate equals the target."""
    apart = partial(distance, pairwise=True)
    table = choose_enrollment(*people(0, 100, 10, 1.0), apart).identification
    rates = []
    for seed in range(8):
        gallery, label = people(100 + seed, labels, images, 1.0)
        strangers, _ = people(200 + seed, 400, 1, 1.0)
        _, near = nearest_label(strangers, gallery, label, apart, prototype=True)
        rates.append(np.mean(near <= table.at(labels, 0.05, images)))
    assert 0.4 * 0.05 < np.mean(rates) < 1.5 * 0.05
