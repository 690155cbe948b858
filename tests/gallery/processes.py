"""Child processes: writers to be killed, and checks of damaged galleries.

The program imports everything once and forks a child for each line of standard input, which takes a
millisecond.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fake_model import FakeModel, image, images

from twinned.errors import GalleryError
from twinned.gallery.open import open_gallery


class Children:
    """Start the program; run one child at a time."""

    def __enter__(self) -> Children:
        self._parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.communicate(timeout=20)

    def start(self, job: str, *arguments: Any) -> int:
        """Start a child and return its process id."""
        print(json.dumps([job, *map(str, arguments)]), file=self._parent.stdin, flush=True)
        return int(json.loads(self._parent.stdout.readline())[0])

    def messages(self, *, until: str = "ended") -> Iterator[list[Any]]:
        """Yield the messages of the child up to `until` or its end."""
        while (message := json.loads(self._parent.stdout.readline()))[0] not in (until, "ended"):
            yield message


def report(*words: Any) -> None:
    """Write one line atomically, so that a killed process leaves no partial line."""
    line = json.dumps(words).encode() + b"\n"
    assert os.write(1, line) == len(line) <= 4096


def write(path: str, seed: str) -> None:
    """Add, relabel and remove images at random; report the start and end of each change."""
    choose = random.Random(int(seed))
    people = open_gallery(path, FakeModel())
    if int(seed) % 8 == 0:
        threading.Thread(target=people.compact, daemon=True).start()
    report("open")
    mine: list[str] = []
    for step in range(10_000):
        if len(mine) < 40 or choose.random() < 0.6:
            shown = [
                image(*choose.randbytes(8), salt=choose.getrandbits(60)) for _ in range(choose.randint(1, 90))
            ]
            label = f"{seed}-{step}"
            added = people.add(shown, label)
            mine += added.ids
            report("is", label, added.ids)
        else:
            choose.shuffle(mine)
            ids, mine = mine[:20], mine[20:]
            report("begin", ids)
            if choose.random() < 0.5:
                people.remove(ids)
                report("is", None, ids)
            else:
                people.update(ids[0], label="changed")
                report("is", "changed", ids[:1])


def hold(path: str) -> None:
    """Keep a gallery open until killed."""
    people = open_gallery(path, FakeModel())
    people.add(images(1), "ann")
    report("open")
    time.sleep(60)


def damage(path: str, scratch: str, cases: str) -> None:
    """Damage one file of a copy, open and use the copy, and report the outcome of each case."""
    whole = _contents(_copy(path, f"{scratch}/whole"))
    for number, (name, how) in enumerate(json.loads(Path(cases).read_text())):
        report("begin", number)
        harmed = _copy(path, f"{scratch}/{number}")
        _harm(harmed / name, how)
        try:
            if repr(_contents(harmed)) != repr(whole):
                report("result", number, "holds something else")
            elif not _writes(harmed):
                report("result", number, "does not take a write")
            else:
                report("result", number, "whole")
        except GalleryError as error:
            report("result", number, str(error)[:2000])
        except BaseException as error:
            report("result", number, f"{type(error).__name__}: {error}"[:2000])
        subprocess.run(["rm", "-rf", harmed], check=True)


def _contents(path: Path) -> Any:
    """Return all contents of a gallery."""
    with open_gallery(path, FakeModel()) as people:
        records, kept = people.embeddings()
        found = people.search(images(1)[0], k=10_000)
        return (
            records,
            kept.tolist(),
            sorted(hit.id for hit in found),
            people.labels(),
            people.identify(images(3)),
        )


def _writes(path: Path) -> bool:
    """Return whether changes are stored after reopening."""
    with open_gallery(path, FakeModel()) as people:
        expected = people.labels()
        expected.pop(people.remove(label=next(iter(expected))).items[0].label)
        people.add(image(1, salt=1), "new")
    with open_gallery(path, FakeModel()) as people:
        return people.labels() == expected | {"new": 1}


def _copy(path: str, to: str) -> Path:
    subprocess.run(["cp", "-a", "--sparse=always", path, to], check=True)
    return Path(to)


def _harm(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    else:
        os.truncate(path, {"empty": 0, "half": min(path.stat().st_size // 2, 2000)}[how])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for line in sys.stdin:
        job, *arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            report(os.getpid())
            {"write": write, "hold": hold, "damage": damage}[job](*arguments)
            os._exit(0)
        os.waitpid(child, 0)
        report("ended")
