"""The embedded gallery: durability, detection of damage, threads, processes and the index."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from fake_model import FakeModel, image, images, vectors
from processes import Children

from twinned.errors import GalleryError, SettingError
from twinned.gallery import gallery_file, qdrant, qdrant_edge, store
from twinned.gallery.gallery import Gallery
from twinned.gallery.open import open_gallery

from ..conftest import slow


@pytest.fixture
def people(tmp_path):
    with open_gallery(tmp_path / "people.gallery", FakeModel()) as opened:
        yield opened


@pytest.fixture(scope="module")
def children():
    with Children() as started:
        yield started


@pytest.fixture
def small_index(monkeypatch):
    """Build the index from 256 embeddings."""
    monkeypatch.setattr(store, "EXACT_BELOW_KB", 8)
    monkeypatch.setattr(qdrant, "FULL_SCAN_KB", 1)


# ---- durability


def open_when_free(path: Path) -> Gallery:
    """Open a gallery of a killed process, whose lock may remain for a moment."""
    for _ in range(600):
        try:
            return open_gallery(path, FakeModel(), create=False)
        except GalleryError as error:
            if "is open already" not in str(error):
                raise
            time.sleep(0.1)
    return open_gallery(path, FakeModel(), create=False)


@pytest.mark.parametrize("kills", [12, *slow(50)])
def test_kill_9_loses_no_acknowledged_change(tmp_path, children, kills):
    path = tmp_path / "people.gallery"
    moments = random.Random(0)
    state: dict[str, str | None] = {}  # id -> label, None once removed
    acknowledged = 0
    for kill in range(kills):
        writer = children.start("write", path, kill)
        assert not list(children.messages(until="open"))
        messages = children.messages()
        received = list(
            itertools.islice(messages, moments.randrange(4))
        )  # count messages instead of time, since machines differ
        time.sleep(moments.uniform(0, 0.01))
        os.kill(writer, signal.SIGKILL)
        pending: list[str] = []
        for what, *about in itertools.chain(received, messages):
            if what == "begin":
                (pending,) = about
            else:
                label, ids = about
                state |= dict.fromkeys(ids, label)
                pending, acknowledged = [], acknowledged + 1
        for id in pending:  # started but not acknowledged: both outcomes are correct
            state.pop(id)
        with open_when_free(path) as people:
            there = {item.id: item.label for item in people.list().items}
            assert {id: there.get(id) for id in state} == state
            assert people.count() == len(people.embeddings()[1]) == len(there)
    assert acknowledged > kills, "the writers were killed before they wrote"
    assert sum(label is not None for label in state.values()) > 20 * kills


def test_log_restores_changes_missing_in_segments(tmp_path, monkeypatch):
    """Simulated power failure: only the synchronized log has changes since the last flush."""
    monkeypatch.setattr(qdrant_edge, "_FLUSH_EVERY", 1000)
    path = tmp_path / "people.gallery"
    before, cut = tmp_path / "before", tmp_path / "cut"
    people = open_gallery(path, FakeModel())
    people.add(images(600), "ann")
    people.store._flush()
    subprocess.run(["cp", "-a", "--sparse=always", path, before], check=True)
    for number in range(5):
        people.add(images(100, seed=number + 1), f"new {number}")
    people.remove(label="new 3")
    people.rename("new 4", "newest")
    expected = people.list(), people.labels(), people.embeddings()[1].tolist()
    subprocess.run(["cp", "-a", "--sparse=always", before, cut], check=True)
    (shard,) = cut.glob("shard-*")
    shutil.rmtree(shard / "wal")
    subprocess.run(["cp", "-a", "--sparse=always", path / shard.name / "wal", shard / "wal"], check=True)
    people.close()
    with open_gallery(cut, FakeModel()) as people:
        assert (people.list(), people.labels(), people.embeddings()[1].tolist()) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the segments are flushed each time")
def test_changed_log_files_are_synchronized(people, monkeypatch):
    synchronised: set[str] = set()
    monkeypatch.setattr(gallery_file, "sync", lambda path: synchronised.add(path.name))
    (shard,) = Path(people.store.address).glob("shard-*")

    def content():
        return {f.name: hash(f.read_bytes()) for f in (shard / "wal").iterdir() if f.name != "first-index"}

    before, names = content(), set()
    for number in range(12):  # 4 MB each; a file of the log has 32 MB
        synchronised.clear()
        people.add(images(64, seed=number), "ann", metadata={"text": "x" * 65_536})
        after = content()
        changed = {name for name in after if before.get(name) != after[name]}
        written = {name for name in changed if any((shard / "wal" / name).read_bytes()[:4096])}
        assert written
        assert {n for n in written if n in before or n.startswith("closed")} <= synchronised | {
            "open-3",
            "open-4",
        }
        before, names = after, names | set(after)
    assert any(name.startswith("closed-") for name in names), "the log never changed files"


def test_batch_is_committed_before_it_is_acknowledged(people):
    seen = []
    people.add(images(300), "ann", acknowledge=lambda ids: seen.append((len(ids), people.count())))
    assert seen == [(256, 256), (44, 300)]


# ---- damage


@pytest.mark.parametrize("most", [10, *slow(30)])
def test_damaged_files_are_detected(tmp_path, small_index, children, most):
    path = tmp_path / "people.gallery"
    with open_gallery(path, FakeModel()) as people:
        people.add(images(600), ["ann", "ben"] * 300)
        people.compact()
        for number in range(3):
            people.add(images(200, seed=number + 1), ["ann", "ben"] * 100, metadata={"text": "x" * 2000})
            people.store._flush()
    files = [str(file.relative_to(path)) for file in sorted(path.glob("shard-*/**/*")) if file.is_file()]
    cases = [(name, how) for name in files for how in ("missing", "empty", "half")]
    random.Random(0).shuffle(cases)
    cases = cases[: int(os.environ.get("TWINNED_DAMAGE_CASES", most))]
    outcome: dict[tuple[str, str], str] = {}
    while remaining := cases[len(outcome) :]:
        (tmp_path / "cases").write_text(json.dumps(remaining))
        (scratch := tmp_path / f"from-{len(outcome)}").mkdir()
        children.start("damage", path, scratch, tmp_path / "cases")
        for what, number, *result in children.messages():
            outcome[remaining[number]] = result[0] if what == "result" else "the process died"
    reported = ("is damaged", "acknowledged data is stored")
    assert not {
        c: what for c, what in outcome.items() if what != "whole" and not any(r in what for r in reported)
    }
    late = sum(reported[1] in what for what in outcome.values())  # most damage is found on opening
    assert late <= max(1, len(cases) / 20)
    assert {"whole"} < set(outcome.values())


@pytest.mark.parametrize("lost", ["segments", "wal", "shard", "one segment"])
def test_missing_folders_are_detected(tmp_path, lost, small_index):
    path = tmp_path / "people.gallery"
    with open_gallery(path, FakeModel()) as people:
        people.add(images(600), "ann")
        people.compact()
        people.add(images(10, seed=1), "ben")
    (shard,) = path.glob("shard-*")
    if lost == "one segment":
        shutil.rmtree(next(shard.glob("segments/*/vector_index/graph.bin")).parent.parent)
    else:
        shutil.rmtree(shard if lost == "shard" else shard / lost)
    with pytest.raises(GalleryError, match="damaged"):
        open_gallery(path, FakeModel())


@pytest.mark.parametrize("text", ["", "{", '{"format": 2}', "[]"])
def test_damaged_manifest_is_detected(tmp_path, text):
    path = tmp_path / "people.gallery"
    open_gallery(path, FakeModel()).close()
    (path / "gallery.json").write_text(text)
    with pytest.raises(GalleryError, match=r"people\.gallery: is damaged \(gallery\.json"):
        open_gallery(path, FakeModel())
    (path / "gallery.json").unlink()
    with pytest.raises(GalleryError, match=r"has no gallery\.json"):
        open_gallery(path, FakeModel())


def test_manifest_is_replaced_atomically(people, monkeypatch):
    people.add(images(10), "ann")
    path = Path(people.store.address) / "gallery.json"
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("cut off")))
    with pytest.raises(GalleryError, match="cut off"):
        people.store._flush()
    assert path.read_bytes() == before


def test_existing_files_are_not_overwritten(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(GalleryError, match="is a file"):
        open_gallery(tmp_path / "file", FakeModel())
    with pytest.raises(GalleryError, match=r"has no gallery\.json"):
        open_gallery(tmp_path, FakeModel())
    for nothing in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(GalleryError, match="the gallery does not exist"):
            open_gallery(nothing, FakeModel(), create=False)
        with pytest.raises(GalleryError, match="the gallery does not exist"):
            open_gallery(nothing, FakeModel(), read_only=True)
    with pytest.raises(SettingError, match="Invalid gallery address"):
        open_gallery("ftp://host/people", FakeModel())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file"]
    (tmp_path / "empty").mkdir()
    open_gallery(tmp_path / "empty", FakeModel()).close()
    open_gallery(tmp_path / "new" / "deep", FakeModel()).close()


# ---- a full disk

Usage = namedtuple("Usage", "total used free")


def test_full_disk_is_refused_before_a_change(people, monkeypatch):
    people.add(images(300), "ann")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10**6))
    for write in (
        lambda: people.add(images(10, seed=1), "ben"),
        lambda: people.rename("ann", "ben"),
        lambda: people.remove(label="ann"),
        lambda: people.compact(),
        lambda: open_gallery(people.store.address + "2", FakeModel()),
    ):
        with pytest.raises(GalleryError, match="the disk is full"):
            write()
    assert people.labels() == {"ann": 300}
    assert people.search(images(1)[0], k=1)[0].label == "ann"
    monkeypatch.undo()
    people.add(images(10, seed=1), "ben")
    assert people.labels() == {"ann": 300, "ben": 10}


def test_disk_full_during_writes_loses_no_data(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        people, safe = open_gallery(disk / "people.gallery", FakeModel()), []

        def fill():
            for number in itertools.count():
                people.add(
                    images(256, seed=number), "ann", metadata={"text": "x" * 4000}, acknowledge=safe.extend
                )

        with pytest.raises(GalleryError, match="the disk is full"):
            fill()
        assert len(safe) > 256
        assert people.count() == len(safe)
        people.close()
        with open_gallery(disk / "people.gallery", FakeModel()) as people:
            assert {item.id for item in people.list().items} == set(safe)
            with pytest.raises(GalleryError, match="the disk is full"):
                people.add(images(256, seed=10**6), "ann", metadata={"text": "x" * 40_000})
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        with open_gallery(disk / "people.gallery", FakeModel()) as people:
            people.add(images(256, seed=10**6), "ann", acknowledge=safe.extend)
            assert {item.id for item in people.list().items} == set(safe)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="a folder that is open cannot be renamed")
@pytest.mark.parametrize("now", ["moved", "deleted", "replaced"])
def test_moved_folder_refuses_changes_and_can_be_closed(tmp_path, small_index, now):
    path, moved, backup = (tmp_path / name for name in ("people.gallery", "moved", "backup"))
    with open_gallery(path, FakeModel()) as people:
        ids = people.add(images(20), "ann").ids
    shutil.copytree(path, backup)
    people = open_gallery(path, FakeModel())
    taken = people.remove(people.add(image(1), "ben").ids)
    if now == "deleted":
        shutil.rmtree(path)
    else:
        path.rename(moved)
    if now == "replaced":
        backup.rename(path)  # the same gallery in another folder
    for change in (
        lambda: people.add(images(2, seed=1), "ben"),
        lambda: people.remove(ids[0]),
        lambda: people.restore(taken),
        lambda: people.update(ids[0], label="ben"),
        lambda: people.rename("ann", "ben"),
        lambda: people.compact(),
    ):
        with pytest.raises(GalleryError, match=r"people\.gallery: the folder was renamed, moved or deleted"):
            change()
    people.close()
    with pytest.raises(GalleryError, match="not initialized"):
        people.count()
    for place in {"moved": [moved], "deleted": [], "replaced": [path, moved]}[now]:
        with open_gallery(place, FakeModel()) as people:
            assert people.labels() == {"ann": 20}
    assert path.exists() == (now == "replaced")


@pytest.mark.skipif(sys.platform == "win32", reason="a folder that is open cannot be renamed")
def test_restored_folder_accepts_changes(people):
    path = Path(people.store.address)
    people.add(images(20), "ann")
    path.rename(path.with_name("moved"))
    with pytest.raises(GalleryError, match="renamed, moved or deleted"):
        people.add(images(2, seed=1), "ben")
    path.with_name("moved").rename(path)
    people.add(images(2, seed=1), "ben")
    people.close()
    with open_gallery(path, FakeModel()) as again:
        assert again.labels() == {"ann": 20, "ben": 2}


def test_close_releases_the_lock_if_the_flush_fails(tmp_path, monkeypatch):
    path = tmp_path / "people.gallery"
    people = open_gallery(path, FakeModel())
    people.add(images(20), "ann")

    def fail(*_):
        raise OSError("cut off")

    monkeypatch.setattr(gallery_file, "write_manifest", fail)
    with pytest.raises(GalleryError, match="cut off"):
        people.close()
    monkeypatch.undo()
    with open_gallery(path, FakeModel()) as again:
        assert again.labels() == {"ann": 20}
        people.close()
        assert again.labels() == {"ann": 20}


# ---- errors of the operating system

READ_ONLY = "Failed to open mmap payload storage: Read-only file system (os error 30)"
DENIED = 'Can\'t init WAL: Os { code: 13, kind: PermissionDenied, message: "Permission denied" }'


@pytest.mark.skipif(os.name == "nt", reason="the numbers of POSIX")
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Exception(READ_ONLY), "the file system is read-only.*opy the folder"),
        (OSError(30, "Read-only file system"), "the file system is read-only.*opy the folder"),
        (Exception(DENIED), "permission was denied .*Change its owner or its permissions"),
        (PermissionError(13, "Permission denied", "wal"), r"permission was denied \(.*'wal'\).*its owner"),
        (Exception("Cannot allocate memory (os error 12)"), "there is not enough memory. Free some"),
        (Exception("Too many open files (os error 24)"), r"too many files are open.*ulimit"),
        (Exception("No space left on device (os error 28)"), "the disk is full.*Free some space"),
    ],
)
def test_errors_of_the_system_are_not_reported_as_damage(tmp_path, monkeypatch, error, expected):
    path = tmp_path / "people.gallery"
    open_gallery(path, FakeModel()).close()

    def fail(*_):
        raise error

    for place, name in (
        (qdrant_edge.EdgeStore, "_check"),
        (gallery_file, "read_manifest"),
        (gallery_file, "identity"),
    ):
        monkeypatch.setattr(place, name, fail)
        with pytest.raises(GalleryError, match=rf"people\.gallery: {expected}"):
            open_gallery(path, FakeModel(), read_only=True)
        monkeypatch.undo()
    open_gallery(path, FakeModel()).close()


def test_read_only_mount_is_reported(tmp_path):
    path, bound = tmp_path / "people.gallery", tmp_path / "bound"
    with open_gallery(path, FakeModel()) as people:
        people.add(images(20), "ann")
    bound.mkdir()
    if subprocess.run(["mount", "--bind", tmp_path, bound], capture_output=True).returncode:
        pytest.skip("a folder cannot be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", bound], check=True)
        for options in ({}, {"create": False}, {"read_only": True}):
            with pytest.raises(GalleryError, match=r"bound/people\.gallery: the file system is read-only"):
                open_gallery(bound / path.name, FakeModel(), **options)
        with pytest.raises(GalleryError, match=r"bound/new: a gallery cannot be created there \(.*Read-only"):
            open_gallery(bound / "new", FakeModel())
    finally:
        subprocess.run(["umount", bound], check=True)


# ---- processes and threads


def forked(job):
    """Return the result or error of the job in a forked child as text; "hung" after ten seconds."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(10)
        try:
            os.write(writer, repr(job()).encode())
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    return "hung" if os.waitpid(child, 0)[1] else text


fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
quiet = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # forking a process with threads


@fork
@quiet
def test_forked_child_is_refused_and_parent_continues(tmp_path):
    path = tmp_path / "people.gallery"
    people = open_gallery(path, FakeModel())
    ids = people.add(images(20), "ann").ids
    taken = people.remove(people.add(image(1), "ben").ids)
    people.labels()  # cached
    for use in (
        lambda: people.add(images(10, seed=1), "ben"),
        lambda: people.add([], "ben"),
        lambda: people.insert([], np.empty((0, 8), np.float32)),
        lambda: people.remove(ids[0]),
        lambda: people.restore(taken),
        lambda: people.update(ids[0], label="ben"),
        lambda: people.rename("ann", "ben"),
        lambda: people.identify(image(1)),
        lambda: people.search(image(1)),
        lambda: people.search(id=ids[0]),
        lambda: people.duplicates(),
        lambda: people.count(),
        lambda: len(people),
        lambda: people.labels(),
        lambda: people.get(ids[0]),
        lambda: people.list(),
        lambda: people.embeddings(),
        lambda: people.stats(),
        lambda: people.compact(),
        lambda: people.store.set_report(None),
    ):
        assert forked(use).startswith(f"GalleryError: {path}: was opened in process {os.getpid()}")
    with people.store.writing():  # lock held by another thread of the parent
        assert "GalleryError" in forked(lambda: people.remove(ids[0]))
    assert forked(people.close) == "None"
    people.add(images(10, seed=2), "cleo")
    people.close()
    with open_gallery(path, FakeModel()) as people:
        assert people.labels() == {"ann": 20, "cleo": 10}


@fork
@quiet
def test_forked_child_opens_the_gallery_after_the_parent_closed(tmp_path):
    path = tmp_path / "people.gallery"
    people = open_gallery(path, FakeModel())
    people.add(images(20), "ann")
    assert "is open already" in forked(lambda: open_gallery(path, FakeModel()))
    reader, writer = os.pipe()

    def later():
        os.close(writer)
        os.read(reader, 1)  # wait until the parent closes its end
        with open_gallery(path, FakeModel()) as mine:
            return mine.add(images(10, seed=1), "ben").stored, mine.count()

    answer: list[str] = []
    thread = threading.Thread(target=lambda: answer.append(forked(later)))
    thread.start()
    time.sleep(0.2)
    people.close()
    open_gallery(path, FakeModel()).close()  # the child holds no lock
    os.close(writer)
    thread.join()
    os.close(reader)
    assert answer == ["(10, 30)"]


@fork
def test_exit_of_a_child_keeps_the_gallery_of_the_parent(tmp_path):
    """In a child without `os._exit`, the destructor of Qdrant would write."""
    script = """
import gc, os, sys
from fake_model import FakeModel, images
from twinned.gallery.open import open_gallery
people = open_gallery(sys.argv[1], FakeModel())
for number in range(3):
    people.add(images(20, seed=number), str(number), progress=False)
    if (child := os.fork()) == 0:
        if number:
            del people
            gc.collect()
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
people.close()
"""
    path = tmp_path / "people.gallery"
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, path], check=True, env=here, timeout=60)
    with open_gallery(path, FakeModel()) as people:
        assert people.labels() == {"0": 20, "1": 20, "2": 20}


def test_second_process_is_refused(tmp_path, children):
    path = tmp_path / "people.gallery"
    holder = children.start("hold", path)
    assert not list(children.messages(until="open"))
    for _ in range(2):
        with pytest.raises(GalleryError, match="is open already, in another process"):
            open_gallery(path, FakeModel())
    os.kill(holder, signal.SIGKILL)
    assert not list(children.messages())
    with open_gallery(path, FakeModel()) as people:
        assert len(people) == 1
        with pytest.raises(GalleryError, match="is open already"):
            open_gallery(path, FakeModel())


def test_concurrent_reads_and_writes_during_index_build(tmp_path, small_index):
    people = open_gallery(tmp_path / "people.gallery", FakeModel())
    people.add(images(600), "first")
    people.add(images(50, seed=7), "always")
    errors: list[BaseException] = []
    stop = threading.Event()
    searches = []

    def run(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    def enroll(number):
        for step in range(8):  # two threads enroll the same images
            people.add(
                images(30, seed=100 * (1 + number // 2) + step), f"thread {number // 2}", progress=False
            )

    def come_and_go():
        for _ in range(5):
            people.restore(people.remove(label="first"))
            people.update(people.search(images(1)[0], k=1)[0].id, metadata={"seen": True})

    def look():
        while not stop.is_set():
            hits = people.search(images(1, seed=9)[0], k=10)
            assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
            assert len({hit.id for hit in hits}) == 10
            people.labels()
            people.identify(images(2, seed=3))
            searches.append(1)

    writers = [threading.Thread(target=run, args=(lambda n=n: enroll(n),)) for n in range(4)]
    writers += [threading.Thread(target=run, args=(work,)) for work in (come_and_go, people.compact)]
    readers = [threading.Thread(target=run, args=(look,)) for _ in range(2)]
    for thread in writers + readers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert errors == []
    expected = {"always": 50, "first": 600, "thread 0": 240, "thread 1": 240}
    assert people.labels() == expected
    assert len(searches) > 10
    assert people.stats().search == "hnsw"
    people.close()
    with open_gallery(tmp_path / "people.gallery", FakeModel()) as people:
        assert people.labels() == expected
        assert len(list(Path(people.store.address).glob("shard-*"))) == 1


# ---- the index


def test_index_is_built_above_a_size_and_measured(tmp_path, small_index):
    shown, probes = images(3000), images(50, seed=1)
    with open_gallery(tmp_path / "people.gallery", FakeModel()) as people:
        people.add(shown[:200], "ann")
        assert people.compact().search == "exact"  # too few embeddings
        people.add(shown, "ann")
        stats = people.stats()
        assert (stats.search, stats.indexed) == ("hnsw", 3000)
        assert stats.recall_at_10 >= 0.97
        truth = vectors(shown)
        found = 0
        for probe in probes:
            apart = np.sort(np.linalg.norm(truth - vectors([probe]), axis=1))[:10]
            np.testing.assert_allclose(
                [h.distance for h in people.search(probe, k=10, exact=True)], apart, rtol=1e-4
            )
            found += sum(hit.distance <= apart[-1] + 1e-4 for hit in people.search(probe, k=10))
        assert found >= 0.97 * 500
        tail = people.add(image(7, 7, 7), "ben").ids
        assert people.search(image(7, 7, 7), k=1)[0].id == tail[0]  # found outside the index
        assert people.stats().indexed == 3000
        people.remove(label="ann")
        assert [hit.id for hit in people.search(probes[0], k=5)] == tail
    with open_gallery(tmp_path / "people.gallery", FakeModel()) as people:
        assert people.stats().recall_at_10 == stats.recall_at_10
        assert people.compact().search == "exact"
        assert people.count() == 1


def test_changes_during_index_build_are_kept(people, small_index, monkeypatch):
    shown = images(600)
    ids = people.add(shown, ["ann", "ben", "cleo"] * 200).ids
    build = subprocess.run
    expected = []

    def meanwhile(*arguments, **options):
        people.remove(label="ann")
        people.rename("ben", "bea")
        people.update(ids[2], metadata={"seen": True})
        people.add(images(20, seed=1), "dan")
        expected.append((people.list(), people.embeddings()[1].tolist(), people.search(shown[5], k=1000)))
        with pytest.raises(GalleryError, match="being built already"):
            people.compact()
        return build(*arguments, **options)

    monkeypatch.setattr(subprocess, "run", meanwhile)
    people.compact()
    people.close()
    with open_gallery(people.store.address, FakeModel()) as again:
        assert (
            again.list(),
            again.embeddings()[1].tolist(),
            again.search(shown[5], k=1000, exact=True),
        ) == expected[0]
        assert again.labels() == {"bea": 200, "cleo": 200, "dan": 20}
        again.remove(label="bea")
        assert again.labels() == {"cleo": 200, "dan": 20}


def test_adding_in_steps_does_not_build_the_index(people, small_index, monkeypatch):
    monkeypatch.setattr(Gallery, "compact", lambda self: pytest.fail("built"))
    for number in range(3):
        people.add(images(200, seed=number), "ann")
    assert people.stats().search == "exact"


def test_failed_index_build_leaves_the_gallery_unchanged(people, small_index, monkeypatch):
    people.add(images(200), "ann")
    monkeypatch.setattr(qdrant_edge, "_COMPACT", "raise SystemExit('no memory')")
    with pytest.raises(GalleryError, match=r"no memory.*has not changed"):
        people.compact()
    assert people.labels() == {"ann": 200}
    assert len(list(Path(people.store.address).glob("shard-*"))) == 1
    monkeypatch.undo()
    people.compact()
    people.remove(label="ann")
    people.add(image(1), "ben")
    assert people.labels() == {"ben": 1}


def test_interrupted_index_build_is_cleaned_up(tmp_path):
    path = tmp_path / "people.gallery"
    with open_gallery(path, FakeModel()) as people:
        people.add(images(10), "ann")
    (shard,) = path.glob("shard-*")
    shutil.copytree(shard, path / "shard-cutoff")
    with open_gallery(path, FakeModel()) as people:
        assert people.labels() == {"ann": 10}
    assert list(path.glob("shard-*")) == [shard]


def test_compact_frees_space_of_removed_images(tmp_path_factory):
    path = (
        tmp_path_factory.mktemp("disk") / "people.gallery"
    )  # not in memory, where mapping a sparse file fills it

    def size():
        return sum(gallery_file.size_on_disk(segments) for segments in path.glob("shard-*/segments"))

    with open_gallery(path, FakeModel()) as people:
        texts = [{"text": random.Random(number).randbytes(1000).hex()} for number in range(1000)]
        people.add(images(1000), "ann", metadata=texts)
        people.add(images(10, seed=1), "ben")
        people.remove(label="ann")
        before = size()
        people.compact()
        assert size() < before / 5
        assert people.labels() == {"ben": 10}


def test_closed_gallery_refuses_use_and_may_be_closed_again(people):
    people.add(image(1), "ann")
    people.close()
    people.close()
    for use in (people.count, people.list, people.labels, lambda: people.add(image(2), "ann")):
        with pytest.raises(GalleryError, match=r"failed .*not initialized.*open it again"):
            use()


def test_file_handles_are_closed(tmp_path):
    def handles():
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    path = tmp_path / "people.gallery"
    open_gallery(path, FakeModel()).close()
    before = handles()
    for number in range(5):
        with open_gallery(path, FakeModel()) as people:
            people.add(images(10, seed=number), "ann")
            people.compact()
    assert handles() <= before
