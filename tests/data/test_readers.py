"""Readers: folders, CSVs, pair lists and arrays, with notes and errors."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twinned.data.datasets import ImageSet, PairSet
from twinned.data.readers import find_images, load, load_images, load_pairs, load_with_metadata
from twinned.errors import DataError


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(path)


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


# Folders


def test_class_folders_at_any_depth(tmp_path: Path) -> None:
    put(
        tmp_path, "Greek/alpha/1.png", "Greek/alpha/2.png", "Greek/beta/1.png", "plain/1.png", "a/b/c/d/1.png"
    )
    data = load_images(tmp_path)
    assert data.classes == ["Greek/alpha", "Greek/beta", "a/b/c/d", "plain"]
    assert data.labels.tolist() == ["Greek/alpha", "Greek/alpha", "Greek/beta", "a/b/c/d", "plain"]
    assert data.groups.tolist() == ["Greek", "Greek", "Greek", "a/b/c", ""]
    assert data.images[0] == str(tmp_path / "Greek/alpha/1.png")
    assert not data.forgery.any()
    assert data.notes == ()
    assert data.origin == str(tmp_path)


def test_only_visible_image_files_are_found(tmp_path: Path) -> None:
    put(tmp_path, "a/1.PNG", "a/2.jpeg", "a/.hidden.png", ".git/1.png", "__MACOSX/a/1.png", "b/1.png")
    write(tmp_path / "a/notes.txt", "not an image")
    assert [os.path.relpath(p, tmp_path) for p in find_images(tmp_path)] == ["a/1.PNG", "a/2.jpeg", "b/1.png"]
    assert load_images(tmp_path).classes == ["a", "b"]


def test_order_does_not_depend_on_the_file_system(tmp_path: Path) -> None:
    put(tmp_path, "b/2.png", "a/1.png", "b/1.png", "a-b/1.png", "a/z/1.png")
    images = load_images(tmp_path).images
    assert [os.path.relpath(str(p), tmp_path) for p in images] == [
        "a/1.png",
        "a/z/1.png",
        "a-b/1.png",
        "b/1.png",
        "b/2.png",
    ]


def test_images_beside_class_folders_are_ignored_with_a_note(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/1.png", "cover.png")
    data = load_images(tmp_path)
    assert len(data) == 2
    assert data.notes == (f"{tmp_path}: ignored 1 image beside the class folders",)


def test_unsupported_formats_and_empty_folders_are_noted(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "deep/b/1.png")
    for name in ("a/2.HEIC", "phone/1.heic", "phone/scan.pdf", "a/notes.txt", ".hidden/1.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "zoë").mkdir()
    kinds, folders = load_images(tmp_path).notes
    assert "ignored images of unsupported formats (2 .heic, 1 .pdf): save them as PNG or JPEG" in kinds
    assert folders.endswith("ignored folders without images: phone; zoë")


def test_only_unsupported_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna/1.heic").touch()
    with pytest.raises(DataError, match=r"No images of a supported format \(1 .heic: save them as"):
        load_images(tmp_path)


def test_links_are_followed_without_cycles(tmp_path: Path) -> None:
    put(tmp_path / "data", "a/1.png", "b/1.png")
    put(tmp_path, "elsewhere/1.png")
    (tmp_path / "data/a/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/self").symlink_to(tmp_path / "data/self")
    (tmp_path / "data/c").symlink_to(tmp_path / "elsewhere")
    assert load_images(tmp_path / "data").labels.tolist() == ["a", "b", "c"]


def test_unknown_columns_are_noted(tmp_path: Path) -> None:
    pairs, images = tmp_path / "pairs.csv", tmp_path / "images.csv"
    pairs.write_text("left,right,same,relaton,\na.png,b.png,1,near,\n")
    note = f"{pairs}: ignored columns: relaton; known columns: left,right,same,relation"
    assert load_pairs(pairs).notes == (note,)
    images.write_text("path,label,grup,split\na.png,a,1,train\n")
    note = f"{images}: ignored columns: grup; known columns: path,label,split,group,role"
    assert load_images(images).notes == (note,)


def test_names_in_any_script(tmp_path: Path) -> None:
    put(tmp_path, "Zoë/été 1.png", "王/一.png", "a b/it's.png")
    assert load_images(tmp_path).classes == ["Zoë", "a b", "王"]


@pytest.mark.parametrize(
    ("files", "says"),
    [((), "No images"), (("1.png", "2.png"), "2 images, but no class folders")],
)
def test_folder_without_classes_is_refused(files: tuple[str, ...], says: str, tmp_path: Path) -> None:
    put(tmp_path, *files)
    with pytest.raises(DataError, match=says) as caught:
        load_images(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


def test_missing_path_is_refused(tmp_path: Path) -> None:
    for read in (load, load_images, load_pairs):
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "nothing")


# CSVs


def test_csv_with_every_column(tmp_path: Path) -> None:
    path = write(
        tmp_path / "list.csv",
        "path,label,split,group,role\n"
        "a/1.png,anna,train,north,genuine\n"
        f"{tmp_path}/a/2.png, ben ,test,south,forgery\n"
        "a/3.png,ben,test,south,\n",
    )
    data = load_images(path)
    assert data.images == [str(tmp_path / f"a/{i}.png") for i in (1, 2, 3)]
    assert data.labels.tolist() == ["anna", "ben", "ben"]
    assert data.split.tolist() == ["train", "test", "test"]
    assert data.groups.tolist() == ["north", "south", "south"]
    assert data.forgery.tolist() == [False, True, False]


def test_csv_with_two_columns(tmp_path: Path) -> None:
    data = load_images(write(tmp_path / "list.csv", "label,path\nanna,1.png\n"))
    assert data.labels.tolist() == ["anna"]
    assert (data.groups.tolist(), data.split.tolist(), data.forgery.tolist()) == ([""], [""], [False])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_csv_written_by_a_spreadsheet(encoding: str, ending: str, tmp_path: Path) -> None:
    rows = ["Path , LABEL", '"a, b.png",Zoë', "", "c.png,王", ""]
    data = load_images(write(tmp_path / "list.csv", ending.join(rows), encoding))
    assert data.labels.tolist() == ["Zoë", "王"]
    assert data.images[0] == str(tmp_path / "a, b.png")


def test_two_spellings_of_a_path_are_one_image(tmp_path: Path) -> None:
    pairs = load_pairs(
        write(tmp_path / "p.csv", f"left,right,same\na.png,./a.png,1\n.//a.png,{tmp_path}/a.png,1\n")
    )
    assert pairs.images == [str(tmp_path / "a.png")]


HEAD = "path,label,split,group,role\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "first line must be the column names path,label"),
        ("file,class\na.png,b\n", "got file,class"),
        (HEAD, "no images after the first line"),
        (HEAD + "a.png,x,,,\n,x,,,\n", "line 3: path and label must not be empty"),
        (HEAD + "a.png,x,,,\n\nb.png, ,,,\n", "line 4: path and label must not be empty"),
        (HEAD + "a.png,x,,,forged\n", "line 2: role must be genuine or forgery; got 'forged'"),
        (HEAD + "a.png,x,,,,more\n", "line 2: more values than column names"),
        (HEAD + "a.png\n", "line 2: path and label must not be empty"),
        ("left,right,same\na,b,1\n", "pair list"),
    ],
)
def test_invalid_csv_error_names_the_line(text: str, says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", text)
    with pytest.raises(DataError, match=says) as caught:
        load_images(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00broken", "Not a CSV in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "Not a CSV in UTF-8"),
        (b"path,label\n" + b"x" * 200_000, "line 2: not a row of a CSV"),
        (b'path,label\nb,b\n"a' + b"x\n" * 100_000, "line 3: Close or remove the quote"),
    ],
)
def test_malformed_csv_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        load(path)
    assert "\n" not in str(caught.value)


ROWS = [f"c{k // 6}/{k % 6}.png,c{k // 6}" for k in range(48)]
UNCLOSED = r'Close or remove the quote \("\) that opens here\.'


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({30: 'c5/0.png,"c5'}, f"line 32: {UNCLOSED}"),
        ({47: 'c7/5.png,"c7'}, f"line 49: {UNCLOSED}"),  # the last row
        ({47: 'c7/5.png,"'}, f"line 49: {UNCLOSED}"),
        ({20: '"c3/2.png,c3'}, f"line 22: {UNCLOSED}"),
        ({10: 'c1/4.png,"c1', 40: 'c6/4.png,"c6'}, f"line 12: {UNCLOSED}"),
        ({10: 'c1/4.png,"c1', 40: 'c6/4.png,c6"'}, f"line 12: {UNCLOSED}"),
        ({10: '"c1/4.png,c1', 40: '"c6/4.png,c6'}, f"line 12: {UNCLOSED}"),
        ({5: 'c0/5.png,"c0\nmore"'}, f"line 7: {UNCLOSED}"),
        ({5: '"c0/\n5.png",c0'}, f"line 7: {UNCLOSED}"),
        ({5: "c0/5.png,c0\u2028more"}, r"line 7: the label 'c0\\u2028more' has a line break"),
    ],
)
def test_unclosed_quote_is_refused_with_its_line(changes: Any, says: str, end: str, tmp_path: Path) -> None:
    rows = [changes.get(k, row) for k, row in enumerate(ROWS)]
    path = tmp_path / "q.csv"
    path.write_bytes(((end or "\n").join(["path,label", *rows]) + end).encode())
    for read in (load_images, load):
        with pytest.raises(DataError, match=says):
            read(path)


def test_quoted_values_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.csv",
        'path,label,notes\na.png,5" disk,"two\nlines, ""quoted"""\n"b.png",,"x\ry"\n\nc.png,"c,c",\n'.replace(
            '"b.png",,', '"b.png","b" ,'
        ),
    )
    assert load_images(path).labels.tolist() == ['5" disk', "b", "c,c"]
    path = write(tmp_path / "q.csv", 'path,label,notes\na.png,a,"two\nlines"\nb.png,,\n')
    with pytest.raises(DataError, match="line 4: path and label"):
        load_images(path)
    path = write(tmp_path / "q.csv", 'path,label,notes\na.png,a,"two\nlines\nb.png,b,"two"\n')
    with pytest.raises(DataError, match=f"line 2: {UNCLOSED}"):
        load_images(path)


def test_labels_with_line_breaks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels: the label 'a\\nb' has a line break"):
        load_images(["1.png", "2.png"], ["a\nb", "c"])
    put(tmp_path, "a\nb/1.png", "c/1.png")
    with pytest.raises(DataError, match=r"the label 'a\\nb' has a line break"):
        load_images(tmp_path)


def test_other_columns_are_metadata(tmp_path: Path) -> None:
    write(
        tmp_path / "images.csv",
        "path,Label,SKU,price,split,role,\n1.png,a,A 1,9.5,train,,x\n2.png,a,,,,forgery,\n",
    )
    for source in (tmp_path, tmp_path / "images.csv"):
        images, metadata = load_with_metadata(source)
        assert metadata == [{"SKU": "A 1", "price": "9.5", "split": "train"}, {}]
        assert images.labels.tolist() == ["a", "a"]
        assert images.notes == ()
    assert "ignored columns: SKU; price" in load_images(tmp_path).notes[0]
    put(tmp_path / "folders", "a/1.png", "2.png")
    images, metadata = load_with_metadata(tmp_path / "folders")
    assert metadata == [{}]
    assert len(images.notes) == 1


# Unsupported files


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.zip", "This is an archive. Extract it"),
        ("a.tar", "This is an archive. Extract it"),
        ("a.tar.gz", "This is an archive. Extract it"),
        ("a.png", r"expected a folder of class folders or a CSV; got an image \(PNG\)"),
        ("a.xlsx", "This is a workbook. Save the sheet as CSV"),
    ],
)
def test_archives_images_and_workbooks_are_refused(name: str, says: str, tmp_path: Path) -> None:
    put(tmp_path, "in/1.png")
    path = tmp_path / name
    if name.endswith((".zip", ".xlsx")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tmp_path / "in/1.png")
    elif ".tar" in name:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
            archive.add(write(tmp_path / "list.csv", "path,label\n"))
    else:
        put(tmp_path, name)
    for read in (load, load_images, load_pairs):
        with pytest.raises(DataError, match=says) as caught:
            read(path)
        assert "CSV in UTF-8" not in str(caught.value) or name == "a.xlsx"


@pytest.mark.parametrize("kind", [str, Path])
def test_web_address_is_refused(kind: Any) -> None:
    for read in (load, load_images, load_pairs):
        with pytest.raises(
            DataError, match=r"web addresses are not supported: download https://example\.com/a\.zip\.$"
        ):
            read(kind("https://example.com/a.zip"))


@pytest.mark.skipif(os.sep != "/", reason="they are paths there")
@pytest.mark.parametrize("given", ["C:\\data", "C:/data", "..\\data\\a"])
def test_windows_path_is_reported(given: str) -> None:
    for read in (load, load_images, load_pairs):
        with pytest.raises(DataError, match="no such file or folder; this is a Windows path"):
            read(given)


# Pair lists


def test_pair_list(tmp_path: Path) -> None:
    words = ["1", "0", "True", "FALSE", "yes", "no", "same", "different"]
    rows = "".join(f"a.png,{i}.png,{word}\n" for i, word in enumerate(words))
    pairs = load_pairs(write(tmp_path / "pairs.csv", "left,right,same\n" + rows))
    assert pairs.same.tolist() == [True, False] * 4
    assert len(pairs.images) == 9
    assert pairs.images[0] == str(tmp_path / "a.png")
    assert pairs.left.tolist() == [0] * 8
    assert pairs.right.tolist() == list(range(1, 9))
    assert pairs.relation is None


def test_pair_list_with_relations(tmp_path: Path) -> None:
    pairs = load_pairs(write(tmp_path / "p.csv", "left,right,same,relation\na,b,1,twins\nc,a,0,\n"))
    assert pairs.relation is not None
    assert pairs.relation.tolist() == ["twins", ""]
    assert (pairs.left.tolist(), pairs.right.tolist()) == ([0, 2], [1, 0])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("left,right\na,b\n", "first line must be left,right,same; got left,right"),
        ("left,right,same\n", "no pairs after"),
        ("left,right,same\na,b,1\na,b,maybe\n", "line 3: same must be 1 or 0.*'maybe'"),
        ("left,right,same\na,b,\n", "line 2: same must be 1 or 0"),
        ("left,right,same\na,,1\n", "line 2: right is empty"),
        ("left,right,same\na,b,1,1,1\n", "line 2: more values"),
        ('left,right,same\na,b,1\na,"b,1\na,c,1\n', f"line 3: {UNCLOSED}"),
        ('left,right,same\na,b,1\n"a,b,1\na,c,1\n"a,b,1\na,c,1\n', f"line 3: {UNCLOSED}"),
        ('left,right,same\na,b,1\na,c,"1', f"line 3: {UNCLOSED}"),
    ],
)
def test_invalid_pair_list_error_names_the_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        load_pairs(write(tmp_path / "p.csv", text))


def test_load_detects_images_and_pairs(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/1.png")
    assert isinstance(load(tmp_path), ImageSet)
    assert isinstance(load(write(tmp_path / "i.csv", "path,label\na/1.png,a\n")), ImageSet)
    assert isinstance(load(write(tmp_path / "p.csv", "left,right,same\na,b,1\n")), PairSet)


# Arrays


def test_arrays() -> None:
    pixels = np.zeros((4, 8, 8), np.uint8)
    data = load_images(pixels, [3, 3, "x", 4], groups=["g", "g", "h", "h"])
    assert data.labels.tolist() == ["3", "3", "x", "4"]
    assert data.groups.tolist() == ["g", "g", "h", "h"]
    assert data.classes == ["3", "4", "x"]
    assert data.names[0] == "array of shape (8, 8)"
    assert load_images(["a.png", "b.png"], labels=np.array([1, 2])).labels.tolist() == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([np.zeros((8, 8))],), "require labels="),
        (("folder", ["a"]), "got the path folder"),
        ((["a.png"], ["a", "b"]), "1 images, 2 labels"),
        (([], []), "is empty"),
    ],
)
def test_invalid_arrays_are_refused(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_images(*arguments)
    with pytest.raises(DataError, match="2 images, 1 groups"):
        load_images(["a", "b"], [1, 2], groups=["g"])


# Real data


def test_omniglot(data_set: Any) -> None:
    data = load_images(data_set("omniglot/images_background_small1"))
    assert (len(data), len(data.classes), len(np.unique(data.groups))) == (2720, 136, 5)
    assert set(np.unique(data.class_index, return_counts=True)[1]) == {20}
    assert "Greek/character01" in data.classes


def test_orl_faces(data_set: Any) -> None:
    data = load_images(data_set("orl_faces"))
    assert (len(data), len(data.classes)) == (400, 40)
    assert data.notes == ()


def test_images_csv_in_a_folder_replaces_class_folders(tmp_path):
    for name in ("scans/1.png", "scans/2.png", "other/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "images.csv").write_text(
        "path,label,role\nscans/1.png,anna,genuine\nscans/2.png,anna,forgery\n"
    )
    images = load_images(tmp_path)
    assert images.labels.tolist() == ["anna", "anna"]
    assert images.forgery.tolist() == [False, True]
    assert images.images[0] == str(tmp_path / "scans/1.png")
    (tmp_path / "images.csv").write_text("anything,else\n1,2\n")
    assert load_images(tmp_path).classes == ["other", "scans"], "an images.csv without the columns is ignored"


def test_rows_of_commas_are_skipped(tmp_path: Path) -> None:
    listed = write(tmp_path / "a.csv", "path,label\n\na.png,a\n , \n,\nb.png,b\n,\n")
    assert load_images(listed).labels.tolist() == ["a", "b"]


def test_semicolon_separators_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="separated by semicolons"):
        load(write(tmp_path / "a.csv", "path;label\na.png;a\n"))
