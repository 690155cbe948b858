"""Decoding: order, unreadable images, and the memory-mapped file of large sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinned.data import decoded as module
from twinned.data.decoded import decode
from twinned.data.preprocessing import ImageSpec, read_image

SPEC = ImageSpec(height=9, width=12, channels=1)


def pictures(folder: Path, count: int) -> list[str]:
    paths = [str(folder / f"{i:03}.png") for i in range(count)]
    for i, path in enumerate(paths):
        Image.new("L", (12, 9), i % 256).save(path)
    return paths


@pytest.fixture(params=[True, False], ids=["memory", "file"])
def small_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(module, "IN_MEMORY_BYTES", 1000)
    return not request.param


def test_images_keep_their_order(small_memory: bool, tmp_path: Path) -> None:
    paths = pictures(tmp_path, 600)
    decoded = decode(paths, SPEC)
    assert decoded.pixels.shape == (600, 9, 12, 1)
    assert decoded.pixels.dtype == np.uint8
    assert isinstance(decoded.pixels, np.memmap) == small_memory
    np.testing.assert_array_equal(decoded.pixels[:, 0, 0, 0], np.arange(600) % 256)
    np.testing.assert_array_equal(decoded.pixels[7], read_image(paths[7], SPEC))
    np.testing.assert_array_equal(decoded.kept, np.arange(600))
    assert decoded.unreadable == []


def test_unreadable_images_are_skipped_and_listed(small_memory: bool, tmp_path: Path) -> None:
    paths = pictures(tmp_path, 20)
    Path(paths[0]).write_bytes(b"")
    Path(paths[7]).write_bytes(Path(paths[7]).read_bytes()[:40])
    Path(paths[19]).unlink()
    decoded = decode(paths, SPEC)
    kept = [i for i in range(20) if i not in (0, 7, 19)]
    assert decoded.kept.tolist() == kept
    assert decoded.pixels[:][:, 0, 0, 0].tolist() == kept
    assert [error.source for error in decoded.unreadable] == [paths[i] for i in (0, 7, 19)]
    assert "empty" in decoded.unreadable[0].reason


def test_no_readable_image_gives_no_pixels(tmp_path: Path) -> None:
    assert decode([str(tmp_path / "gone.png")], SPEC).pixels.shape == (0, 9, 12, 1)
    assert decode([], SPEC).pixels.shape == (0, 9, 12, 1)


def test_arrays_are_decoded() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 12), dtype=np.uint8)
    np.testing.assert_array_equal(decode(pixels, SPEC).pixels[:, :, :, 0], pixels)


def test_progress_bar_requires_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decode(pictures(tmp_path, 3), SPEC, progress=True)
    assert capsys.readouterr() == ("", "")
