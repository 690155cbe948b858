"""Checks of output paths, and atomic writes."""

from __future__ import annotations

import os

import pytest

from twinned.errors import SettingError
from twinned.utils import files


def test_existing_output_requires_force(tmp_path):
    files.check_output(tmp_path / "new")
    files.check_output(tmp_path / "a" / "b" / "new")
    (tmp_path / "old").write_text("")
    with pytest.raises(SettingError, match=r"exists\. Choose another name"):
        files.check_output(tmp_path / "old")
    files.check_output(tmp_path / "old", force=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingError, match="exists"):
        files.check_output(tmp_path / "dangling")


def test_output_inside_or_around_the_data_is_refused(tmp_path, monkeypatch):
    data = tmp_path / "data"
    (data / "a").mkdir(parents=True)
    (data / "list.csv").write_text("path,label")
    (tmp_path / "link").symlink_to(data)
    monkeypatch.chdir(data)
    inside = [data / "m.twin", data / "a" / "b" / "m.twin", tmp_path / "link" / "m.twin"]
    for target in (*inside, tmp_path, data / "a" / ".." / "m.twin"):
        with pytest.raises(SettingError, match="written into the data"):
            files.check_output(target, force=True, data=[data])
    for given in (data, data / "list.csv"):
        with pytest.raises(SettingError, match="The output is also an input"):
            files.check_output(given, force=True, data=[given])
    files.check_output(data / "m.twin", data=["list.csv"])  # next to a CSV
    files.check_output(tmp_path / "m.twin", data=[data, "arrays"])


def test_unwritable_output_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="is a file"):
        files.check_output(tmp_path / "file" / "m.twin")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SettingError, match="not writable"):
        files.check_output(tmp_path / "m.twin")


def test_file_is_replaced_atomically(tmp_path):
    path = tmp_path / "file"
    files.write_bytes(path, b"before")

    def fail():
        with files.replacing(path) as new:
            new.write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        fail()
    assert path.read_bytes() == b"before"
    files.write_text(path, "after\n")
    assert path.read_bytes() == b"after\n"
    assert list(tmp_path.iterdir()) == [path]
