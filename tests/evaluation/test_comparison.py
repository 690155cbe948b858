"""Two models on the same data: differences, intervals and p-values, against slow loops."""

from __future__ import annotations

import json

import numpy as np
import pytest

import twinned as tw
from twinned.errors import DataError, SettingError
from twinned.evaluation.comparison import compare_evaluations
from twinned.evaluation.results import Evaluation
from twinned.metrics.comparisons import compare_all
from twinned.metrics.retrieval import evaluate_retrieval
from twinned.metrics.roc import eer

CLASSES, IMAGES = 12, 4
Y = np.repeat(np.arange(CLASSES), IMAGES)


def embeddings(noise: float, seed: int = 0) -> np.ndarray:
    """Return embeddings of the same images by a model with more or less noise."""
    random = np.random.default_rng(0)
    clean = random.normal(size=(CLASSES, 8))[Y] + 0.5 * random.normal(size=(len(Y), 8))
    return clean + noise * np.random.default_rng(seed + 1).normal(size=clean.shape)


def evaluation(z: np.ndarray, **options: object) -> Evaluation:
    comparisons = compare_all(z, Y, "euclidean", **options)
    return Evaluation(None, None, evaluate_retrieval(z, Y, "euclidean"), "classes", comparisons=comparisons)


def test_differences_equal_explicit_resampling_of_classes():
    z = embeddings(0.5), embeddings(0.8)
    evaluations = [evaluation(each) for each in z]
    found = compare_evaluations(*evaluations, replicates=40, seed=3)
    differences = []
    random = np.random.default_rng(3)
    for _ in range(40):
        weight = np.bincount(random.integers(CLASSES, size=CLASSES), minlength=CLASSES)
        rates = []
        for pairs in (each.comparisons for each in evaluations):
            own = pairs.left == pairs.right
            times = np.where(own, weight[pairs.left], weight[pairs.left] * weight[pairs.right])
            rates.append(eer(np.repeat(pairs.distance, times), np.repeat(pairs.same, times)))
        differences.append(rates[1] - rates[0])
    figures = [eer(each.comparisons.distance, each.comparisons.same) for each in evaluations]
    assert (found.eer.a, found.eer.b) == tuple(figures)
    assert found.eer.difference == figures[1] - figures[0]
    tail = tw.metrics.bootstrap._tail(CLASSES)
    low, high = np.quantile(differences, [tail, 1 - tail])
    assert found.eer.ci == (pytest.approx(low), pytest.approx(high))
    recalls = [tw.metrics.recall_at_k(each, Y, (1,), "euclidean")[1] for each in z]
    assert (found.recall_at_1.a, found.recall_at_1.b) == tuple(recalls)
    assert found.recall_at_1.ci[0] <= found.recall_at_1.difference <= found.recall_at_1.ci[1]


def test_worse_model_is_detected():
    good, bad = evaluation(embeddings(0.2)), evaluation(embeddings(3.0))
    worse = compare_evaluations(good, bad, replicates=200)
    assert (worse.eer.winner, worse.recall_at_1.winner) == ("a", "a")
    assert worse.eer.p_value < 0.05
    assert worse.eer.difference > 0 > worse.recall_at_1.difference
    back = compare_evaluations(bad, good, replicates=200)
    assert (back.eer.winner, back.eer.p_value) == ("b", pytest.approx(worse.eer.p_value))
    assert back.eer.ci == pytest.approx((-worse.eer.ci[1], -worse.eer.ci[0]))
    same = compare_evaluations(good, good, replicates=50)
    assert (same.eer.difference, same.eer.ci, same.eer.p_value, same.eer.winner) == (0, (0, 0), 1, None)


def test_paired_resampling_narrows_the_interval():
    a, b = evaluation(embeddings(0.6)), evaluation(embeddings(0.7))
    paired = compare_evaluations(a, b, replicates=200).eer.ci
    alone = [
        tw.metrics.bootstrap.replicates(each.comparisons, count=200, seed=k) for k, each in enumerate((a, b))
    ]
    apart = np.std([y.eer() - x.eer() for x, y in zip(*alone)])
    assert paired[1] - paired[0] < 0.9 * 4 * apart


def test_seed_determines_the_result_and_json():
    a, b = evaluation(embeddings(0.5)), evaluation(embeddings(0.8))
    found = compare_evaluations(a, b, replicates=30, seed=7)
    assert found == compare_evaluations(a, b, replicates=30, seed=7)
    assert found != compare_evaluations(a, b, replicates=30, seed=8)
    figures = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(figures["eer"]) == {"a", "b", "difference", "ci", "p_value", "better"}
    assert figures["eer"]["better"] == "lower"
    assert (figures["n_classes"], figures["seed"], figures["notes"]) == (CLASSES, 7, [])
    assert f"{found.eer.difference:+.4f}" in str(found)
    assert "recall at 1" in str(found)


def test_different_comparisons_are_refused():
    a, b = evaluation(embeddings(0.5)), evaluation(embeddings(0.8), limit=500)
    with pytest.raises(DataError, match="not of the same comparisons"):
        compare_evaluations(a, b)
    with pytest.raises(DataError, match="Protocol omniglot-runs makes no"):
        compare_evaluations(a, Evaluation(None, None, None, "omniglot-runs"))


def test_compare_two_models_on_a_folder(tiny_model, color_model, strangers, glyphs):
    a, b = tw.load(tiny_model), tw.load(color_model)
    found = tw.compare(a, b, tw.load_images(strangers), progress=False)
    assert isinstance(found, tw.Comparison)
    each = [model.evaluate(strangers, episodes=10, progress=False) for model in (a, b)]
    assert (found.eer.a, found.eer.b) == tuple(one.verification.eer for one in each)
    assert (found.recall_at_1.a, found.recall_at_1.b) == tuple(one.retrieval.recall_at[1] for one in each)
    assert found.notes == []
    seen = [
        note for note in tw.compare(a, b, glyphs, progress=False).notes if "were seen in training" in note
    ]
    assert len(seen) == 1
    assert seen[0].startswith("A: ")
    with pytest.raises(SettingError, match=r"takes two models; got 'a\.twin'"):
        tw.compare(tw.Model(tiny_model), "a.twin", strangers)
