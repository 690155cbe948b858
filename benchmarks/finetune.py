"""A network that has seen the world, fitted to a few classes: EfficientNet-Lite0 on logos and faces.

    python benchmarks/finetune.py logos --data logos27 --seeds 0 1 2
    python benchmarks/finetune.py few   --data logos27 --minutes 0.5 1 2
    python benchmarks/finetune.py speed --data logos27
    python benchmarks/finetune.py lfw   --data lfw

logos: every second of the 27 classes (by name) is unseen; the others are trained on. Settings were chosen on
folds of the training classes. few: the same with 10 images of each training class, for several budgets.
speed: epochs a second of an embedding layer learned over a frozen encoder, its values kept or computed anew.
lfw: View 2, ten folds; the encoder frozen, two of its maps pooled and kept, the layer solved on the people of
the other folds, the threshold from their pairs. The folder holds the images and the official lists.
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
from torch.nn.functional import adaptive_avg_pool2d, normalize

import twinned as tw
from twinned.data.datasets import ImageSet
from twinned.data.decoded import DecodedSet, decode
from twinned.distances import cosine
from twinned.metrics.roc import lfw_folds
from twinned.nn.lda import fit_lda_projection
from twinned.training.callbacks import Callback
from twinned.training.recipes import get
from twinned.training.schedule import Budget
from twinned.training.state import Step
from twinned.training.trainer import Trainer
from twinned.training.warm_start import pretrained_baseline

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
FACE, SIZE, SHRINK = 160, 128, 0.1  # of lfw: side of the image, values of the layer, shrinkage


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


class Seconds(Callback):
    """Record the time of each step."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds

    def on_step(self, step: Step) -> None:
        self.seconds.append(step.seconds)


def speed(data: ImageSet) -> Iterator[Row]:
    """Seconds a step of a layer learned by gradient over the frozen encoder, from the second step on."""
    changes = {
        "freeze": "all",
        "projection": "gradient",
        "precision": "float32",
        "steps": 1,
        "n_augmentations": 1,
    }
    config = get("photo").merge(changes | {"max_epochs": None, "evaluations": 1, "warmup": 0})
    known, _ = parted(data)
    material = DecodedSet.from_images(known, config.spec(), progress=False)
    encoder = pretrained_baseline(config, config.spec())
    spec = config.spec().model_copy(update=encoder.statistics)
    for method, steps in (("values kept", 400), ("computed anew", 8)):
        seconds: list[float] = []
        trainer = Trainer(
            config, spec, device=torch.device("cpu"), callbacks=[Seconds(seconds)], progress=False
        )
        train = material
        if method == "values kept":
            train, _ = trainer.cache_features(material, budget=Budget())
        trainer.fit(train, steps=steps)
        a_step = float(np.median(np.diff(seconds)))
        epochs = (
            config.sampler.classes_per_batch * config.sampler.images_per_class / len(material.pixels) / a_step
        )
        yield {"method": method, "images": len(material.pixels), "epochs_per_second": epochs}


@torch.inference_mode()
def face_values(images: list[str]) -> torch.Tensor:
    """What the frozen encoder makes of faces: shape ``(images, 2, values)``, as they are and in the mirror.

    The values keep where in the face they are: the map of 80 filters pooled to 3x3, that of 192 to 4x4.
    """
    config = get("photo").merge({"height": FACE, "width": FACE})
    network = pretrained_baseline(config, config.spec())
    network = network.to(memory_format=torch.channels_last).eval()
    grids = {4: 3, 6: 4}  # by the number of the stage
    found = []
    for start in range(0, len(images), 500):  # so that the pixels need not all be in memory
        pixels = decode(images[start : start + 500], config.spec(), progress=False).pixels
        for part in np.array_split(pixels, -(-len(pixels) // 16)):
            x = torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255
            x = (torch.cat([x, x.flip(3)]) - network.mean) / network.std
            x, pooled = x.contiguous(memory_format=torch.channels_last), []
            for number, stage in enumerate(network.encoder.stages()[: max(grids) + 1]):
                x = stage(x)
                if number in grids:
                    pooled.append(adaptive_avg_pool2d(x, grids[number]).flatten(1))
            found.append(torch.stack(torch.cat(pooled, dim=1).half().chunk(2), dim=1))
    values = torch.cat(found).float()
    parts = values.split([80 * 3 * 3, 192 * 4 * 4], dim=2)
    return torch.cat([part / part.square().sum(dim=2).mean().sqrt() for part in parts], dim=2)


def lfw(root: Path) -> Iterator[Row]:
    """View 2 over values that are computed once; grids, size and shrinkage were chosen on View 1."""
    from twinned.data.benchmarks import read_lfw

    official = read_lfw(root)
    pairs, fold = official.pairs, official.fold
    known = tw.load_images(Path(pairs.images[0]).parent.parent)
    place = {os.path.realpath(image): row for row, image in enumerate(known.images)}
    began = time.monotonic()
    values = face_values(list(known.images))
    person = torch.from_numpy(np.unique(known.labels, return_inverse=True)[1])
    row = np.array([place[os.path.realpath(image)] for image in pairs.images])
    left, right = row[pairs.left], row[pairs.right]
    for method in ("untouched", "layer solved"):
        distance = np.empty(len(left), np.float32)
        for number in np.unique(fold):
            chosen = np.flatnonzero(fold == number)
            z = values
            if method == "layer solved":
                tested = np.unique(known.labels[np.concatenate([left[chosen], right[chosen]])])
                others = torch.from_numpy(~np.isin(known.labels, tested))
                weight, bias = fit_lda_projection(
                    values[others].flatten(0, 1),
                    person[others].repeat_interleave(2),
                    size=SIZE,
                    shrinkage=SHRINK,
                )
                z = values @ weight.T + bias
            z = normalize(z, dim=2).sum(dim=1)
            distance[chosen] = cosine(z[left[chosen]], z[right[chosen]]).numpy()
        folds = lfw_folds(distance, pairs.same, fold)
        seconds = round(time.monotonic() - began, 1)
        yield {"method": method, "images": len(known.images), "accuracy": folds.mean, "seconds": seconds}


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
