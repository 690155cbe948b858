"""Pixel stores can be indexed like arrays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from twinned.data import pixel_stores
from twinned.data.decoded import DecodedSet, decode
from twinned.data.pixel_stores import JoinedPixels, PixelRows, PixelStore, StreamedPixels
from twinned.data.preprocessing import ImageSpec
from twinned.data.readers import load_images
from twinned.errors import ImageError

SPEC = ImageSpec(height=9, width=12, channels=3)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, *SPEC.shape), dtype=np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / f"{number:02}.png") for number in range(len(PIXELS))]
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def stores(files: list[str]) -> dict[str, PixelStore]:
    order = np.random.default_rng(1).permutation(40)
    back = np.argsort(order)
    return {
        "rows": PixelRows(PIXELS[order], back),
        "rows of rows": PixelRows(PixelRows(PIXELS[order], back[::-1]), np.arange(40)[::-1]),
        "joined": JoinedPixels([PIXELS[:7], PixelRows(PIXELS, np.arange(7, 30)), PIXELS[30:]]),
        "streamed": StreamedPixels(files, SPEC),
    }


def test_stores_index_like_arrays(files: list[str]) -> None:
    random = np.random.default_rng(2)
    for name, store in stores(files).items():
        assert (len(store), store.shape) == (40, PIXELS.shape), name
        for index in (
            3,
            -1,
            slice(None),
            slice(5, 25, 3),
            slice(0, 0),
            random.integers(40, size=50),
            random.random(40) < 0.5,
            [3, 1],
        ):
            np.testing.assert_array_equal(store[index], PIXELS[index], err_msg=name)
        np.testing.assert_array_equal(list(store), PIXELS)
        with pytest.raises(IndexError):
            store[40]


def test_nested_rows_share_one_store() -> None:
    rows = PixelRows(PixelRows(PIXELS, np.arange(30)), np.array([4, 2]))
    assert rows.store is PIXELS
    assert rows.rows.tolist() == [4, 2]


def test_splits_copy_no_pixels() -> None:
    data = DecodedSet.from_images(load_images(PIXELS, np.repeat(np.arange(8), 5)), SPEC, progress=False)
    first, second = data.partition(np.arange(40) % 2 == 0)
    for part in (first, second, second.subset(np.arange(4))):
        assert isinstance(part.pixels, PixelRows)
        assert part.pixels.store is data.pixels
    np.testing.assert_array_equal(second.pixels[:], PIXELS[::2])


def test_large_set_is_streamed_if_the_disk_is_full(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path(files[4]).write_bytes(b"broken")
    expected = decode(files, SPEC, progress=False)
    monkeypatch.setattr(pixel_stores, "IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(pixel_stores.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000))
    found = decode(files, SPEC, progress=False)
    assert isinstance(found.pixels, StreamedPixels)
    np.testing.assert_array_equal(found.pixels[:], expected.pixels[:])
    assert found.hashes == expected.hashes
    assert found.kept.tolist() == expected.kept.tolist()
    Path(files[0]).unlink()
    with pytest.raises(ImageError, match=r"00\.png: no such file"):
        found.pixels[:2]
