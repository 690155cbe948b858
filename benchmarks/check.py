"""What `twinned check` says of real data, and how long it takes.

    python benchmarks/check.py --cedar cedar_signatures --others images_background lfw_crop96 orl_faces

Each folder is checked as it is, quickly and in full. Beside that, CEDAR in four forms: with the roles of
its images (once as scanned, once as a model sees it whose ink is binary), as pairs of a reference and a
questioned signature, and with 500 test files that are byte for byte training files.

Writes benchmarks/results/check.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from twinned.data.checks.checker import check_data
from twinned.data.checks.issues import Check
from twinned.data.datasets import ImageSet, PairSet
from twinned.data.preprocessing import ImageSpec
from twinned.data.readers import find_images, load, load_images

RESULTS = Path(__file__).parent / "results" / "check.md"
INK = ImageSpec(height=64, width=128, channels=1, ink="binary")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--cedar", type=Path, required=True, help="full_org and full_forg")
    options.add_argument("--others", type=Path, nargs="*", default=[], help="folders of class folders")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()

    rows, found = [], []
    for folder in (given.cedar, *given.others):
        data = load(folder)
        seconds = []
        for quick in (True, False):
            start = time.perf_counter()
            check = check_data(data, seed=given.seed, quick=quick)
            seconds.append(time.perf_counter() - start)
        rows.append((folder.name, check.images, check.classes, *seconds))
        found += said(folder.name, check)
    signatures = cedar(given.cedar)
    found += said("CEDAR with roles", check_data(signatures, seed=given.seed))
    found += said("CEDAR with roles, binary ink", check_data(signatures, spec=INK, seed=given.seed))
    found += said("CEDAR as pairs", check_data(pairs(signatures, given.seed), seed=given.seed))
    with tempfile.TemporaryDirectory() as work:
        found += said(
            "CEDAR, 500 test files copied", check_data(leaking(signatures, Path(work)), seed=given.seed)
        )

    lines = [
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()},"
        f" seed {given.seed}.",
        "",
        *table(("data", "images", "classes", "quick, s", "full, s"), rows),
        "",
        *table(("data", "severity", "kind", "what is said"), found),
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("# What `twinned check` says of real data\n\n" + "\n".join(lines) + "\n")
    print("\n".join(lines))


def cedar(folder: Path) -> ImageSet:
    """CEDAR by writer, with roles."""
    files = find_images(folder)
    writers = [re.findall(r"_(\d+)_", Path(file).name)[0] for file in files]
    forged = np.array([Path(file).name.startswith("forgeries") for file in files])
    return replace(load_images(files, writers), forgery=forged)


def pairs(signatures: ImageSet, seed: int) -> PairSet:
    """Each genuine or forged signature beside one genuine signature of its writer."""
    rng = np.random.default_rng(seed)
    left = np.empty(len(signatures), np.intp)
    for writer in signatures.classes:
        own = signatures.labels == writer
        left[own] = rng.choice(np.flatnonzero(own & ~signatures.forgery), own.sum())
    right = np.arange(len(signatures))
    apart = left != right
    return PairSet(
        images=signatures.images, left=left[apart], right=right[apart], same=~signatures.forgery[apart]
    )


def leaking(signatures: ImageSet, work: Path) -> ImageSet:
    """Genuine signatures in two splits by writer; 500 of the test's are copies of the training's."""
    genuine = signatures.subset(~signatures.forgery)
    test = genuine.class_index >= 30
    rows = [("path", "label", "split")]
    sources = iter(np.flatnonzero(~test)[:500])
    for i, (image, label, tested) in enumerate(zip(genuine.images, genuine.labels, test, strict=True)):
        source = next(sources, i) if tested else i
        shutil.copy(str(genuine.images[source] if tested else image), work / f"{i}.png")
        rows.append((f"{i}.png", str(label), "test" if tested else "train"))
    with (work / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return load_images(work / "list.csv")


def said(name: str, check: Check) -> list[tuple[str, ...]]:
    """One row a problem, without the example files."""
    short = [re.sub(r"(/\S*/)(?=[^/\s]+)", "", problem.message) for problem in check.problems]
    rows = [(name, p.severity, p.kind, text) for p, text in zip(check.problems, short, strict=True)]
    return rows or [(name, "", "", "nothing")]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [[f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *cells)]


if __name__ == "__main__":
    main()
