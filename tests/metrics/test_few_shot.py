from functools import partial

import numpy as np
import pytest

from twinned.distances import euclidean
from twinned.errors import DataError, SettingError
from twinned.metrics.few_shot import (
    _distinct,
    episodes,
    few_shot,
    one_shot_accuracy,
    possible_ways,
)

distances = partial(euclidean, pairwise=True)
labels = np.repeat([f"c{k:02}" for k in range(30)], 4)
groups = np.repeat(["north", "south", "west"], 40)


def clusters(spread: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.repeat(random.normal(size=(30, 6)), 4, axis=0) + spread * random.normal(size=(120, 6))


@pytest.mark.parametrize("shots", [1, 3])
def test_episodes_have_the_requested_form(shots):
    drawn = episodes(labels, ways=5, shots=shots, episodes=300)
    assert drawn.support.shape == (300, 5, shots)
    for support, query, answer in zip(*drawn):
        classes = labels[support]
        assert all(len(set(row)) == 1 for row in classes)
        assert len(set(classes[:, 0])) == 5
        assert len({*support.ravel(), query}) == 5 * shots + 1
        assert labels[query] == classes[answer, 0]


def test_episodes_within_groups_use_one_group():
    drawn = episodes(labels, ways=8, episodes=200, groups=groups)
    found = groups[np.concatenate([drawn.support.reshape(200, -1), drawn.query[:, None]], axis=1)]
    assert np.all(found == found[:, :1])
    assert np.bincount(np.unique(found[:, 0], return_inverse=True)[1]).min() > 40


def test_images_classes_and_answers_are_drawn_uniformly():
    drawn = episodes(labels, ways=5, shots=2, episodes=20_000)
    for counts in (
        np.bincount(drawn.query, minlength=120),
        np.bincount(drawn.support.ravel(), minlength=120),
        np.bincount(drawn.answer),
    ):
        assert np.all(np.abs(counts / counts.mean() - 1) < 6 / np.sqrt(counts.mean()))


def test_distinct_draws_subsets_uniformly():
    drawn = _distinct(np.random.default_rng(0), np.full(30_000, 4), 2)
    pairs, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(pairs) == 12
    assert np.all(pairs[:, 0] != pairs[:, 1])
    assert np.abs(counts / 2500 - 1).max() < 0.1


def test_small_classes_and_unsorted_labels():
    mixed = np.array(["a", "b", "a", "c", "b", "d", "c", "c"])
    assert possible_ways(mixed) == 3
    assert possible_ways(mixed, shots=2) == 1
    drawn = episodes(mixed, ways=3, episodes=50)
    assert "d" not in set(mixed[drawn.support].ravel())
    assert possible_ways(mixed, groups=list("xxxyxyyy")) == 2
    assert possible_ways([]) == 0


def test_accuracy_equals_a_loop():
    vectors = clusters(0.8)
    for shots, rule in ((1, "nearest"), (3, "nearest"), (3, "prototype")):
        drawn = episodes(labels, ways=10, shots=shots, episodes=100, seed=5)
        right = 0
        for support, query, answer in zip(*drawn):
            apart = []
            for row in support:
                examples = [vectors[row].mean(axis=0)] if rule == "prototype" else vectors[row]
                apart.append(min(np.linalg.norm(vectors[query] - example) for example in examples))
            right += int(np.argmin(apart)) == answer
        found = few_shot(vectors, labels, 10, shots, 100, 5, distance="euclidean", rule=rule)
        assert found.accuracy == pytest.approx(right / 100)
        assert found.ci[0] <= found.accuracy <= found.ci[1]
        assert found.to_json() == {
            "ways": 10, "shots": shots, "episodes": 100, "accuracy": found.accuracy, "ci": list(found.ci)
        }  # fmt: skip


def test_one_shot_accuracy_is_an_alias():
    old = one_shot_accuracy(clusters(0.8), labels, distances, ways=10, episodes=50)
    assert old == few_shot(clusters(0.8), labels, 10, episodes=50, distance="euclidean")


def test_perfect_and_constant_embeddings():
    perfect = few_shot(clusters(0), labels, distance=distances, ways=20, episodes=200)
    assert perfect.accuracy == 1
    assert perfect.ci[0] < 1  # limited by 200 answers
    useless = few_shot(np.zeros((120, 3)), labels, distance=distances, ways=20, episodes=2000)
    assert useless.accuracy == pytest.approx(0.05, abs=0.015)  # ties are guesses


def test_interval_depends_on_classes_not_episodes():
    some, many = (few_shot(clusters(0.8), labels, distance=distances, episodes=n).ci for n in (1000, 4000))
    assert many[1] - many[0] > 0.7 * (some[1] - some[0])


def test_invalid_arguments_are_refused():
    with pytest.raises(DataError, match=r"there are 30\. Choose at most 30 ways"):
        episodes(labels, ways=31)
    with pytest.raises(DataError, match="in one group; there are 10"):
        episodes(labels, ways=20, groups=groups)
    with pytest.raises(DataError, match="needs 2 classes with 5 images each; there are 0"):
        episodes(labels, ways=2, shots=4)
    with pytest.raises(SettingError, match="At least 2 ways"):
        episodes(labels, ways=1)
    with pytest.raises(SettingError, match="rule 'best'"):
        few_shot(clusters(1), labels, distance=distances, rule="best")
    with pytest.raises(DataError, match="Each image needs one group"):
        episodes(labels, groups=["x"])
