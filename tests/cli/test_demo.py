"""The demo: accuracy on unseen alphabets, and its files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import twinned as tw
from twinned.cli.demo import write_letters


def test_letters_are_written_as_class_folders(tmp_path):
    letters = write_letters(tmp_path / "letters", ["armenian"])
    assert len(letters) == len(tw.data.load_letters(["armenian"]))
    assert "armenian-capital-ben" in letters.classes
    counts = np.unique(letters.labels, return_counts=True)[1]
    assert counts.min() >= 10


@pytest.mark.slow
def test_demo_recognizes_unseen_alphabets(twinned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = twinned("demo", "--quiet", "--json")
    assert shown.code == 0
    figures = shown.json["figures"]
    assert figures["one_shot"]["ways"] == 20
    assert figures["one_shot"]["accuracy"] >= 0.94
    assert figures["verification"]["eer"] <= 0.035
    assert all(Path(picture).is_file() for picture in shown.json["pictures"])
    assert "holds no demo" in twinned("demo", "-o", "demo/letters").error

    new = Path("demo", "letters", "new")
    left, right, *_ = sorted((new / "georgian-don").iterdir())
    assert twinned("verify", "demo/letters.twin", left, right).code == 0
    counted = twinned("gallery", "count", "demo/letters.twin", "demo/letters.gallery", "--json").json
    assert counted["count"] == 5 * len(counted["labels"]) < len(os.listdir(new)) * 5
