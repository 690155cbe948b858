"""Converted files in the user's cache: written once and atomically, rebuilt if damaged."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dat_writer as dat
import pytest

from twinned.data.faces import models
from twinned.errors import ModelError
from twinned.utils.files import cached_folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fake package of the extra, with a predictor and a cache in the temporary folder."""
    (tmp_path / "models").mkdir()
    content = dat.predictor()
    (tmp_path / "models" / "p.dat").write_bytes(content)
    monkeypatch.setattr(models, "_models_folder", lambda: tmp_path / "models")
    monkeypatch.setattr(models, "LANDMARKS", models._Source("p.dat", hashlib.sha256(content).hexdigest()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_changed_source_is_refused(package: Path) -> None:
    assert models.read_source(models.LANDMARKS) == dat.predictor()
    (package / "models" / "p.dat").write_bytes(b"other")
    with pytest.raises(ModelError, match="differs"):
        models.read_source(models.LANDMARKS)
    (package / "models" / "p.dat").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        models.read_source(models.LANDMARKS)


def test_conversion_is_cached_and_repeated_if_damaged(package: Path) -> None:
    made = []

    def convert(folder: Path) -> None:
        made.append(folder)
        (folder / "a.bin").write_bytes(b"content")

    first = cached_folder("x", ("stamp",), convert)
    assert cached_folder("x", ("stamp",), convert) == first
    assert len(made) == 1
    (first / "a.bin").write_bytes(b"damaged")
    cached_folder("x", ("stamp",), convert)
    assert (first / "a.bin").read_bytes() == b"content"
    assert sorted(path.name for path in first.parent.iterdir()) == [first.name]


def test_failed_conversion_leaves_no_files(package: Path) -> None:
    def convert(folder: Path) -> None:
        (folder / "a.bin").write_bytes(b"half")
        raise ModelError("interrupted")

    with pytest.raises(ModelError, match="interrupted"):
        cached_folder("x", ("stamp",), convert)
    assert list((package / "cache" / "twinned").iterdir()) == []


def test_concurrent_conversions_share_one_folder(package: Path) -> None:
    def convert(folder: Path) -> None:
        (folder / "a.bin").write_bytes(b"content")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cached_folder("x", ("stamp",), convert), range(8)))
    assert len(set(found)) == 1
    assert (found[0] / "a.bin").read_bytes() == b"content"
