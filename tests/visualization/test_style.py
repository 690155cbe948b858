"""Style of figures: colors, files, and no global state."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from twinned import plots
from twinned.errors import SettingError
from twinned.visualization import colors, style


def drawn(title="a $b$ <c>"):
    ax = style.plain(2, 1.5)
    ax.plot([0, 1], [0, 1], label="50 $ or $ more")
    style.legend(ax)
    return style.dress(ax, title="t", x="x", y="y")


def linear(color):
    value = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    light, dark = sorted((linear(c) @ [0.2126, 0.7152, 0.0722] for c in (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colors_have_enough_contrast():
    assert contrast(colors.INK, colors.PAPER) > 12
    assert contrast(colors.GRAY, colors.PAPER) > 4.5
    for color in (colors.BLUE, colors.VERMILLION):
        assert contrast(color, colors.PAPER) > 3


def test_main_colors_differ_for_color_blind_readers():
    # Machado, Oliveira & Fernandes 2009: severity 1 of deuteranopia and protanopia, on linear RGB.
    deutan = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    )
    protan = np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    )
    for seen in (np.eye(3), deutan, protan):
        for a, b in combinations((colors.BLUE, colors.VERMILLION, colors.INK), 2):
            assert np.linalg.norm(seen @ linear(a) - seen @ linear(b)) > 0.25, (a, b)


def test_names_are_shortened_to_one_line():
    assert style.short("anna") == "anna"
    assert style.short("two\nlines\x00") == "two lines"
    long = style.short("Greek/character" * 9, 24)
    assert len(long) == 24
    assert "…" in long


def test_figures_are_saved_by_suffix_and_reproducible(tmp_path):
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".SVG", b"<?xml")):
        one, other = tmp_path / f"one{suffix}", tmp_path / f"deeper/other{suffix}"
        plots.save(drawn(), one, force=True)
        plots.save(drawn(), other)
        assert one.read_bytes().startswith(start)
        assert one.read_bytes() == other.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deeper", "one.SVG", "one.png", "one.svg"]


def test_existing_file_is_replaced_only_with_force(tmp_path):
    file = tmp_path / "a.png"
    file.write_text("mine")
    with pytest.raises(SettingError, match="exists"):
        plots.save(drawn(), file)
    assert file.read_text() == "mine"
    plots.save(drawn(), file, force=True)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    file.write_text("mine")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        plots.save(drawn(), file, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert file.read_text() == "mine"


def test_only_png_and_svg_outside_the_data_are_accepted(tmp_path):
    for name in ("a.pdf", "a", "a.png.txt"):
        with pytest.raises(SettingError, match=r"\.png or \.svg"):
            plots.target(tmp_path / name)
    with pytest.raises(SettingError, match="into the data"):
        plots.target(tmp_path / "class/a.png", data=[tmp_path])


def test_images_keep_aspect_ratio_and_orientation():
    image = np.zeros((10, 20, 3), np.uint8)
    for upwards in (False, True):
        ax = style.plain() if upwards else style.board(8, 8, inches=0.5)
        ax.set(xlim=(0, 8), ylim=(0, 8) if upwards else (8, 0))
        left, top, width, height = style.picture(ax, image, at=(1, 2), size=4)
        assert (left, top, width, height) == (1, 3, 4, 2)
        assert ax.get_xlim() == (0, 8)
        first_row = ax.images[0].get_extent()[2 if ax.images[0].origin == "lower" else 3]
        on_screen = ax.transData.transform([(0, first_row), (0, top + height / 2)])
        assert on_screen[0, 1] > on_screen[1, 1]  # the first row is above the middle


def test_global_state_is_unchanged():
    code = """
import sys, matplotlib
before = matplotlib.rcParams.copy()
from twinned import visualization as plots
ax = plots.plain(); ax.plot([0, 1], [0, 1], label="x $ y"); plots.png(ax); plots.svg(ax)
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.rcParams.copy() == before
assert "torch" not in sys.modules and "sklearn" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_matplotlib_is_imported_in_two_modules():
    """The letters use only its typefaces."""
    root = os.path.dirname(os.path.dirname(plots.__file__))
    found = []
    for folder, _, files in os.walk(root):
        for name in files:
            if name.endswith(".py"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    lines = [line.strip() for line in file]
                if any(line.startswith(("import matplotlib", "from matplotlib")) for line in lines):
                    found.append(os.path.relpath(os.path.join(folder, name), root))
    assert sorted(found) == [os.path.join("data", "letters.py"), os.path.join("visualization", "style.py")]
