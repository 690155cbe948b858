from functools import partial

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

from twinned.distances import euclidean
from twinned.errors import DataError, SettingError
from twinned.metrics import retrieval
from twinned.metrics.retrieval import evaluate_retrieval, map_at_r, recall_at_k

distances = partial(euclidean, pairwise=True)


def by_loops(vectors, labels, k):
    recalls, precisions = [], []
    for q in range(len(labels)):
        others = [j for j in range(len(labels)) if j != q]
        r = sum(labels[j] == labels[q] for j in others)
        if r == 0:
            continue
        apart = {j: float(distances(vectors[q : q + 1], vectors[j : j + 1])[0, 0]) for j in others}
        order = sorted(others, key=lambda j: (apart[j], labels[j] == labels[q]))  # ties: other classes first
        hit = [labels[j] == labels[q] for j in order]
        recalls.append(any(hit[:k]))
        precisions.append(sum(hit[i] * np.mean(hit[: i + 1]) for i in range(r)) / r)
    return np.mean(recalls), np.mean(precisions), len(labels) - len(recalls)


@pytest.mark.parametrize("block", [1 << 22, 100])
@pytest.mark.parametrize("ties", [False, True])
def test_retrieval_equals_a_loop(monkeypatch, block, ties):
    monkeypatch.setattr(retrieval, "_BLOCK_VALUES", block)
    random = np.random.default_rng(0)
    labels = random.choice(list("abcdefghijklmnopqr"), size=60)
    vectors = random.normal(size=(60, 3))
    if ties:
        vectors = np.round(vectors[:, :1])
    found = evaluate_retrieval(vectors, labels, distances, ks=(1, 3))
    for k in (1, 3):
        recall, precision, skipped = by_loops(vectors, labels, k)
        assert found.recall_at[k] == pytest.approx(recall)
    assert found.map_at_r == pytest.approx(precision)
    assert (found.skipped, found.queries) == (skipped, 60 - skipped)
    assert recall_at_k(vectors, labels, (1, 3), distances) == found.recall_at
    assert map_at_r(vectors, labels, distances) == found.map_at_r


def test_retrieval_matches_pytorch_metric_learning():
    random = np.random.default_rng(1)
    label = np.repeat(np.arange(20), 6)
    vectors = (random.normal(size=(20, 8))[label] + 0.9 * random.normal(size=(120, 8))).astype(np.float32)
    peer = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"),
        device=torch.device("cpu"),
        kmeans_func=len,  # never called; its default needs faiss
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
    )
    expected = peer.get_accuracy(vectors, label)
    found = evaluate_retrieval(vectors, label, distances)
    assert found.recall_at[1] == pytest.approx(expected["precision_at_1"])
    assert found.map_at_r == pytest.approx(expected["mean_average_precision_at_r"])


def test_equal_points_score_0_and_separated_points_1():
    label = np.repeat([0, 1], 3)
    assert evaluate_retrieval(np.zeros((6, 2)), label, distances).to_json()["recall_at_1"] == 0
    assert map_at_r(label[:, None].astype(float), label, distances) == 1


def test_json_keys():
    label = np.repeat(np.arange(8), 3)
    vectors = np.random.default_rng(0).normal(size=(24, 4)) + label[:, None]
    found = evaluate_retrieval(vectors, label, distances).to_json()
    assert set(found) >= {"recall_at_1", "recall_at_5", "map_at_r"}
    for name in ("recall_at_1", "recall_at_5", "map_at_r"):
        low, high = found[f"{name}_ci"]
        assert low <= found[name] <= high


def test_invalid_arguments_are_refused():
    with pytest.raises(DataError, match="two images of a class"):
        evaluate_retrieval(np.eye(3), list("abc"), distances)
    with pytest.raises(DataError, match="Each embedding needs one label"):
        evaluate_retrieval(np.eye(3), list("aa"), distances)
    with pytest.raises(SettingError, match="at least 1"):
        evaluate_retrieval(np.eye(2), list("aa"), distances, ks=(0,))


def test_nearest_labels_equal_a_loop(monkeypatch):
    random = np.random.default_rng(0)
    vectors, labels = random.normal(size=(30, 3)), random.choice(list("abc"), 30)
    expected = []
    for k in range(30):
        apart = [np.linalg.norm(vectors[k] - v) if n != k else np.inf for n, v in enumerate(vectors)]
        expected.append(labels[int(np.argmin(apart))])
    assert retrieval.nearest_labels(vectors, labels, distances).tolist() == expected
    monkeypatch.setattr(retrieval, "_BLOCK_VALUES", 70)  # two rows at a time
    assert retrieval.nearest_labels(vectors, labels, distances).tolist() == expected
    with pytest.raises(DataError, match="Two images with labels"):
        retrieval.nearest_labels(vectors[:1], labels[:1], distances)
