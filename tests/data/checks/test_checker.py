"""check_data: each kind of problem with its files and severity; no problems in good data."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from twinned.data.checks.checker import check_data
from twinned.data.checks.issues import Check, Issue, Kind
from twinned.data.datasets import ImageSet, PairSet
from twinned.data.preprocessing import ImageSpec
from twinned.data.readers import load, load_images


def picture(seed: int, side: int = 48) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def folders(root: Path, *, classes: int = 13, images: int = 3) -> Path:
    for label in range(classes):
        (root / f"c{label:02}").mkdir(parents=True)
        for i in range(images):
            picture(100 * label + i).save(root / f"c{label:02}" / f"{i}.png")
    return root


def table(path: Path, rows: Iterable[Sequence[object]]) -> ImageSet | PairSet:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return load(path)


def problems(found: Check, kind: str) -> list[Issue]:
    return [problem for problem in found.problems if problem.kind == kind]


def relative(files: list[str], root: Path) -> list[str]:
    return [str(Path(file).relative_to(root)) for file in files]


def test_good_data_has_no_problems(tmp_path: Path) -> None:
    found = check_data(load(folders(tmp_path)))
    assert found.problems == []
    assert found.to_json() == {"images": 39, "classes": 13, "problems": []}


def test_blank_and_unsupported_images_are_reported(tmp_path: Path) -> None:
    folders(tmp_path)
    Image.new("RGB", (48, 48), "white").save(tmp_path / "c00/3.png")
    Image.new("L", (40, 40), 1).save(tmp_path / "c01/3.png")
    (tmp_path / "c02/4.heic").touch()
    data = load(tmp_path)
    left_out, blank = problems(check_data(data), "unreadable")
    assert "1 .heic" in left_out.message
    assert left_out.severity == blank.severity == "warning"
    assert relative(blank.files, tmp_path) == ["c00/3.png", "c01/3.png"]
    assert problems(check_data(data, quick=True), "unreadable") == []


def test_json_schema(tmp_path: Path) -> None:
    folders(tmp_path, classes=3)
    (tmp_path / "c00/0.png").write_bytes(b"")
    (tmp_path / "c00/1.png").write_bytes((tmp_path / "c01/1.png").read_bytes())
    result = json.loads(json.dumps(check_data(load(tmp_path)).to_json()))
    assert set(result) == {"images", "classes", "problems"}
    assert (result["images"], result["classes"]) == (9, 3)
    severities = [problem["severity"] for problem in result["problems"]]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    for problem in result["problems"]:
        assert set(problem) == {"kind", "severity", "message", "files"}
        assert problem["kind"] in get_args(Kind)
        assert "\n" not in problem["message"]
        assert all(isinstance(file, str) for file in problem["files"])


def test_check_changes_no_files(tmp_path: Path) -> None:
    folders(tmp_path, classes=4)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    check_data(load(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


# Files


def test_unreadable(tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / "c00/0.png").write_bytes(b"")
    (tmp_path / "c01/0.png").write_bytes((tmp_path / "c01/1.png").read_bytes()[:500])
    (found,) = check_data(load(tmp_path)).problems
    assert (found.kind, found.severity) == ("unreadable", "error")
    assert relative(found.files, tmp_path) == ["c00/0.png", "c01/0.png"]
    assert "2 images of 39" in found.message
    assert "is empty" in found.message
    (quick,) = check_data(load(tmp_path), quick=True).problems
    assert relative(quick.files, tmp_path) == ["c00/0.png"]


def test_all_images_unreadable(tmp_path: Path) -> None:
    folders(tmp_path, classes=2)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    for quick in (False, True):
        found = check_data(load(tmp_path), quick=quick)
        assert [problem.kind for problem in found.problems] == ["unreadable", "too_few"]
        pairs = table(tmp_path / "p.csv", [("left", "right", "same"), ("c00/0.png", "c00/1.png", 1)])
        assert [p.kind for p in check_data(pairs, quick=quick).problems] == ["unreadable", "too_few"]


def test_odd_modes(tmp_path: Path) -> None:
    folders(tmp_path)
    picture(9001).convert("RGB").save(tmp_path / "c00/0.png")
    (found,) = check_data(load(tmp_path)).problems
    assert (found.kind, found.severity) == ("mode", "info")
    assert relative(found.files, tmp_path) == ["c00/0.png"]
    assert "38 images of mode L, but also 1 RGB" in found.message
    picture(9002).convert("CMYK").save(tmp_path / "c01/0.tif")
    (found,) = problems(check_data(load(tmp_path)), "mode")
    assert found.severity == "warning"
    assert "1 CMYK" in found.message


def test_animations(tmp_path: Path) -> None:
    folders(tmp_path)
    first, second = picture(9001), picture(9002)
    first.quantize(64).save(tmp_path / "c00/moving.gif", save_all=True, append_images=[second.quantize(64)])
    several = [p for p in problems(check_data(load(tmp_path)), "mode") if "several frames" in p.message]
    assert [relative(problem.files, tmp_path) for problem in several] == [["c00/moving.gif"]]


def test_odd_sizes(tmp_path: Path) -> None:
    folders(tmp_path)
    picture(9001, 400).save(tmp_path / "c00/0.png")
    picture(9002).resize((200, 20)).save(tmp_path / "c01/0.png")
    (found,) = check_data(load(tmp_path)).problems
    assert (found.kind, found.severity) == ("size", "info")
    assert relative(found.files, tmp_path) == ["c00/0.png", "c01/0.png"]
    assert "400x400" in found.message
    small = problems(check_data(load(tmp_path), spec=ImageSpec(height=112, width=112)), "size")[0]
    assert small.severity == "warning"
    assert len(small.files) == 38


# Classes


def test_single_image_classes(tmp_path: Path) -> None:
    folders(tmp_path)
    for name in ("c00/1.png", "c00/2.png", "c01/1.png", "c01/2.png"):
        (tmp_path / name).unlink()
    found = check_data(load(tmp_path))
    (single,) = problems(found, "single_image_class")
    assert relative(single.files, tmp_path) == ["c00/0.png", "c01/0.png"]
    assert "2 of 13 classes" in single.message


def test_imbalance(tmp_path: Path) -> None:
    folders(tmp_path)
    for i in range(40):
        picture(5000 + i).save(tmp_path / f"c05/more{i}.png")
    (found,) = check_data(load(tmp_path)).problems
    assert (found.kind, len(found.files)) == ("imbalance", 43)
    assert "c05 has 43 images" in found.message


@pytest.mark.parametrize(("classes", "severity"), [(1, "error"), (2, "warning"), (4, "info"), (12, None)])
def test_too_few_classes(classes: int, severity: str | None, tmp_path: Path) -> None:
    found = problems(check_data(load(folders(tmp_path, classes=classes))), "too_few")
    assert [problem.severity for problem in found] == ([severity] if severity else [])


def test_forgeries_do_not_count_as_class_members(tmp_path: Path) -> None:
    data = load(folders(tmp_path, classes=12))
    assert isinstance(data, ImageSet)
    forged = np.zeros(len(data), np.bool_)
    forged[:2] = True  # the first class has one genuine image left
    found = check_data(replace(data, forgery=forged))
    assert [p.kind for p in found.problems] == ["too_few", "single_image_class"]
    assert found.problems[1].files == [str(data.images[2])]


# Duplicates


def copied(root: Path, source: str, target: str) -> None:
    shutil.copy(root / source, root / target)


def resaved(root: Path, source: str, target: str) -> None:
    Image.open(root / source).save(root / target, quality=70)


def test_duplicates_within_and_across_classes(tmp_path: Path) -> None:
    folders(tmp_path)
    copied(tmp_path, "c00/0.png", "c00/copy.png")
    copied(tmp_path, "c01/0.png", "c02/copy.png")
    across, within = check_data(load(tmp_path)).problems
    assert (across.kind, across.severity) == ("duplicate", "error")
    assert relative(across.files, tmp_path) == ["c01/0.png", "c02/copy.png"]
    assert "under several labels, byte for byte" in across.message
    assert "(c01)" in across.message
    assert (within.kind, within.severity) == ("duplicate", "warning")
    assert relative(within.files, tmp_path) == ["c00/0.png", "c00/copy.png"]
    (quick,) = check_data(load(tmp_path), quick=True).problems
    assert quick == across


def test_near_duplicates_within_and_across_classes(tmp_path: Path) -> None:
    folders(tmp_path)
    resaved(tmp_path, "c00/0.png", "c00/copy.jpg")
    resaved(tmp_path, "c01/0.png", "c02/copy.bmp")
    near = problems(check_data(load(tmp_path)), "near_duplicate")
    assert [problem.severity for problem in near] == ["warning", "info"]
    assert relative(near[0].files, tmp_path) == ["c01/0.png", "c02/copy.bmp"]
    assert relative(near[1].files, tmp_path) == ["c00/0.png", "c00/copy.jpg"]


def test_image_both_genuine_and_forged(tmp_path: Path) -> None:
    folders(tmp_path, classes=12)
    copied(tmp_path, "c00/0.png", "c00/copy.png")
    data = load(tmp_path)
    assert isinstance(data, ImageSet)
    forged = np.array([str(name).endswith("copy.png") for name in data.images])
    (found,) = problems(check_data(replace(data, forgery=forged)), "duplicate")
    assert found.severity == "error"
    assert "forgery of c00" in found.message


def with_split(root: Path, *, copies: int = 0, near: int = 0) -> ImageSet:
    """Write 13 training and 13 test classes; some test files are copies of training files."""
    folders(root, classes=26)
    rows: list[tuple[object, ...]] = [("path", "label", "split", "group")]
    for label in range(26):
        split = "train" if label < 13 else "test"
        rows += [(f"c{label:02}/{i}.png", f"c{label:02}", split, f"g{label // 2}") for i in range(3)]
    for i in range(copies):
        copied(root, f"c{i:02}/0.png", f"c{13 + i:02}/0.png")
    for i in range(near):
        resaved(root, f"c{i:02}/1.png", f"c{13 + i:02}/1.jpg")
        rows.append((f"c{13 + i:02}/1.jpg", f"c{i:02}", "test", f"x{i}"))
    data = table(root / "list.csv", rows)
    assert isinstance(data, ImageSet)
    return data


def test_test_files_copied_from_training(tmp_path: Path) -> None:
    """A public signature set has 500 test files that are copies of training files."""
    found = problems(check_data(with_split(tmp_path, copies=8)), "duplicate")
    (leaked,) = [problem for problem in found if "in several splits" in problem.message]
    assert leaked.severity == "error"
    assert "8 pictures" in leaked.message
    assert "(train)" in leaked.message
    assert len(leaked.files) == 16
    assert leaked.files[:2] == [str(tmp_path / "c00/0.png"), str(tmp_path / "c13/0.png")]


def test_near_copies_across_splits(tmp_path: Path) -> None:
    found = problems(check_data(with_split(tmp_path, near=3)), "near_duplicate")
    (leaked,) = [problem for problem in found if "in several splits" in problem.message]
    assert leaked.severity == "warning"
    assert len(leaked.files) == 6


# Splits


def test_groups_across_splits(tmp_path: Path) -> None:
    (found,) = problems(check_data(with_split(tmp_path)), "group_straddles_split")
    assert found.severity == "error"
    assert "1 group with images in several splits: g6" in found.message
    assert {Path(file).parent.name for file in found.files} == {"c12", "c13"}


def test_classes_across_splits(tmp_path: Path) -> None:
    folders(tmp_path)
    rows = [
        (f"c{label:02}/{i}.png", label, "test" if i == 2 and label < 4 else "train")
        for label in range(13)
        for i in range(3)
    ]
    (found,) = check_data(table(tmp_path / "list.csv", [("path", "label", "split"), *rows])).problems
    assert (found.kind, found.severity, len(found.files)) == ("group_straddles_split", "warning", 12)
    assert "4 classes" in found.message


def test_folders_named_train_and_test(tmp_path: Path) -> None:
    folders(tmp_path / "train")
    folders(tmp_path / "Test", classes=2)
    for path in (tmp_path / "Test").rglob("1.png"):
        picture(7000 + int(path.parent.name[1:])).save(path)
    found = check_data(load(tmp_path))
    (straddles,) = problems(found, "group_straddles_split")
    assert straddles.severity == "error"
    assert "2 classes" in straddles.message
    assert "give one of the folders" in straddles.message
    (leaked,) = problems(found, "duplicate")
    assert "in several splits" in leaked.message  # one class, two folders: no label is wrong
    assert "4 pictures" in leaked.message


# Pair lists


def pairs_csv(root: Path, rows: list[tuple[str, str, int]]) -> PairSet:
    folders(root, classes=40, images=2)
    same = [(f"c{i:02}/0.png", f"c{i:02}/1.png", 1) for i in range(40)]
    different = [(f"c{i:02}/0.png", f"c{(i + 1) % 40:02}/1.png", 0) for i in range(40)]
    pairs = table(root / "pairs.csv", [("left", "right", "same"), *same, *different, *rows])
    assert isinstance(pairs, PairSet)
    return pairs


def test_good_pair_list_has_no_problems(tmp_path: Path) -> None:
    found = check_data(pairs_csv(tmp_path, []))
    assert found.to_json() == {"images": 80, "classes": None, "problems": []}


def test_copies_in_pair_lists(tmp_path: Path) -> None:
    folders(tmp_path / "x", classes=1)
    pairs = pairs_csv(
        tmp_path / "y",
        [
            ("c00/0.png", "a.png", 0),
            ("c01/0.png", "b.png", 1),
            ("c02/0.png", "c.jpg", 0),
            ("c03/0.png", "c03/0.png", 1),
            ("d.png", "c10/0.png", 0),
            ("c05/1.png", "c05/0.png", 0),  # above: 1
        ],
    )
    for i, name in enumerate("ab"):
        copied(tmp_path / "y", f"c{i:02}/0.png", f"{name}.png")
    resaved(tmp_path / "y", "c02/0.png", "c.jpg")
    copied(tmp_path / "y", "c04/0.png", "d.png")
    found = check_data(pairs)
    found_problems = {
        (p.kind, p.severity, p.message.partition(":")[0]): relative(p.files, tmp_path / "y")
        for p in found.problems
        if p.kind in ("duplicate", "near_duplicate")
    }
    assert found_problems == {
        ("duplicate", "error", "1 pair paired both as same and as different"): ["c05/0.png", "c05/1.png"],
        ("duplicate", "error", "1 picture paired as different, byte for byte"): ["c00/0.png", "a.png"],
        ("duplicate", "warning", "2 pictures paired as same, byte for byte"): [
            "c01/0.png",
            "b.png",
            "c03/0.png",
        ],
        ("duplicate", "warning", "1 picture under several names, byte for byte"): ["c04/0.png", "d.png"],
        (
            "near_duplicate",
            "warning",
            "1 picture paired as different, nearly the same at up to 96 x 96 pixels",
        ): [
            "c02/0.png",
            "c.jpg",
        ],
    }


def test_unreadable_pairs_are_skipped(tmp_path: Path) -> None:
    pairs = pairs_csv(tmp_path, [("gone.png", "c00/0.png", 1)])
    (found,) = check_data(pairs).problems
    assert (found.kind, relative(found.files, tmp_path)) == ("unreadable", ["gone.png"])


@pytest.mark.parametrize(
    ("same", "kind", "severity"),
    [
        ([1] * 40, "too_few", "error"),
        ([1] * 5 + [0] * 40, "too_few", "warning"),
        ([1] * 31 + [0] * 300, "imbalance", "warning"),
    ],
)
def test_counts_of_same_and_different_pairs(
    same: list[int], kind: str, severity: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    pictures: NDArray[np.uint8] = rng.integers(0, 256, (2 * len(same), 20, 20), dtype=np.uint8)
    place = np.arange(len(same))
    pairs = PairSet(images=pictures, left=place, right=place + len(same), same=np.array(same, np.bool_))
    assert [(p.kind, p.severity) for p in check_data(pairs).problems] == [(kind, severity)]


# Shortcuts


def test_shortcut_is_reported_with_its_interval(tmp_path: Path) -> None:
    folders(tmp_path, images=6)
    for label in range(13):
        for path in (tmp_path / f"c{label:02}").iterdir():
            Image.open(path).resize((48, 40 + label)).save(path)
    for quick in (False, True):
        (found,) = check_data(load(tmp_path), quick=quick).problems
        assert (found.kind, found.severity) == ("shortcut", "error")
        assert "AUC 1.00 (95 % interval 1.00 to 1.00; 0.5 is chance), by height" in found.message


def test_arrays_are_reported_by_index() -> None:
    pictures = np.stack([np.asarray(picture(i)) for i in range(36)])
    pictures[30] = pictures[3]
    (found,) = check_data(load_images(pictures, np.arange(36) // 3)).problems
    assert (found.kind, found.files) == ("duplicate", ["image 3", "image 30"])


# Real data


def test_quick_check_takes_under_5_seconds(data_set: Any) -> None:
    data = load(data_set("lfw_crop96"))
    start = time.process_time()
    found = check_data(data, quick=True)
    assert time.process_time() - start < 5
    assert (found.images, found.classes) == (13233, 5749)
    assert {p.kind for p in found.problems} == {"single_image_class", "imbalance"}
    (single,) = problems(found, "single_image_class")
    assert len(single.files) == 4069


@pytest.mark.parametrize("name", ["omniglot/images_background_small1", "orl_faces"])
def test_real_data_without_problems(name: str, data_set: Any) -> None:
    assert check_data(load(data_set(name))).problems == []


def test_cedar_folders_are_separable_by_background(data_set: Any) -> None:
    """Genuine and forged signatures differ in the background."""
    found = problems(check_data(load(data_set("cedar_signatures"))), "shortcut")
    assert [problem.severity for problem in found] == ["error"]
    assert "background" in found[0].message
