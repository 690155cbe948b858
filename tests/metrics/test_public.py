"""Public `tw.metrics`: names of distances, tensors, invalid input."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve

import twinned as tw
from twinned.distances import DISTANCES
from twinned.errors import DataError, SettingError

Y = np.repeat(np.arange(12), 5)


def embeddings(seed=0):
    random = np.random.default_rng(seed)
    return (random.normal(size=(12, 6))[Y] + 0.9 * random.normal(size=(60, 6))).astype(np.float32)


def by_loops(z, distance, k):
    """Return recall at k without handling of ties, from the definitions of the distances."""
    apart = {
        "euclidean": lambda a, b: np.sqrt(np.sum((a - b) ** 2)),
        "squared_euclidean": lambda a, b: np.sum((a - b) ** 2),
        "manhattan": lambda a, b: np.sum(np.abs(a - b)),
        "cosine": lambda a, b: 1 - a @ b / np.sqrt((a @ a) * (b @ b)),
    }[distance]
    hits = []
    for q in range(len(z)):
        others = sorted((apart(z[q], z[j]), j) for j in range(len(z)) if j != q)
        hits.append(any(Y[j] == Y[q] for _, j in others[:k]))
    return np.mean(hits)


@pytest.mark.parametrize("distance", DISTANCES)
def test_recall_with_named_distance_equals_a_loop(distance):
    z = embeddings().astype(np.float64)
    found = tw.metrics.recall_at_k(z, Y, ks=(1, 3, 10), distance=distance)
    assert found == {k: pytest.approx(by_loops(z, distance, k)) for k in (1, 3, 10)}
    function = getattr(tw.distances, distance)
    assert tw.metrics.recall_at_k(z, Y, (1, 3, 10), function) == found
    assert tw.metrics.recall_at_k(z, Y, (1, 3, 10), lambda a, b: function(a, b, pairwise=True)) == found


def test_cosine_is_the_default():
    z = embeddings()
    assert tw.metrics.recall_at_k(z, Y) == tw.metrics.recall_at_k(z, Y, (1, 5), "cosine")
    assert tw.metrics.map_at_r(z, Y) == tw.metrics.map_at_r(z, Y, "cosine")
    assert tw.metrics.few_shot(z, Y, 5, 1, 50, 3) == tw.metrics.few_shot(
        z, Y, ways=5, shots=1, episodes=50, seed=3, distance="cosine"
    )


def test_roc_matches_scikit_learn():
    pairs = tw.metrics.compare_all(embeddings(), Y, "cosine")
    curve = tw.metrics.roc(pairs.distance, pairs.same)
    far, tar, threshold = roc_curve(pairs.same, -pairs.distance, drop_intermediate=False)
    np.testing.assert_allclose(curve.far, far)
    np.testing.assert_allclose(1 - curve.frr, tar)
    np.testing.assert_allclose(curve.threshold[1:], -threshold[1:])
    crossing = np.argmin(np.abs(far - (1 - tar)))
    step = max(np.abs(np.diff(far)).max(), np.abs(np.diff(tar)).max())
    assert tw.metrics.eer(pairs.distance, pairs.same) == pytest.approx(far[crossing], abs=step)


def test_tensors_are_accepted():
    z, y = torch.tensor(embeddings(), requires_grad=True), torch.tensor(Y)
    assert tw.metrics.recall_at_k(z, y) == tw.metrics.recall_at_k(embeddings(), Y)
    assert tw.metrics.few_shot(z, y, 5) == tw.metrics.few_shot(embeddings(), Y, 5)
    distance, same = torch.tensor([0.1, 0.3, 0.2, 0.4]), torch.tensor([True, True, False, False])
    assert tw.metrics.eer(distance, same) == 0.5
    assert tw.metrics.auc(distance, same) == 0.75


def test_half_precision_and_integers_are_compared_in_float32():
    z = np.round(embeddings() * 8)
    expected = tw.metrics.recall_at_k(z, Y, distance="euclidean")
    assert tw.metrics.recall_at_k(z.astype(np.float16), Y, distance="euclidean") == expected
    assert tw.metrics.recall_at_k(z.astype(np.int64), Y, distance="euclidean") == expected


@pytest.mark.parametrize("metric", [tw.metrics.recall_at_k, tw.metrics.few_shot, tw.metrics.map_at_r])
def test_invalid_input_is_refused(metric):
    z = embeddings()
    with pytest.raises(SettingError, match="'cosin' is not known; choose one of euclidean"):
        metric(z, Y, distance="cosin")
    with pytest.raises(DataError, match=r"shape \(n, d\); got \(60,\)"):
        metric(z[:, 0], Y)
    with pytest.raises(DataError, match="60 and 59 labels"):
        metric(z, Y[:-1])
    z[3, 0] = np.nan
    with pytest.raises(DataError, match="1 of 60 embeddings have NaN"):
        metric(z, Y)


def test_names_are_functions_after_importing_modules():
    code = (
        "import twinned.metrics.few_shot, twinned.metrics.roc, twinned as tw\n"
        "from twinned.metrics.roc import Roc\n"
        "assert all(map(callable, (tw.metrics.few_shot, tw.metrics.roc)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
