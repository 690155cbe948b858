"""`embed_to_file`: interrupted runs."""

from __future__ import annotations

import shutil

import pytest

import twinned
from twinned.errors import SettingError
from twinned.inference import embed_file


def test_resume_refuses_another_image_preprocessing(tiny_model, glyphs, tmp_path, monkeypatch):
    paths = sorted(map(str, (glyphs / "glyph00").glob("*.png")))
    shutil.copytree(tiny_model, tmp_path / "m.twin")
    text = (tmp_path / "m.twin" / "model.json").read_text()
    assert '"fit": "stretch"' in text
    (tmp_path / "m.twin" / "model.json").write_text(text.replace('"fit": "stretch"', '"fit": "crop"'))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(embed_file, "_join_npz", stopped)
        with pytest.raises(KeyboardInterrupt):
            embed_file.embed_to_file(twinned.load(tiny_model), paths, tmp_path / "v.npz")
    with pytest.raises(SettingError, match="another model or other images"):
        embed_file.embed_to_file(twinned.load(tmp_path / "m.twin"), paths, tmp_path / "v.npz", resume=True)
    assert embed_file.embed_to_file(twinned.load(tiny_model), paths, tmp_path / "v.npz", resume=True) == []
