"""The official lists of LFW and Omniglot; incomplete lists are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twinned.data.benchmarks import official_protocol, read_lfw, read_omniglot_runs
from twinned.errors import DataError


@pytest.fixture
def lfw(tmp_path: Path) -> Path:
    """Two folds of two pairs in the layout of LFW, with images and lists in separate folders."""
    for person, count in (("Ann_Lee", 3), ("Bo", 2), ("Cy_X", 2), ("Di", 1)):
        folder = tmp_path / "images" / person
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{person}_{number + 1:04d}.jpg").write_bytes(b"jpg")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "pairs.txt").write_text("2\t1\nAnn_Lee\t1\t3\nBo\t2\tDi\t1\nCy_X\t1\t2\nDi\t1\tAnn_Lee\t2\n")
    (lists / "pairsDevTest.txt").write_text("1\nBo\t1\t2\nBo\t1\tDi\t1\n")
    return tmp_path


def test_lfw_folds_are_read(lfw):
    assert official_protocol(lfw) == "lfw"
    found = read_lfw(lfw)
    names = [Path(image).stem for image in found.pairs.images]
    pairs = [(names[a], names[b]) for a, b in zip(found.pairs.left, found.pairs.right)]
    assert pairs == [
        ("Ann_Lee_0001", "Ann_Lee_0003"),
        ("Bo_0002", "Di_0001"),
        ("Cy_X_0001", "Cy_X_0002"),
        ("Di_0001", "Ann_Lee_0002"),
    ]
    assert found.pairs.same.tolist() == [True, False, True, False]
    assert found.fold.tolist() == [0, 0, 1, 1]
    assert found.people.tolist() == [name.rpartition("_")[0] for name in names]
    assert len(names) == len(set(names)) == 7


def test_lfw_view_1_and_linked_folders_are_read(lfw, tmp_path):
    found = read_lfw(lfw / "lists" / "pairsDevTest.txt")
    assert found.fold.tolist() == [0, 0]
    assert found.pairs.same.tolist() == [True, False]
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("images", "lists"):
        (linked / name).symlink_to(lfw / name)
    assert len(read_lfw(linked).pairs) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the numbers of folds and of pairs"),
        ("x\t1\n", "line 1: expected the numbers"),
        ("1\t2\t3\n", "line 1: expected the numbers"),
        ("0\n", "line 1: expected the numbers"),
        ("1\t1\nBo\t1\n", "line 2: expected NAME N M or NAME N NAME M"),
        ("1\t1\nBo\t1\tx\n", "line 2: expected NAME N M"),
        ("1\t1\nBo\t1\t9\n", "line 2: no image Bo_0009"),
        ("1\t1\nBo\t1\t2\nEve\t1\tBo\t1\n", "line 3: no image Eve_0001"),
        ("2\t1\nBo\t1\t2\nBo\t1\tDi\t1\n", "declares 4 pairs; got 2"),
    ],
)
def test_damaged_lfw_list_error_names_the_line(lfw, text, message):
    (lfw / "lists" / "pairs.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_lfw(lfw)


def test_folders_without_lists_are_refused(lfw, tmp_path):
    for read in (read_lfw, read_omniglot_runs):
        with pytest.raises(DataError, match=r"No (pairs\.txt|run) found"):
            read(lfw / "images")
    with pytest.raises(DataError, match="no such folder"):
        read_lfw(tmp_path / "nowhere")
    (lfw / "lists" / "pairs.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        read_lfw(lfw)
    assert official_protocol(lfw / "images") is None
    assert official_protocol(lfw / "lists" / "pairs.txt") is None


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for run in ("run01", "run02"):
        for side in ("test", "training"):
            (tmp_path / run / side).mkdir(parents=True)
            for number in range(3):
                name = f"{run}/{side}/{'item' if side == 'test' else 'class'}{number}.png"
                (tmp_path / name).write_bytes(b"png")
        lines = [f"{run}/test/item{n}.png {run}/training/class{2 - n}.png" for n in range(3)]
        (tmp_path / run / "class_labels.txt").write_text("\n".join(lines))
    return tmp_path


def test_omniglot_runs_are_read(runs):
    assert official_protocol(runs) == "omniglot-runs"
    found = read_omniglot_runs(runs)
    assert [run.name for run in found] == ["run01", "run02"]
    assert found[0].answers == [2, 1, 0]
    assert [Path(p).name for p in found[1].support] == ["class0.png", "class1.png", "class2.png"]
    assert all(Path(p).is_file() for run in found for p in (*run.queries, *run.support))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "each line must have a test and a training image"),
        ("run01/test/item0.png", "each line must have"),
        ("run01/test/item9.png run01/training/class0.png", "item9.png: listed in .*, but missing"),
        ("run01/test/item0.png run01/training/class9.png", "class9.png: listed in"),
        ("run01/test/item0.png run01/test/item1.png", "item1.png: listed in"),
        ("run01/test/item0.png run01/training/class0.png", "same numbers of images"),
    ],
)
def test_damaged_omniglot_runs_are_refused(runs, text, message):
    (runs / "run01" / "class_labels.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_omniglot_runs(runs)


def test_real_lists_are_complete(data_set):
    runs = read_omniglot_runs(data_set("omniglot/all_runs"))
    assert [len(run.queries) for run in runs] == [20] * 20
    assert all(sorted(run.answers) == list(range(20)) for run in runs)
    found = read_lfw(data_set("lfw_crop96").parent)
    assert np.bincount(found.fold).tolist() == [600] * 10
    assert found.pairs.same.sum() == 3000
    assert len(set(found.people.tolist())) == 4281
