"""Duplicates: copies are found, similar images are not reported."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from twinned.data.checks.duplicates import identical, joined, lookalikes
from twinned.data.checks.file_features import gather
from twinned.data.images import open_image
from twinned.data.readers import find_images


def pictures(count: int, side: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    grown = [Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC) for c in coarse]
    return np.stack([np.asarray(g) for g in grown])


def near(images: Any) -> list[list[int]]:
    thumbnails = gather(images).thumbnails
    assert thumbnails is not None
    return lookalikes(images, thumbnails)


# Identical files


@given(st.lists(st.binary(max_size=3), max_size=12))
def test_identical_equals_a_loop(contents: list[bytes]) -> None:
    groups = identical([b"head" + content for content in contents])
    together = {frozenset(group) for group in groups}
    expected = {frozenset(i for i, c in enumerate(contents) if c == content) for content in contents}
    assert together == {group for group in expected if len(group) > 1}


def test_identical_files(tmp_path: Path) -> None:
    contents = [bytes(5000) + b"a", bytes(5000) + b"b", bytes(5000) + b"a", b"short", b"", b"", b"short"]
    paths = []
    for i, content in enumerate(contents):
        paths.append(str(tmp_path / str(i)))
        Path(paths[-1]).write_bytes(content)
    paths.append(str(tmp_path / "missing"))
    assert identical(paths) == [[0, 2], [3, 6]]  # empty files are reported as damaged


def test_only_files_of_equal_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for i in range(20):
        paths.append(str(tmp_path / str(i)))
        Path(paths[-1]).write_bytes(bytes(100 + i))
    monkeypatch.setattr("builtins.open", lambda *_: pytest.fail("a file was opened"))
    assert identical(paths) == []


def test_identical_arrays_and_pictures() -> None:
    arrays = pictures(5)
    arrays[4] = arrays[1]
    assert identical(arrays) == [[1, 4]]
    assert identical([Image.fromarray(a) for a in arrays]) == [[1, 4]]
    assert identical([arrays[0], arrays[0].reshape(32, 128), arrays[0].view(np.int8)]) == []


# Look-alikes

CHANGES = {
    "jpeg": lambda im: reopened(im, "JPEG", quality=50),
    "webp": lambda im: reopened(im, "WEBP", quality=60),
    "half": lambda im: im.resize((im.width // 2, im.height // 2), Image.Resampling.BICUBIC),
    "larger": lambda im: im.resize((im.width * 2, im.height * 3), Image.Resampling.LANCZOS),
    "brighter": lambda im: im.point(lambda v: v // 2 + 100),
    "darker": lambda im: im.point(lambda v: v // 2),
    "colour": lambda im: im.convert("RGB"),
    "palette": lambda im: im.quantize(64).convert("L"),
}


def reopened(image: Image.Image, kind: str, **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    image.convert("L").save(buffer, kind, **options)
    return Image.open(buffer)


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found_among_many(change: str) -> None:
    originals = [Image.fromarray(p) for p in pictures(300)]
    copies = [CHANGES[change](originals[i]) for i in range(0, 300, 10)]
    assert near([*originals, *copies]) == [[10 * i, 300 + i] for i in range(30)]


def test_several_copies_are_one_group() -> None:
    originals = [Image.fromarray(p) for p in pictures(50)]
    copies = [reopened(originals[7], "JPEG", quality=q) for q in (40, 60, 80)]
    assert near([*originals, *copies]) == [[7, 50, 51, 52]]


def test_flat_images_are_not_duplicates() -> None:
    assert near([np.full((40, 40), level, np.uint8) for level in (0, 50, 100, 200)]) == []


def test_few_or_no_images() -> None:
    assert near([]) == []
    assert near(list(pictures(1))) == []
    assert near([pictures(1)[0], Image.fromarray(pictures(1)[0])]) == [[0, 1]]


def test_cost_is_linear_in_the_images() -> None:
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 256, (20_000, 16, 16), dtype=np.uint8)
    blank = [np.zeros((16, 16), np.uint8)] * len(thumbnails)
    start = time.process_time()
    assert lookalikes(blank, thumbnails) == []
    assert time.process_time() - start < 8


def test_joined_groups_are_transitive() -> None:
    assert joined(8, [(6, 1), (2, 6), (4, 5)]) == [[1, 2, 6], [4, 5]]
    assert joined(3, []) == []


# Real data: only copies are found, not similar images


@pytest.mark.parametrize("name", ["omniglot/images_background_small1", "cedar_signatures", "orl_faces"])
def test_similar_real_images_are_not_duplicates(name: str, data_set: Any) -> None:
    files = find_images(data_set(name))
    copied = [open_image(files[i]) for i in range(0, len(files), 40)]
    copies = [
        reopened(im, "JPEG", quality=50) if i % 2 else CHANGES["half"](im) for i, im in enumerate(copied)
    ]
    found = near([*files, *copies])
    pairs = {tuple(group) for group in found}
    expected = {(40 * i, len(files) + i) for i in range(len(copies))}
    assert pairs <= expected
    assert len(pairs) >= 0.9 * len(expected)
