"""The gallery beside FAISS and scikit-learn, and how it grows.

    python benchmarks/gallery.py --model glyphs.twin --data images_background --sizes 10000 100000 1000000

Embeddings of real images, brought to each size by jitter: a copy is moved as far as images of one class lie
apart. Without a model, random clusters stand in. In one run, with the same probes one after the other: FAISS
IndexFlat (if faiss-cpu is installed), scikit-learn's brute-force NearestNeighbors, the gallery's exact search
and its index. Time to open, memory and the 99th percentile are taken in a process of their own.

Writes benchmarks/results/gallery.md, .json and .png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinned.gallery.open import open_store
from twinned.gallery.qdrant import Store
from twinned.gallery.store import Binding, Filter, Record

RESULTS = Path(__file__).parent / "results"
Vectors = NDArray[np.float32]
K = 10
COMMIT = 256  # records a commit, as `Gallery.add` does


def embeddings(
    model: Path | None, data: Path | None, seed: int
) -> tuple[Vectors, NDArray[np.int64], str, str]:
    """Embeddings to begin with, their classes, the distance, and where they are from."""
    random = np.random.default_rng(seed)
    if model is None or data is None:
        label = np.repeat(np.arange(1000), 20)
        vectors = random.normal(size=(1000, 128))[label] + 0.7 * random.normal(size=(len(label), 128))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32), label, "cosine", "random clusters"
    import twinned

    images = twinned.load_images(data)
    loaded = twinned.load(model)
    vectors = loaded.embed(images.images, progress=True)
    return vectors, images.class_index, loaded.distance, f"{len(vectors):,} images of {data.name}"


def jitter(vectors: Vectors, label: NDArray[np.int64], count: int, distance: str, seed: int) -> Vectors:
    """Any number of embeddings like these: each is one of them, moved by the spread within a class."""
    random = np.random.default_rng(seed)
    means = np.zeros((label.max() + 1, vectors.shape[1]))
    np.add.at(means, label, vectors)
    means /= np.maximum(np.bincount(label), 1)[:, None]
    spread = (vectors - means[label]).std(axis=0).astype(np.float32)
    moved = vectors[random.integers(len(vectors), size=count)]
    for start in range(0, count, 65_536):
        part = moved[start : start + 65_536]
        part += spread * random.standard_normal(part.shape, dtype=np.float32)
        if distance == "cosine":
            part /= np.linalg.norm(part, axis=1, keepdims=True)
    return moved


def fill(folder: Path, vectors: Vectors, distance: Any, seed: int) -> tuple[Store, float]:
    """A gallery of these embeddings, and the seconds it took: each 256 on disk before the next."""
    ids = np.random.default_rng(seed).bytes(16 * len(vectors))
    records = [
        Record(str(uuid.UUID(bytes=ids[16 * i : 16 * i + 16])), f"class {i % 1000}", f"/images/{i}.png")
        for i in range(len(vectors))
    ]
    binding = Binding(encoder_sha256="0" * 64, embedding_size=vectors.shape[1], distance=distance)
    store = open_store(folder, binding)
    began = time.perf_counter()
    for start in range(0, len(vectors), COMMIT):
        store.write(records[start : start + COMMIT], vectors[start : start + COMMIT])
    return store, time.perf_counter() - began


def exact_rivals(vectors: Vectors, distance: str) -> dict[str, Callable[[Vectors], NDArray[Any]]]:
    """Functions from one probe ``(1, d)`` to the places of its ten nearest."""
    from sklearn.neighbors import NearestNeighbors

    metric = {"squared_euclidean": "sqeuclidean"}.get(distance, distance)
    neighbours = NearestNeighbors(n_neighbors=K, metric=metric, algorithm="brute").fit(vectors)
    rivals = {"scikit-learn": lambda probe: neighbours.kneighbors(probe, return_distance=False)[0]}
    try:
        import faiss
    except ImportError:
        print("faiss-cpu is not installed: its column stays empty", file=sys.stderr)
        return rivals
    if distance != "manhattan":
        flat = (
            faiss.IndexFlatIP(vectors.shape[1])
            if distance == "cosine"
            else faiss.IndexFlatL2(vectors.shape[1])
        )
        flat.add(vectors)
        rivals["FAISS flat"] = lambda probe: flat.search(probe, K)[1][0]
    return rivals


def side_by_side(methods: dict[str, Callable[[Vectors], Any]], probes: Vectors) -> dict[str, float]:
    """Median milliseconds a probe; the methods take turns of 40 probes.

    Before each turn there is a pause: the threads of OpenMP and BLAS go on spinning after an answer, and
    would be counted against whoever comes next.
    """
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for start in range(0, len(probes), 40):
        for name, method in methods.items():
            time.sleep(0.3)
            method(probes[:1])
            for probe in probes[start : start + 40]:
                began = time.perf_counter()
                method(probe[None])
                seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * float(np.median(taken)) for name, taken in seconds.items()}


def recall(store: Store, probes: Vectors) -> float:
    """Share of the true ten nearest that the index finds; of two equally far either is right."""
    pairs = zip(*(store.search(probes, K, Filter(), exact=exact) for exact in (False, True)))
    return float(np.mean([np.mean(found.distances <= truth.distances[-1] + 1e-6) for found, truth in pairs]))


def measure_alone(folder: Path, probes: Path) -> None:
    """In a process of its own: time to open, memory, the spread of query times. Prints JSON."""
    asked = np.load(probes)
    before = _memory()
    began = time.perf_counter()
    store = open_store(folder, None)
    opened = time.perf_counter() - began
    for probe in asked[:100]:
        store.search(probe[None], K, Filter(), exact=False)
    seconds = []
    for probe in asked:
        began = time.perf_counter()
        store.search(probe[None], K, Filter(), exact=False)
        seconds.append(time.perf_counter() - began)
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    print(json.dumps({"open_s": opened, "p50_ms": p50, "p99_ms": p99, "memory_mb": _memory() - before}))


def _memory() -> float:
    """Resident megabytes of this process, files that it has mapped included."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def run(
    size: int, start: tuple[Vectors, NDArray[np.int64], str, str], queries: int, seed: int, folder: Path
) -> dict[str, Any]:
    """All figures at one size."""
    first, label, distance, source = start
    vectors = jitter(first, label, size, distance, seed)
    probes = jitter(first, label, queries, distance, seed + 1)
    store, insert = fill(folder / "g.gallery", vectors, distance, seed)

    def exact(probe: Vectors) -> Any:
        return store.search(probe, K, Filter(), exact=True)

    def by_index(probe: Vectors) -> Any:
        return store.search(probe, K, Filter(), exact=False)

    times = side_by_side({"exact": exact, **exact_rivals(vectors, distance)}, probes[:200])
    began = time.perf_counter()
    store.compact()
    build = time.perf_counter() - began
    row: dict[str, Any] = {
        "size": size,
        "values": vectors.shape[1],
        "distance": distance,
        "source": source,
        "insert_s": insert,
        "exact_ms": times["exact"],
        "faiss_ms": times.get("FAISS flat"),
        "sklearn_ms": times["scikit-learn"],
        "vectors_mb": vectors.nbytes / 2**20,
    }
    if store.indexed():
        for probe in probes:  # the new index is read into memory
            by_index(probe[None])
        after = side_by_side({"index": by_index, "exact": exact}, probes[:200])
        row |= {
            "build_s": build,
            "index_ms": after["index"],
            "speed_up": after["exact"] / after["index"],
            "recall_at_10": recall(store, probes[:200]),
        }
    store.close()
    np.save(folder / "probes.npy", probes)
    command = [sys.executable, __file__, "--alone", str(folder / "g.gallery"), str(folder / "probes.npy")]
    row |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    row["disk_mb"] = sum(512 * f.stat().st_blocks for f in (folder / "g.gallery").rglob("*")) / 2**20
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as markdown."""
    columns = {
        "images": "{size:,}",
        "insert s": "{insert_s:.1f}",
        "exact ms": "{exact_ms:.2f}",
        "FAISS flat ms": "{faiss_ms:.2f}",
        "scikit-learn ms": "{sklearn_ms:.2f}",
        "build s": "{build_s:.0f}",
        "index ms": "{index_ms:.2f}",
        "faster than exact": "{speed_up:.1f}x",
        "recall@10": "{recall_at_10:.4f}",
        "p99 ms": "{p99_ms:.2f}",
        "open s": "{open_s:.2f}",
        "memory / vectors": "{memory_mb:.0f} / {vectors_mb:.0f} MB",
    }

    def cell(form: str, row: dict[str, Any]) -> str:
        try:
            return form.format(**row)
        except (KeyError, TypeError):  # not measured
            return ""

    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(form, row) for form in columns.values()) + " |" for row in rows]
    about = (
        f"{rows[0]['values']} values, {rows[0]['distance']} distance, from {rows[0]['source']} by jitter; "
        f"{os.cpu_count()} cores, Python {platform.python_version()}. Medians of 200 probes, ten nearest "
        "with payload. Insert: every 256 on disk before the next. p99: through the index, in a new process, "
        "as are the time to open and the memory (resident, with mapped files). Build: by a child process, "
        "while the gallery answers."
    )
    return "\n".join([*lines, "", *textwrap.wrap(about, 110), ""])


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Query time and memory against the number of images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (time_axes, memory_axes) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    series = {
        "scikit-learn": "sklearn_ms",
        "gallery, exact": "exact_ms",
        "FAISS flat": "faiss_ms",
        "gallery, index": "index_ms",
    }
    for name, key in series.items():
        found = [(row["size"], row[key]) for row in rows if row.get(key) is not None]
        if found:
            time_axes.plot(*zip(*found), marker="o", label=name)
    time_axes.set(xscale="log", yscale="log", xlabel="images", ylabel="median ms a query")
    time_axes.legend(frameon=False)
    sizes = [row["size"] for row in rows]
    memory_axes.plot(
        sizes, [row["memory_mb"] for row in rows], marker="o", label="gallery, open and searched"
    )
    memory_axes.plot(
        sizes, [row["vectors_mb"] for row in rows], marker="o", label="the embeddings themselves"
    )
    memory_axes.set(xscale="log", yscale="log", xlabel="images", ylabel="MB")
    memory_axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where galleries are made; a temporary one by default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--alone", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        measure_alone(*options.alone)
        return
    start = embeddings(options.model, options.data, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in options.sizes:
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            rows.append(run(size, start, options.queries, options.seed, folder))
        finally:
            shutil.rmtree(folder)
        (options.out / "gallery.json").write_text(json.dumps(rows, indent=1) + "\n")
        (options.out / "gallery.md").write_text(table(rows))
        draw(rows, options.out / "gallery.png")
        print(table(rows[-1:]))


if __name__ == "__main__":
    main()
