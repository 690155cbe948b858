"""A network that has seen the world, fitted to a few classes: EfficientNet-Lite0 on logos and faces.

    python benchmarks/finetune.py logos --data logos27 --seeds 0 1 2
    python benchmarks/finetune.py few   --data logos27 --minutes 0.5 1 2
    python benchmarks/finetune.py speed --data logos27
    python benchmarks/finetune.py lfw   --data lfw

logos: every second of the 27 classes (by name) is unseen; the others are trained on. Settings were chosen on
folds of the training classes. few: the same with 10 images of each training class, for several budgets.
speed: epochs a second of an embedding layer learned over a frozen encoder, its values kept or computed anew.
lfw: View 2, ten folds; the encoder frozen, two of its maps pooled and kept, the layer solved on the people
outside the fold, the threshold from the pairs of the other folds. The folder holds the images and the lists.
Rows go to results/finetune.csv; the table is made of all rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import twinned as tw
from twinned.auto import settle
from twinned.data import ImageSet
from twinned.data.official import read_lfw
from twinned.distances import cosine
from twinned.material import read
from twinned.recipes import get
from twinned.runs import Run, untouched_encoder
from twinned.verification import lfw_folds

RESULTS = Path(__file__).parent / "results" / "finetune.csv"
FIELDS = [
    "task",
    "method",
    "images",
    "minutes",
    "seed",
    "recall_at_1",
    "eer",
    "accuracy",
    "epochs_per_second",
]
FIELDS += ["seconds", "cores", "date"]
Row = dict[str, object]


def parted(data: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Classes to train on and every second one, unseen."""
    names = sorted(data.classes)
    return data.with_classes(names[::2]), data.with_classes(names[1::2])


def measured(model: tw.Model, unseen: ImageSet) -> tuple[Row, Row]:
    """Figures of a model on unseen classes, and those of the encoder before."""
    found = model.evaluate(unseen, progress=False)
    before = found.details.get("untouched", {})
    after = {"recall_at_1": found.retrieval.recall_at[1], "eer": found.verification.eer}
    return after, {name: before.get(name) for name in after}


def logos(data: ImageSet, seeds: list[int], steps: int) -> Iterator[Row]:
    """A fixed number of steps, so that the figures do not depend on the machine."""
    known, unseen = parted(data)
    model = tw.train(known, recipe="photo", encoder="efficientnet_lite0", steps=0, progress=False)
    yield {"method": "untouched", "images": 0} | measured(model, unseen)[0]
    for seed in seeds:
        began = time.monotonic()
        model = tw.train(known, recipe="photo", steps=steps, seed=seed, progress=False)
        seconds = time.monotonic() - began
        row = {"method": "photo", "images": len(known.images), "seed": seed, "seconds": round(seconds, 1)}
        yield row | measured(model, unseen)[0]


def few(data: ImageSet, budgets: list[float], seed: int, each: int = 10) -> Iterator[Row]:
    """So many images of each training class, for several budgets."""
    known, unseen = parted(data)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(known.labels == name) for name in known.classes]
    some = known.subset(np.sort(np.concatenate([rng.permutation(m)[:each] for m in members])))
    for minutes in budgets:
        began = time.monotonic()
        model = tw.train(some, recipe="photo", minutes=minutes, seed=seed, progress=False)
        seconds = time.monotonic() - began
        row = {"method": f"photo, {each} images a class", "images": len(some.images), "minutes": minutes}
        yield row | {"seed": seed, "seconds": round(seconds, 1)} | measured(model, unseen)[0]


def speed(data: ImageSet) -> Iterator[Row]:
    """Seconds a step of a layer learned by gradient over the frozen encoder, from the second step on."""
    changes = {
        "freeze": "all",
        "layer": "learned",
        "precision": "float32",
        "minutes": None,
        "steps": 1,
        "views": 1,
    }
    settings = get("photo").change(changes | {"enough": None, "evaluations": 1, "warmup": 0})
    known, _ = parted(data)
    material = read(known, settings.spec(), tell=print, progress=False)
    encoder = untouched_encoder(settings, settings.spec())
    spec = settings.spec().model_copy(update=encoder.statistics)
    for method, steps in (("values kept", 400), ("computed anew", 8)):
        seconds: list[float] = []
        run = Run(
            settings, spec, torch.device("cpu"), False, lambda s, into=seconds: into.append(s.seconds), print
        )
        if method == "values kept":
            run.prepare(material)
        run.train(material, None, None, title="speed", steps=steps)
        a_step = float(np.median(np.diff(seconds)))
        epochs = settings.classes_per_batch * settings.images_per_class / len(material.pixels) / a_step
        yield {"method": method, "images": len(material.pixels), "epochs_per_second": epochs}


def lfw(root: Path) -> Iterator[Row]:
    """View 2 over values that are computed once; grids, size and shrinkage were chosen on View 1."""
    official = read_lfw(root)
    pairs = official.pairs
    known = tw.load_images(Path(pairs.images[0]).parent.parent)
    changes = {"views": 0, "embedding_size": 128, "shrink": 0.1}
    settings = settle(
        known,
        "face",
        {"encoder": "efficientnet_lite0_face"},
        image_size=None,
        batch_size=None,
        extra=changes,
        seed=0,
        tell=print,
    )
    began = time.monotonic()
    untouched = untouched_encoder(settings, settings.spec())
    spec = settings.spec().model_copy(update=untouched.statistics)
    run = Run(settings, spec, torch.device("cpu"), True, None, print)
    material = run.prepare(read(known, spec, tell=print, progress=True))
    place = {os.path.realpath(image): row for row, image in enumerate(material.images.images)}
    row = np.array([place[os.path.realpath(image)] for image in pairs.images])
    left, right = row[pairs.left], row[pairs.right]
    labels = material.images.labels
    for method in ("untouched", "layer solved"):
        distance = np.empty(len(left), np.float32)
        for number in np.unique(official.fold):
            chosen = np.flatnonzero(official.fold == number)
            shown = np.union1d(left[chosen], right[chosen])
            network = run.tail(untouched)
            if method == "layer solved":
                others = material.part(np.flatnonzero(~np.isin(labels, labels[shown])))
                network = run.train(others, None, None, title=f"Fold {number}", steps=0).network
            z = run.embed(network, material.part(shown))
            at = np.searchsorted(shown, left[chosen]), np.searchsorted(shown, right[chosen])
            distance[chosen] = cosine(z[at[0]], z[at[1]]).numpy()
        folds = lfw_folds(distance, pairs.same, official.fold)
        seconds = round(time.monotonic() - began, 1)
        yield {"method": method, "images": len(labels), "accuracy": folds.mean, "seconds": seconds}


def table() -> str:
    """Every row, as Markdown."""
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    lines = [f"| {' | '.join(FIELDS)} |", f"|{'---|' * len(FIELDS)}"]
    return "\n".join(lines + [f"| {' | '.join(row[f] for f in FIELDS)} |" for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["logos", "few", "speed", "lfw"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=100, help="of logos")
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="of few")
    options = parser.parse_args()
    if options.task == "lfw":
        rows = lfw(options.data)
    else:
        data = tw.load_images(options.data)
        rows = {
            "logos": lambda: logos(data, options.seeds, options.steps),
            "few": lambda: few(data, options.minutes, options.seeds[0]),
            "speed": lambda: speed(data),
        }[options.task]()
    RESULTS.parent.mkdir(exist_ok=True)
    for row in rows:
        fresh = not RESULTS.exists()
        with RESULTS.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            if fresh:
                writer.writeheader()
            full = {"task": options.task, "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")} | row
            full = {k: round(v, 4) if isinstance(v, float) else v for k, v in full.items()}
            writer.writerow(full)
        print(json.dumps(full), flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    RESULTS.with_suffix(".md").write_text(f"EfficientNet-Lite0, pretrained ({machine})\n\n{table()}\n")


if __name__ == "__main__":
    main()
