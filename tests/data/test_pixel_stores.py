"""Pixel stores can be indexed like arrays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from twinned.data import decoded
from twinned.data.decoded import DecodedSet, LazyHashes, decode, decode_lazily
from twinned.data.pixel_stores import JoinedPixels, LazyPixels, PixelRows, PixelStore, StreamedPixels
from twinned.data.preprocessing import ImageSpec
from twinned.data.readers import load_images
from twinned.data.samplers import Batch, ClassBatches, prefetch
from twinned.errors import ImageError
from twinned.utils import files as written
from twinned.utils.notes import collect

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
        "lazy": LazyPixels(files, SPEC, np.empty(PIXELS.shape, np.uint8)),
        "lazy, not stored": LazyPixels(files, SPEC, None),
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
    monkeypatch.setattr(decoded, "IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000))
    found = decode(files, SPEC, progress=False)
    assert isinstance(found.pixels, StreamedPixels)
    np.testing.assert_array_equal(found.pixels[:], expected.pixels[:])
    assert found.hashes == expected.hashes
    assert found.kept.tolist() == expected.kept.tolist()
    Path(files[0]).unlink()
    with pytest.raises(ImageError, match=r"00\.png: no such file"):
        found.pixels[:2]


def test_lazy_images_equal_decoded_images_and_hashes(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = decode(files, SPEC, progress=False)
    assert isinstance(decode_lazily(files, SPEC, progress=False).pixels, np.ndarray)  # small
    Path(files[4]).write_bytes(b"no image")
    monkeypatch.setattr(decoded, "IN_MEMORY_BYTES", 1000)
    found = decode_lazily(files, SPEC, progress=False)
    kept = np.delete(np.arange(40), 4)
    assert found.kept.tolist() == kept.tolist()
    assert "04.png: is not a supported image" in found.left_out()[0]
    hashes = found.hashes
    assert isinstance(hashes, LazyHashes)
    assert list(hashes[np.array([7, 0])]) == [expected.hashes[8], expected.hashes[0]]
    np.testing.assert_array_equal(found.pixels[5:9], PIXELS[6:10])
    assert list(hashes) == [expected.hashes[i] for i in kept]


def test_undecodable_lazy_images_are_gray_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(6):
            Image.fromarray(PIXELS[number]).save(tmp_path / label / f"{number}.png")
    data = (tmp_path / "b" / "2.png").read_bytes()
    (tmp_path / "b" / "2.png").write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(decoded, "IN_MEMORY_BYTES", 1000)
    found = DecodedSet.from_images(load_images(tmp_path), SPEC, progress=False, lazy=True)
    part = found.subset(np.arange(6, 12))
    before = part.identity()
    assert (part.pixels[2] == 128).all()
    np.testing.assert_array_equal(part.pixels[3], PIXELS[3])
    with collect() as notes:
        found.finish()
    assert [note.code for note in notes] == ["unreadable-images"]
    assert "2.png" in notes[0].text
    assert part.identity() == before != part.sha256()
    written.write_text(tmp_path / "b" / "3.png", "longer or shorter")
    assert part.identity() != before


@pytest.mark.parametrize("stored", [True, False])
def test_missing_file_of_a_lazy_image_raises(files: list[str], stored: bool) -> None:
    pixels = LazyPixels(files, SPEC, np.empty(PIXELS.shape, np.uint8) if stored else None)
    Path(files[3]).unlink()
    np.testing.assert_array_equal(pixels[4:20], PIXELS[4:20])
    for _ in range(2):
        with pytest.raises(ImageError, match=r"03\.png: no such file"):
            pixels[2:5]
    gone = DecodedSet(pixels, None, None, LazyHashes(pixels, np.arange(len(pixels))))
    with pytest.raises(ImageError, match=r"03\.png: cannot be read"):
        gone.identity()


def test_batches_are_prefetched_in_order() -> None:
    batches = ClassBatches(np.repeat(np.arange(8), 5), classes=3, images=2)
    read: list[int] = []

    def of(step: int) -> Batch:
        read.append(step)
        return batches(step)

    with prefetch(of, PIXELS, slice(1, None, 2), depth=2) as ready:
        for step in range(4, 9):
            batch, expected = ready(step), batches(step)
            np.testing.assert_array_equal(batch.index, expected.index)
            np.testing.assert_array_equal(batch.pixels, PIXELS[expected.index[1::2]])
    assert read == list(range(4, 4 + len(read)))
    assert len(read) <= 5 + 2

    def fail(step: int) -> Batch:
        raise ImageError("a.png", "is gone")

    with prefetch(fail, PIXELS) as ready, pytest.raises(ImageError, match="is gone"):
        ready(0)
