"""Public data sets: downloads from a local server, local copies, hostile archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import struct
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinned import data
from twinned.data.catalog import convert, download, registry
from twinned.data.catalog.archives import unpack
from twinned.data.catalog.registry import DataSet, Download
from twinned.errors import DataError, SettingError
from twinned.utils.notes import collect


def png(seed: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8), np.uint8)).save(out, "PNG")
    return out.getvalue()


def pack(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


ARCHIVE = pack({f"top/s{k}/{n}.png": png(10 * k + n) for k in range(3) for n in range(4)})


class Server:
    """Serve ``files``; close the connection after ``cut`` bytes; record requests in ``asked``."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.lengths = True
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                content = outer.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                if outer.lengths:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: outer.cut])

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("TWINNED_DATA", raising=False)
    served = Server()
    served.files["/toy.zip"] = ARCHIVE
    yield served
    served.http.shutdown()
    served.http.server_close()


Publish = Callable[..., DataSet]


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server) -> Publish:
    """Put a data set called ``toy`` into the catalog."""
    monkeypatch.chdir(tmp_path)

    def put(*addresses: str, sha256: str | None = None, max_bytes: int = 1 << 20) -> DataSet:
        toy = DataSet(
            name="toy",
            title="Toys",
            terms="be kind",
            page="http://toys.example",
            downloads=(
                Download(addresses or (server.address("/toy.zip"),), max_bytes=1 << 20, sha256=sha256),
            ),
            local=("toy.zip", "toy"),
            rules=((r"(s\d/\d\.png)", r"\1"),),
            images=12,
            max_bytes=max_bytes,
        )
        monkeypatch.setitem(registry.DATA_SETS, "toy", toy)
        return toy

    return put


SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


def test_download_is_verified_and_unpacked(publish, server):
    publish(sha256=SHA256)
    with collect() as notes:
        folder = data.fetch("toy")
    assert data.load_images(folder).classes == ["s0", "s1", "s2"]
    assert sorted(os.listdir()) == ["toy"], "no temporary file is left"
    record = json.loads((folder / "SOURCE.json").read_text())
    assert record["files"] == [{"file": "toy.zip", "address": server.address("/toy.zip"), "sha256": SHA256}]
    assert [note.code for note in notes] == ["terms", "download"]
    assert "be kind" in notes[0].text
    assert server.address("/toy.zip") in notes[1].text
    assert data.find("toy") == Path("toy")


def test_wrong_checksum_is_refused_and_file_is_deleted(publish):
    publish(sha256="0" * 64)
    with pytest.raises(DataError, match=f"expected {'0' * 64} but got {SHA256}"):
        data.fetch("toy")
    assert os.listdir() == ["toy.download"]
    assert os.listdir("toy.download") == []


def test_first_checksum_is_recorded_if_none_is_known(publish, server):
    publish()
    with collect() as notes:
        data.fetch("toy")
    assert SHA256 in next(note.text for note in notes if note.code == "unverified-download")
    data.fetch("toy", force=True)  # same content
    server.files["/toy.zip"] = pack({"s0/0.png": png()})
    with pytest.raises(DataError, match=r"has changed since toy was made .* Remove toy"):
        data.fetch("toy", force=True)
    assert len(data.load_images("toy")) == 12, "the old folder is kept"


def test_interrupted_download_is_refused_and_deleted(publish, server):
    publish(sha256=SHA256)
    server.cut = 500
    with pytest.raises(DataError, match=r"toy.zip could not be downloaded .*500 bytes read"):
        data.fetch("toy")
    assert os.listdir() == ["toy.download"]
    assert os.listdir("toy.download") == []
    server.cut = None
    assert len(data.load_images(data.fetch("toy"))) == 12


def test_finished_download_is_not_repeated(publish, server):
    toy = publish(sha256=SHA256)
    other = Download((server.address("/gone.zip"),), max_bytes=1 << 20)
    registry.DATA_SETS["toy"] = replace(toy, downloads=(*toy.downloads, other))
    with pytest.raises(DataError, match=r"gone.zip could not be downloaded"):
        data.fetch("toy")
    server.files["/gone.zip"] = pack({"s9/0.png": png()})
    data.fetch("toy")
    assert server.asked == ["/toy.zip", "/gone.zip", "/gone.zip"]


def test_damaged_download_is_fetched_again(publish, server):
    publish(sha256=SHA256)
    Path("toy.download").mkdir()
    Path("toy.download", "toy.zip").write_bytes(b"wrong")
    data.fetch("toy")
    assert server.asked == ["/toy.zip"]


@pytest.mark.parametrize("lengths", [True, False])
def test_download_stops_at_the_size_limit(publish, server, lengths):
    publish(sha256=SHA256)
    server.lengths, server.files["/toy.zip"] = lengths, bytes(1 << 22)
    with pytest.raises(DataError, match="more than the expected 1 MB"):
        data.fetch("toy")
    assert os.listdir("toy.download") == []


def test_second_address_is_a_fallback(publish, server):
    publish(server.address("/gone.zip"), server.address("/toy.zip"), sha256=SHA256)
    data.fetch("toy")
    assert server.asked == ["/gone.zip", "/toy.zip"]
    publish(server.address("/gone.zip"))
    with pytest.raises(DataError, match=r"gone.zip: 404 Client Error.* TWINNED_DATA"):
        data.fetch("toy", "other")


def test_existing_folder_is_replaced_only_by_force_and_if_fetched(publish, tmp_path):
    publish(sha256=SHA256)
    data.fetch("toy")
    with pytest.raises(SettingError, match="exists"):
        data.fetch("toy")
    Path("mine").mkdir()
    Path("mine", "photo.png").write_bytes(png())
    with pytest.raises(SettingError, match="was not written by this command"):
        data.fetch("toy", "mine", force=True)
    assert Path("mine", "photo.png").exists()
    with pytest.raises(SettingError, match=r"Unknown data set 'toys'. Choose one of orl, .* digits"):
        data.fetch("toys")


def test_local_source_is_archive_or_folder(publish, server, tmp_path, monkeypatch):
    publish()
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "toy.zip").write_bytes(ARCHIVE)
    with zipfile.ZipFile(shelf / "toy.zip") as archive:
        archive.extractall(tmp_path / "loose")
    with tarfile.open(tmp_path / "toy.tgz", "w:gz") as tar:
        tar.add(tmp_path / "loose" / "top", "anything")
    sources = [shelf, shelf / "toy.zip", tmp_path / "loose", tmp_path / "loose/top", tmp_path / "toy.tgz"]
    for number, source in enumerate(sources):
        folder = data.fetch("toy", tmp_path / f"out{number}", source=source)
        assert len(data.load_images(folder)) == 12
    with pytest.raises(DataError, match="Holds no files of toy"):
        data.fetch("toy", "out", source=tmp_path / "out0" / "SOURCE.json")
    with pytest.raises(DataError, match="no such file"):
        data.fetch("toy", "out", source="nowhere")
    with pytest.raises(SettingError, match="written into the data"):
        data.fetch("toy", shelf / "out", source=shelf)
    assert not server.asked
    monkeypatch.setenv("TWINNED_DATA", str(shelf))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(data.load_images(data.fetch("toy"))) == 12
    Path("toy").rename("elsewhere")
    found = data.find("toy")
    assert found is not None
    assert tmp_path / "cache" in found.parents
    assert data.find("toy") == found
    monkeypatch.delenv("TWINNED_DATA")
    assert data.find("toy") is None
    assert not server.asked


def test_incomplete_copy_is_noted(publish, tmp_path):
    publish()
    (tmp_path / "part.zip").write_bytes(pack({"s0/0.png": png()}))
    with collect() as notes:
        data.fetch("toy", source=tmp_path / "part.zip")
    assert notes[-1].code == "incomplete"
    assert "found 1 of 12 images" in notes[-1].text


# ---- archives


def place(name: str) -> str | None:
    toy = DataSet("toy", "", "", "", (), (), ((r"(s\d/\d\.png)", r"\1"),), 0, 0)
    return toy.place(name)


def test_archive_members_stay_inside_the_folder(tmp_path):
    names = [
        "../s0/0.png",
        "/etc/s1/1.png",
        "a/../../../s2/2.png",
        "..\\..\\s3\\3.png",
        "s4/4.png/../../x.png",
    ]
    (tmp_path / "evil.zip").write_bytes(pack(dict.fromkeys(names, b"x")))
    inside = tmp_path / "deep" / "inside"
    unpack(tmp_path / "evil.zip", inside, place=place, max_bytes=1000)
    found = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert found == [
        *(f"deep/inside/s{k}/{k}.png" for k in range(4)),
        "evil.zip",
    ]


def test_links_and_devices_are_skipped(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    with tarfile.open(tmp_path / "links.tar", "w") as tar:
        for name, kind in (
            ("s0/0.png", tarfile.SYMTYPE),
            ("s1/1.png", tarfile.LNKTYPE),
            ("s2/2.png", tarfile.FIFOTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, str(secret)
            tar.addfile(entry)
    unpack(tmp_path / "links.tar", tmp_path / "out", place=place, max_bytes=1000)
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        link = zipfile.ZipInfo("s0/0.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
    unpack(tmp_path / "links.zip", tmp_path / "out", place=place, max_bytes=1000)
    (tmp_path / "loose" / "s0").mkdir(parents=True)
    (tmp_path / "loose" / "s0" / "0.png").symlink_to(secret)
    unpack(tmp_path / "loose", tmp_path / "out", place=place, max_bytes=1000)
    assert not (tmp_path / "out").exists()


def test_archive_bomb_is_refused_before_extraction(tmp_path):
    (tmp_path / "bomb.zip").write_bytes(pack({"s0/0.png": bytes(50_000_000)}))
    with pytest.raises(DataError, match="1 files of 47 MB"):
        unpack(tmp_path / "bomb.zip", tmp_path / "out", place=place, max_bytes=1 << 20)
    with tarfile.open(tmp_path / "bomb.tgz", "w:gz") as tar:
        entry = tarfile.TarInfo("other")
        entry.size = 50_000_000
        tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    with pytest.raises(DataError, match="47 MB"):
        unpack(tmp_path / "bomb.tgz", tmp_path / "out", place=place, max_bytes=1 << 20)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["cut.zip", "cut.tgz", "flipped.zip", "text.zip", "text.tgz"])
def test_damaged_archive_error_names_the_file(tmp_path, name):
    whole = ARCHIVE
    if name.endswith("tgz"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            entry = tarfile.TarInfo("s0/0.png")
            entry.size = 100_000
            tar.addfile(entry, io.BytesIO(np.random.default_rng(0).bytes(entry.size)))
        whole = out.getvalue()
    content = {
        "cut": whole[: len(whole) // 2],
        "flipped": whole[:60] + b"\xff" + whole[61:],
        "text": b"no archive",
    }
    (tmp_path / name).write_bytes(content[name.split(".")[0]])
    with pytest.raises(DataError, match=name):
        unpack(tmp_path / name, tmp_path / "out", place=place, max_bytes=1 << 20)


def test_rar_is_extracted_by_a_program_and_filtered(tmp_path, monkeypatch):
    (tmp_path / "toy.rar").write_bytes(b"Rar!")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DataError, match="bsdtar, unar, 7z, unrar"):
        unpack(tmp_path / "toy.rar", tmp_path / "out", place=place, max_bytes=1000)
    program = tmp_path / "bin" / "unar"
    program.parent.mkdir()
    lines = [f"#!{sys.executable}", "import os, sys", "out = sys.argv[3] + '/top/s0'", "os.makedirs(out)"]
    lines += ["open(out + '/0.png', 'w').write('x')", "os.symlink('/etc/passwd', out + '/1.png')"]
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    assert unpack(tmp_path / "toy.rar", tmp_path / "out", place=place, max_bytes=1000) == 1
    assert os.listdir(tmp_path / "out/s0") == ["0.png"]
    program.write_text(f"#!{sys.executable}\nraise SystemExit('not a RAR archive')")
    with pytest.raises(DataError, match=r"unar could not extract the archive .*not a RAR"):
        unpack(tmp_path / "toy.rar", tmp_path / "other", place=place, max_bytes=1000)


# ---- data sets of the catalog


def test_rules_produce_only_safe_paths():
    lead = ("..", "", "/", "a/..", "C:\\", "\0")
    for each in registry.DATA_SETS.values():
        for name in (
            "s1/1.pgm",
            "../character01/0001_01.png",
            "images_background/../character01/0001_01.png",
        ):
            for before in lead:
                path = each.place(f"{before}/{name}")
                assert path is None or (".." not in path.split("/") and not path.startswith("/"))
    assert registry.named("lfw").place("lfw_funneled/Al_Gore/Al_Gore_0001.jpg") == "Al_Gore/Al_Gore_0001.jpg"
    assert registry.named("lfw").place("lfw_funneled/../.._0001.jpg") is None
    assert (
        registry.named("omniglot").place("all_runs/run01/test/item01.png") == "all_runs/run01/test/item01.png"
    )
    assert registry.named("omniglot").place("run01/class_labels.txt") == "all_runs/run01/class_labels.txt"


def test_cedar_signatures_have_roles(tmp_path, monkeypatch):
    monkeypatch.delenv("TWINNED_DATA", raising=False)
    source = tmp_path / "signatures"
    for writer in (1, 2):
        for folder, stem in (("full_org", "original"), ("full_forg", "forgeries")):
            (source / folder).mkdir(parents=True, exist_ok=True)
            for number in (1, 2, 10):
                (source / folder / f"{stem}_{writer}_{number}.png").write_bytes(png(number))
    read = data.load_images(data.fetch("cedar", tmp_path / "cedar", source=source))
    assert read.classes == ["writer01", "writer02"]
    assert read.forgery.sum() == 6
    names = [Path(str(image)).name for image in read.images]
    assert names[:3] == ["original_1_1.png", "original_1_2.png", "original_1_10.png"]
    assert all(name.startswith("forgeries") == forged for name, forged in zip(names, read.forgery))


def idx(values: np.ndarray) -> bytes:
    return gzip.compress(
        struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes(), 1
    )


def test_fashion_mnist_becomes_class_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "_PARTS", (("train", 12), ("t10k", 10)))
    rng = np.random.default_rng(0)
    source = tmp_path / "fashion"
    source.mkdir()
    images = {}
    for part, count in convert._PARTS:
        images[part] = rng.integers(0, 255, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (source / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images[part]))
        (source / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    read = data.load_images(data.fetch("fashion-mnist", tmp_path / "out", source=source))
    assert len(read) == 22
    assert len(read.classes) == 10
    boot = np.asarray(Image.open(tmp_path / "out/Ankle boot/train-00009.png"))
    assert (boot == images["train"][9]).all()
    (source / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(11, np.uint8)))
    with pytest.raises(DataError, match="Not an IDX file of 10 bytes"):
        data.fetch("fashion-mnist", tmp_path / "other", source=source)
    assert not (tmp_path / "other").exists()


def test_digits_need_no_network(tmp_path, server):
    folder = data.fetch("digits", tmp_path / "digits")
    known, novel = data.load_images(folder / "known"), data.load_images(folder / "novel")
    assert len(known) + len(novel) == 1797 == len(data.load_digits())
    assert set(known.classes) | set(novel.classes) == set("0123456789")
    assert not set(known.classes) & set(novel.classes)
    first = np.asarray(Image.open(folder / "known/0/0000.png"))
    assert (first == np.asarray(data.load_digits().images[0])).all()
    assert not server.asked


@pytest.mark.slow
def test_letters_need_no_network(tmp_path, server):
    folder = data.fetch("letters", tmp_path / "letters")
    parts = [data.load_images(folder / part) for part in ("known", "armenian", "georgian")]
    assert [len(part.classes) for part in parts] == [208, 58, 41]
    first = np.asarray(Image.open(parts[1].images[0]))
    assert (first == np.asarray(data.load_letters(["armenian"]).images[0])).all()
    assert not server.asked


@pytest.mark.parametrize(("name", "classes"), [("orl_faces", 40), ("cedar_signatures", 55)])
def test_real_copies_are_complete(data_set, tmp_path, name, classes):
    data_set(name)
    called = name.split("_")[0]
    with collect() as notes:
        folder = data.fetch(called, tmp_path / called)
    assert len(data.load_images(folder).classes) == classes
    assert "incomplete" not in {note.code for note in notes}


def test_checksums_and_addresses_are_well_formed():
    for each in registry.DATA_SETS.values():
        for file in each.downloads:
            assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
            assert all(address.startswith(("https://", "http://")) for address in file.addresses)
    assert download.RECORD.endswith(".json")
