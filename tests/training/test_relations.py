"""The relation head: training on a pair list with a column relation, and ``verify``."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from twinned import heads
from twinned.data.datasets import PairSet
from twinned.data.readers import load_pairs
from twinned.data.samplers import PairBatches
from twinned.errors import DataError, SettingError
from twinned.inference.model import Model
from twinned.inference.model_card import card
from twinned.nn import onnx_export
from twinned.training.api import train
from twinned.training.finetune import finetune

from ..conftest import EMBEDDING

RELATIONS = {"other model": False, "same": True, "same model, other colour": False}


def _car(rng: np.random.Generator, model: int, colour: int) -> Image.Image:
    """Draw a vertical or horizontal bar in one of three colors on a noisy background."""
    pixels = rng.integers(0, 60, (24, 24, 3))
    row, column = rng.integers(1, 5, 2)
    high, wide = (18, 6) if model else (6, 18)
    pixels[row : row + high, column : column + wide, colour] = 255
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def pair_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cars")
    rng = np.random.default_rng(0)
    kinds = [(model, colour) for model in range(2) for colour in range(3) for _ in range(20)]
    for number, kind in enumerate(kinds):
        _car(rng, *kind).save(folder / f"{number}.png")
    rows = []
    for _ in range(600):
        left, right = rng.choice(len(kinds), 2, replace=False)
        (one, colour), (two, other) = kinds[left], kinds[right]
        relation = "other model" if one != two else "same" if colour == other else "same model, other colour"
        rows.append((f"{left}.png", f"{right}.png", int(RELATIONS[relation]), relation))
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("left", "right", "same", "relation"), *rows])
    return folder / "pairs.csv"


@pytest.fixture(scope="module")
def model(pair_list: Path, tmp_path_factory: pytest.TempPathFactory):
    output = tmp_path_factory.mktemp("model") / "cars.twin"
    return train(
        pair_list,
        recipe="photo",
        encoder="conv4",
        image_size=24,
        steps=60,
        learning_rate=3e-3,
        settings={"augment.flip": False, "augment.saturation": 0, "augment.rotation": 0, "augment.erase": 0},
        output=output,
        progress=False,
    )


def test_relations_are_learned(model, pair_list):
    result = model.evaluate(pair_list, progress=False).to_json()
    assert result["relations"]["accuracy"] > 0.8  # always answering the most common relation gives 0.5
    assert result["relations"]["pairs"] == 600
    assert model.manifest.relations == list(RELATIONS)
    assert model.manifest.head
    assert model.manifest.held_out["eer"] < 0.2
    assert model.manifest.held_out["relations"] > 0.7
    assert "images in pairs" in card(model.manifest)


def test_verify_names_the_relation(model, pair_list):
    pairs = load_pairs(pair_list)
    verdicts = model.verify_many(
        [pairs.images[i] for i in pairs.left[:60]], [pairs.images[i] for i in pairs.right[:60]]
    )
    named = [verdict.relation for verdict in verdicts]
    assert np.mean(np.array(named) == pairs.relation[:60]) > 0.75
    first = model.verify(pairs.images[pairs.left[0]], pairs.images[pairs.right[0]])
    assert first.relation == verdicts[0].relation
    near = rounding_of_probabilities(model, pairs)
    assert near < 0.01
    assert first.relation_probability == pytest.approx(verdicts[0].relation_probability, abs=near)
    assert 1 / 3 <= first.relation_probability <= 1
    assert set(json.loads(json.dumps(first.to_json()))) == {
        *("same", "probability", "distance", "threshold", "verdict"),
        *("relation", "relation_probability"),
    }
    # The answer does not depend on the order of a pair.
    turned = model.verify(pairs.images[pairs.right[0]], pairs.images[pairs.left[0]])
    assert turned.distance == pytest.approx(first.distance, abs=near)
    assert turned.relation == first.relation


def rounding_of_probabilities(model: Model, pairs: PairSet) -> float:
    """Bound the change of a probability by rounding of the embeddings.

    With embeddings of length L, rounded by L * e, ``(|a - b|, a * b)`` moves by at most 2 e L (1 + L), each
    layer of the head by its norm, and a softmax by half of what moves its logits.
    """
    length = float(np.linalg.norm(model.embed(pairs.images[:60]), axis=1).max())
    weights = load_file(model.folder / "weights.safetensors")
    first, last = (torch.linalg.matrix_norm(weights[f"head.layers.{i}.weight"], 2).item() for i in (0, 2))
    return first * last * EMBEDDING * length * (1 + length)


def test_distance_is_one_minus_the_probability_of_the_same_relations(model, pair_list):
    pairs = load_pairs(pair_list)
    vectors = model.embed(pairs.images[:6])
    found = model._relations(vectors[:3], vectors[3:])
    for row, distance in zip(found, model.paired_distances(vectors[:3], vectors[3:]), strict=True):
        assert sum(row.values()) == pytest.approx(1, abs=1e-5)
        assert distance == pytest.approx(1 - row["same"], abs=1e-5)


@pytest.mark.slow
def test_other_relations_reinitialize_the_head(model, pair_list):
    lines = pair_list.read_text().splitlines()
    other = {"same": "1,alike", "same model, other colour": "0,near", "other model": "0,far"}
    rows = [f"{left},{right},{other[name]}" for left, right, _, name in csv.reader(lines[1:])]
    renamed = pair_list.with_name("renamed.csv")
    renamed.write_text("\n".join(["left,right,same,relation", *rows]))
    try:
        found = finetune(model, renamed, steps=1, progress=False)
        measured = found.evaluate(renamed, progress=False)
    finally:
        renamed.unlink()
    assert "relations" in measured.to_json()
    # Both models are compared as same or different only, and the new one is kept in any case.
    (note,) = (note for note in found.manifest.notes if note.startswith("compared as same or different only"))
    before, after = found.manifest.held_out["untouched"]["eer"], found.manifest.held_out["eer"]
    assert f"equal error rate {before:.4f} before training, equal error rate {after:.4f}" in note
    assert found.manifest.relations == ["alike", "far", "near"]
    assert load_file(found.folder / "weights.safetensors")["head.same"].tolist() == [1, 0, 0]


@pytest.mark.slow
def test_changed_meaning_of_a_relation_reinitializes_the_head(model, pair_list):
    lines = [line.replace(',0,"same model', ',1,"same model') for line in pair_list.read_text().splitlines()]
    other = pair_list.with_name("other.csv")
    other.write_text("\n".join(lines))
    try:
        found = finetune(model, other, steps=1, progress=False)
    finally:
        other.unlink()
    assert found.manifest.relations == list(RELATIONS)
    assert load_file(found.folder / "weights.safetensors")["head.same"].tolist() == [0, 1, 1]


@pytest.mark.slow
def test_head_that_does_not_fit_is_reinitialized(pair_list, with_observers):
    given = {"image_size": 24, "settings": {"embedding_size": None}, "steps": 1, "progress": False}
    wide = train(pair_list, recipe="photo", encoder="conv4", **given)
    notes: list[str] = []
    found = with_observers(finetune)(
        wide, pair_list, image_size=32, steps=1, progress=False, on_note=notes.append
    )
    assert found.spec.shape == (32, 32, 3)
    assert any(sentence.startswith("the head does not fit embeddings of ") for sentence in notes)


def test_kept_baseline_keeps_its_relations(model, pair_list, monkeypatch):
    def borrowed(network: Any, spec: Any, path: Path) -> None:
        shutil.copyfile(model.folder / "encoder.onnx", path)

    monkeypatch.setattr(onnx_export, "export_encoder", borrowed)
    monkeypatch.setattr("twinned.training.cross_validation.is_better", lambda before, after: False)
    found = finetune(model, pair_list, loss="contrastive", steps=1, progress=False)
    assert found.manifest.relations == list(RELATIONS)


@pytest.mark.slow
def test_fine_tuning_does_not_worsen_the_relations(model, pair_list, with_observers):
    notes: list[str] = []
    ruined = with_observers(finetune)(
        model,
        pair_list,
        steps=4,
        learning_rate=0.5,
        settings={"average": 0},
        progress=False,
        on_note=notes.append,
    )
    assert any("the encoder before training is kept" in note for note in notes)
    before, after = (load_file(m.folder / "weights.safetensors") for m in (model, ruined))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any("recall" in note for note in notes), "pairs have none"
    assert ruined.manifest.relations == model.manifest.relations
    assert ruined.evaluate(pair_list, progress=False).details["relations"]["accuracy"] > 0.8


def test_relation_head_equals_a_loop():
    torch.manual_seed(0)
    head = heads.Relation([True, False, True], embedding_size=5, hidden=7).double()
    a, b = torch.randn(2, 4, 5, dtype=torch.float64)
    first, last = head.layers[0], head.layers[2]
    for i in range(4):
        seen = torch.cat([(a[i] - b[i]).abs(), a[i] * b[i]])
        logits = last.weight @ F.relu(first.weight @ seen + first.bias) + last.bias
        odds = logits.exp() / logits.exp().sum()
        torch.testing.assert_close(head.probabilities(a, b)[i], odds)
        torch.testing.assert_close(head(a, b)[i], odds[1])
        torch.testing.assert_close(head.score(a, b)[i], odds[0] + odds[2])


def test_concatenated_embeddings_depend_on_pair_order():
    torch.manual_seed(0)
    head = heads.Relation([True, False, False], embedding_size=5, concatenate=True)
    a, b = torch.randn(2, 4, 5)
    torch.testing.assert_close(head.logits(a, b), head.layers(torch.cat([a, b], dim=1)))
    assert not torch.allclose(head.logits(a, b), head.logits(b, a))


def test_batches_balance_the_relations():
    names = np.array(["a"] * 50 + ["b"] * 5 + ["c"] * 20)
    pairs = PairSet(
        images=list(range(75)),
        left=np.arange(75),
        right=np.roll(np.arange(75), 1),
        same=names == "a",
        relation=names,
    )
    batches = PairBatches(pairs, size=12, relations=["a", "b", "c"])
    batch = batches(3)
    assert batch.relation is not None
    assert np.bincount(batch.relation).tolist() == [4, 4, 4]
    left, right, same = batch.pairs
    for place in range(12):
        ends = batch.index[left[place]], batch.index[right[place]]
        (row,) = np.flatnonzero((pairs.left == ends[0]) & (pairs.right == ends[1]))
        assert names[row] == "abc"[batch.relation[place]]
        assert same[place] == (names[row] == "a")
    with pytest.raises(DataError, match="no d pair among the training pairs"):
        PairBatches(pairs, relations=["a", "b", "c", "d"])


def _list(tmp_path: Path, rows: list[str]) -> Path:
    file = tmp_path / "pairs.csv"
    file.write_text("\n".join(["left,right,same,relation", *rows]) + "\n")
    return file


def test_relation_must_be_consistent_and_not_empty(tmp_path):
    mixed = load_pairs(_list(tmp_path, ["a.png,b.png,1,twin", "a.png,c.png,0,twin"]))
    with pytest.raises(DataError, match="'twin' has 1 same pairs and 1 different"):
        mixed.relations()
    empty = load_pairs(_list(tmp_path, ["a.png,b.png,1,twin", "a.png,c.png,0,"]))
    with pytest.raises(DataError, match="1 pairs have no relation"):
        empty.relations()


def test_relation_head_requires_the_column(pair_list, tmp_path):
    plain = tmp_path / "plain.csv"
    rows = list(csv.reader(pair_list.open()))
    with plain.open("w", newline="") as file:
        csv.writer(file).writerows([row[:3] for row in rows])
    with pytest.raises(SettingError, match="needs a pair list with a column relation"):
        train(plain, recipe="photo", settings={"head": "relation"}, steps=1, progress=False)
    with pytest.raises(SettingError, match="at least two relations"):
        heads.Relation([True], embedding_size=4)
