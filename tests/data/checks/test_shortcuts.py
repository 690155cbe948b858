"""Shortcuts: synthetic and real ones are found, none in clean data."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from twinned.data.checks import file_features, shortcuts
from twinned.data.datasets import ImageSet, PairSet
from twinned.data.pairs import make_pairs
from twinned.data.preprocessing import ImageSpec, read_image
from twinned.data.readers import find_images, load, load_images

from ...conftest import slow

Pixels = NDArray[np.uint8]
Spoil = Callable[[Pixels, int, Path], str]


def strokes(label: int, rng: np.random.Generator, side: int = 40) -> Pixels:
    """Draw the figure of a class on white paper at a random place with noise."""
    figure = np.random.default_rng(1000 + label).integers(0, 2, (6, 6)).repeat(4, 0).repeat(4, 1)
    page = np.full((side, side), 245.0)
    top, left = rng.integers(2, side - 26, 2)
    page[top : top + 24, left : left + 24] -= 150 * figure
    return (page + rng.normal(0, 3, page.shape)).clip(0, 255).astype(np.uint8)


def png(pixels: Pixels, _: int, path: Path) -> str:
    Image.fromarray(pixels).save(path.with_suffix(".png"))
    return str(path.with_suffix(".png"))


def look(data: ImageSet | PairSet, **options: Any) -> file_features.Facts:
    return file_features.gather(data.images, **options)


# Class folders. A feature depends on the class: `kind` is the class index.


def size(pixels: Pixels, kind: int, path: Path) -> str:
    return png(np.pad(pixels, ((0, 2 * kind), (0, 0)), mode="edge"), kind, path)


def mode(pixels: Pixels, kind: int, path: Path) -> str:
    return png(np.repeat(pixels[:, :, None], 3, axis=2) if kind % 2 else pixels, kind, path)


def file_format(pixels: Pixels, kind: int, path: Path) -> str:
    target = str(path.with_suffix((".png", ".bmp", ".tif")[kind % 3]))
    Image.fromarray(pixels).save(target)
    return target


def quality(pixels: Pixels, kind: int, path: Path) -> str:
    Image.fromarray(pixels).save(path.with_suffix(".jpg"), quality=50 + 2 * kind)
    return str(path.with_suffix(".jpg"))


def stored(pixels: Pixels, kind: int, path: Path) -> str:
    Image.fromarray(pixels).save(path.with_suffix(".png"), compress_level=0 if kind % 2 else 9)
    return str(path.with_suffix(".png"))


def padded(pixels: Pixels, kind: int, path: Path) -> str:
    target = Path(png(pixels, kind, path))
    target.write_bytes(target.read_bytes() + bytes(1500 * (kind % 4)))
    return str(target)


def metadata(pixels: Pixels, kind: int, path: Path) -> str:
    Image.fromarray(pixels).save(path.with_suffix(".jpg"), comment=b"x" * (1 + 20 * kind))
    return str(path.with_suffix(".jpg"))


def border(pixels: Pixels, kind: int, path: Path) -> str:
    width = kind % 4
    framed = np.zeros_like(pixels) + 20
    framed[width : 40 - width, width : 40 - width] = pixels[width : 40 - width, width : 40 - width]
    return png(framed, kind, path)


def background(pixels: Pixels, kind: int, path: Path) -> str:
    return png(pixels - np.uint8(2 * kind), kind, path)


def tint(pixels: Pixels, kind: int, path: Path) -> str:
    coloured = np.repeat(pixels[:, :, None], 3, axis=2)
    coloured[:, :, 0] -= np.uint8(30 * (kind % 2))
    return png(coloured, kind, path)


SPOILS: list[Spoil] = [
    size,
    mode,
    file_format,
    quality,
    stored,
    padded,
    metadata,
    border,
    background,
    tint,
]
TELLING = {
    size: "height",
    mode: "mode",
    file_format: "format",
    quality: "compression",
    stored: "packing",
    padded: "packing",
    metadata: "metadata",
    border: "frame",
    background: "background",
    tint: "color",
}


def class_folders(
    root: Path, spoil: Spoil, *, classes: int = 16, images: int = 6, by_class: bool, seed: int = 0
) -> ImageSet:
    """Write images whose feature depends on the class (`by_class`) or is random."""
    rng = np.random.default_rng(seed)
    paths, labels = [], []
    for label in range(classes):
        for i in range(images):
            kind = label if by_class else int(rng.integers(classes))
            paths.append(spoil(strokes(label, rng), kind, root / f"{label}-{i}"))
            labels.append(label)
    return load_images(paths, labels)


@pytest.mark.parametrize("spoil", SPOILS)
def test_class_dependent_feature_is_found(spoil: Spoil, tmp_path: Path) -> None:
    data = class_folders(tmp_path, spoil, by_class=True)
    (found,) = shortcuts.of_classes(data, look(data))
    assert found.low > shortcuts.ABOVE
    assert found.low <= found.auc <= found.high <= 1
    assert TELLING[spoil] in found.features


@pytest.mark.parametrize("spoil", [size, quality, padded, border, background])
def test_class_independent_feature_is_not_reported(spoil: Spoil, tmp_path: Path) -> None:
    data = class_folders(tmp_path, spoil, by_class=False)
    assert shortcuts.of_classes(data, look(data)) == []


@pytest.mark.parametrize("seed", [0, *slow(1)])
def test_content_is_not_reported_as_shortcut(seed: int, tmp_path: Path) -> None:
    """Files of classes with more ink are larger, which is content and not a shortcut."""

    def busy(pixels: Pixels, kind: int, path: Path) -> str:
        detail = np.random.default_rng(seed).integers(0, 200, (40, 40))
        covered = np.arange(40)[:, None] < 2 * kind
        return png(np.where(covered, detail, pixels).astype(np.uint8)[2:-2, 2:-2], kind, path)

    data = class_folders(tmp_path, busy, by_class=True, seed=seed)
    assert [one for one in shortcuts.of_classes(data, look(data)) if "packing" in one.features] == []


@pytest.mark.parametrize("classes", [2, 5])
def test_shortcuts_with_few_classes(classes: int, tmp_path: Path) -> None:
    biased = class_folders(tmp_path, quality, classes=classes, images=20, by_class=True)
    (found,) = shortcuts.of_classes(biased, look(biased))
    assert found.auc > 0.9
    (tmp_path / "clean").mkdir()
    for seed in range(2):
        clean = class_folders(
            tmp_path / "clean", quality, classes=classes, images=20, by_class=False, seed=seed
        )
        assert shortcuts.of_classes(clean, look(clean)) == []


def test_header_features_need_no_decoding(tmp_path: Path) -> None:
    data = class_folders(tmp_path, size, by_class=True)
    (found,) = shortcuts.of_classes(data, look(data, decode=False))
    assert "height" in found.features


def test_ink_preprocessing_removes_background_shortcut(tmp_path: Path) -> None:
    ink = ImageSpec(height=32, width=32, channels=1, ink="binary")
    data = class_folders(tmp_path, background, by_class=True)
    assert shortcuts.of_classes(data, look(data, spec=ink)) == []


def test_too_few_images_give_no_result(tmp_path: Path) -> None:
    data = class_folders(tmp_path, size, classes=2, images=2, by_class=True)
    assert shortcuts.of_classes(data, look(data)) == []
    one = class_folders(tmp_path, size, classes=1, images=30, by_class=True)
    assert shortcuts.of_classes(one, look(one)) == []


# Genuine and forgery, from one image


def signatures(root: Path, spoil: Spoil, *, seed: int = 0, writers: int = 12) -> ImageSet:
    """Write equal genuine and forged images per writer, with `spoil` applied to forgeries."""
    rng = np.random.default_rng(seed)
    paths, labels, forged = [], [], []
    for writer in range(writers):
        for i in range(12):
            forgery = i >= 6
            paths.append(spoil(strokes(writer, rng), int(forgery), root / f"{writer}-{i}"))
            labels.append(writer)
            forged.append(forgery)
    return replace(load_images(paths, labels), forgery=np.array(forged))


def darker(pixels: Pixels, kind: int, path: Path) -> str:
    return png(pixels - np.uint8(8 * kind), kind, path)


def lower(pixels: Pixels, kind: int, path: Path) -> str:
    """Move forgeries to the bottom of the page, which only the pixels show."""
    rows = np.flatnonzero((pixels < 180).any(axis=1))
    top = 40 - 1 - rows[-1] if kind else 1 - rows[0]
    return png(np.roll(pixels, int(top), axis=0), kind, path)


@pytest.mark.parametrize(
    ("spoil", "telling"),
    [
        (darker, "background"),
        (quality, "compression"),
        (padded, "file size"),
        (lower, "picture itself"),
        (mode, "mode"),
    ],
)
def test_forgery_shortcut_in_one_image_is_found(spoil: Spoil, telling: str, tmp_path: Path) -> None:
    data = signatures(tmp_path, spoil)
    (found,) = shortcuts.of_roles(data, look(data))
    assert found.low > 0.8
    assert telling in found.features


@pytest.mark.parametrize("seed", [0, *slow(1, 2)])
def test_clean_forgeries_have_no_shortcut(seed: int, tmp_path: Path) -> None:
    data = signatures(tmp_path, png, seed=seed)
    assert shortcuts.of_roles(data, look(data)) == []


def test_forgery_shortcut_must_hold_for_new_writers(tmp_path: Path) -> None:
    """Forgeries are darker for half the writers and lighter for the others."""

    def by_writer(pixels: Pixels, kind: int, path: Path) -> str:
        writer = int(re.findall(r"(\d+)-", path.name)[0])
        up = bool(kind) == bool(writer % 2)
        return png((pixels.astype(int) - 20 * up).clip(0, 255).astype(np.uint8), kind, path)

    data = signatures(tmp_path, by_writer)
    assert shortcuts.of_roles(data, look(data)) == []


def test_forgery_shortcut_depends_on_preprocessing(tmp_path: Path) -> None:
    ink = ImageSpec(height=32, width=32, channels=1, ink="binary")
    data = signatures(tmp_path, darker)
    assert shortcuts.of_roles(data, look(data, spec=ink)) == []


# Pair lists


def pair_list(
    root: Path, *, spoil_left: Spoil, spoil_right: Spoil, seed: int = 0, references: int = 2
) -> PairSet:
    """Write pairs of a reference and a questioned image, spoiled in different pairs."""
    rng = np.random.default_rng(seed)
    rows = []
    for writer in range(16):
        for i in range(6):
            same = i % 2 == 0
            right = spoil_right(strokes(writer, rng), int(not same), root / f"q{writer}-{i}")
            for k in range(references):
                left = spoil_left(strokes(writer, rng), int(not same), root / f"r{writer}-{i}-{k}")
                rows.append((left, right, int(same)))
    with (root / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("left", "right", "same"), *rows])
    pairs = load(root / "pairs.csv")
    assert isinstance(pairs, PairSet)
    return pairs


@pytest.mark.parametrize(
    ("spoil", "telling"), [(darker, "background"), *slow((quality, "compression"), (lower, "picture"))]
)
def test_pair_shortcut_in_right_image_is_found(spoil: Spoil, telling: str, tmp_path: Path) -> None:
    pairs = pair_list(tmp_path, spoil_left=png, spoil_right=spoil)
    found = {one.what: one for one in shortcuts.of_pairs(pairs, look(pairs))}
    (right,) = [one for what, one in found.items() if "right image alone" in what]
    assert right.low > 0.8
    assert telling in right.features
    assert not [what for what in found if "left image alone" in what]


@pytest.mark.slow
def test_pair_shortcut_in_left_image_is_found(tmp_path: Path) -> None:
    pairs = pair_list(tmp_path, spoil_left=darker, spoil_right=png)
    assert any("left image alone" in one.what for one in shortcuts.of_pairs(pairs, look(pairs)))


def test_pair_shortcut_in_both_files_is_found(tmp_path: Path) -> None:
    """Half the images have a frame; only equal framing of both images marks a same pair."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(240):
        same, framed = bool(i % 2), bool(rng.integers(2))
        left = border(strokes(i, rng), 3 * framed, tmp_path / f"l{i}")
        right = border(strokes(i if same else i + 1, rng), 3 * (framed == same), tmp_path / f"r{i}")
        rows.append((left, right, same))
    lefts, rights, same_ = zip(*rows, strict=True)
    place = np.arange(240)
    pairs = PairSet(images=[*lefts, *rights], left=place, right=place + 240, same=np.array(same_))
    (found,) = shortcuts.of_pairs(pairs, look(pairs))
    assert "from the two files" in found.what
    assert "frame" in found.features


@pytest.mark.parametrize("seed", slow(0, 1, 2))
def test_clean_pairs_have_no_shortcut(seed: int, tmp_path: Path) -> None:
    pairs = pair_list(tmp_path, spoil_left=png, spoil_right=png, seed=seed)
    assert shortcuts.of_pairs(pairs, look(pairs)) == []


@pytest.mark.parametrize("seed", [0, *slow(1)])
def test_clean_connected_pairs_have_no_shortcut(seed: int, tmp_path: Path) -> None:
    """Pairs form one connected component, so images recur on both sides of a fold."""
    data = class_folders(tmp_path, png, classes=20, images=5, by_class=False, seed=seed)
    left, right, same = make_pairs(data.labels, pairs=400, seed=seed)
    pairs = PairSet(images=data.images, left=left, right=right, same=same)
    assert len(np.unique(pairs.components())) == 1
    assert shortcuts.of_pairs(pairs, look(pairs)) == []


def test_repeated_questioned_image_is_no_shortcut(tmp_path: Path) -> None:
    """Each questioned image recurs with one answer; only unseen images count."""
    pairs = pair_list(tmp_path, spoil_left=png, spoil_right=png, references=5)
    assert shortcuts.of_pairs(pairs, look(pairs)) == []


# Real data


def cedar(folder: Path) -> ImageSet:
    files = find_images(folder)
    writers = [re.findall(r"_(\d+)_", Path(file).name)[0] for file in files]
    forged = np.array([Path(file).name.startswith("forgeries") for file in files])
    return replace(load_images(files, writers), forgery=forged)


def test_cedar_forgeries_have_a_white_background(data_set: Any) -> None:
    data = cedar(data_set("cedar_signatures")).with_classes([str(i) for i in range(1, 21)])
    (found,) = shortcuts.of_roles(data, look(data))
    assert found.low > 0.95
    assert "background" in found.features


def test_cedar_pair_list_has_a_shortcut_in_right_image(data_set: Any) -> None:
    data = cedar(data_set("cedar_signatures")).with_classes([str(i) for i in range(1, 16)])
    rng = np.random.default_rng(0)
    left, right = [], []
    for writer in data.classes:
        genuine = np.flatnonzero((data.labels == writer) & ~data.forgery)
        forged = np.flatnonzero((data.labels == writer) & data.forgery)
        for other in (genuine[1:], forged):
            left += rng.choice(genuine[:1], 20).tolist()
            right += rng.choice(other, 20).tolist()
    pairs = PairSet(
        images=data.images, left=np.array(left), right=np.array(right), same=~data.forgery[np.array(right)]
    )
    used = pairs.subset(np.ones(len(pairs), np.bool_))
    found = shortcuts.of_pairs(used, look(used))
    assert any("right image alone" in one.what and one.low > 0.9 for one in found)


@pytest.mark.parametrize("name", ["omniglot/images_background_small1", "orl_faces", "logos27"])
def test_real_class_folders_have_no_shortcut(name: str, data_set: Any) -> None:
    data = load_images(data_set(name))
    assert shortcuts.of_classes(data, look(data)) == []


def test_binary_ink_removes_the_cedar_shortcut(data_set: Any) -> None:
    """The handwriting itself remains, with an AUC of 0.62 to 0.70."""
    ink = ImageSpec(height=64, width=128, channels=1, ink="binary")
    data = cedar(data_set("cedar_signatures")).with_classes([str(i) for i in range(1, 16)])
    assert read_image(data.images[0], ink).shape == ink.shape
    found = shortcuts.of_roles(data, look(data, spec=ink))
    assert all(one.auc < 0.8 for one in found)
