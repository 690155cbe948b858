"""One-shot accuracy for minutes of training: Twinned, pytorch-metric-learning, the slide deck's recipe.

    python benchmarks/oneshot.py --train images_background_small1 --runs all_runs --minutes 0.25 0.5 1 2

Everybody gets the same images, the same minutes on the same cores, the same encoder (conv4_wide at 35x35),
and is measured on the official 20 runs of 20-way within-alphabet one-shot classification. A row is added to
benchmarks/results/oneshot.csv for each training; the table, and the picture of accuracy over seconds (each
point a training of its own), are made from all rows. --methods with none after it only makes these anew.
twinned-adamw is the recipe with AdamW instead of Muon. --device cuda trains on a GPU; its rows name it.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import losses as pml
from torch import Tensor
from torch.nn import functional as F

from twinned import load_images
from twinned.data.augmentation import Augmentation
from twinned.data.decoded import decode
from twinned.data.pairs import make_pairs
from twinned.data.preprocessing import ImageSpec
from twinned.data.samplers import ClassBatches
from twinned.distances import cosine
from twinned.evaluation.protocols import ModelFacts, evaluate
from twinned.nn.encoders import build
from twinned.nn.heads import WeightedL1
from twinned.training.process import keep_freed_memory
from twinned.training.recipes import get
from twinned.visualization.training import accuracy_over_time

SPEC = ImageSpec(height=35, width=35, channels=1)
RESULTS = Path(__file__).parent / "results" / "oneshot.csv"
FIELDS = [
    "train",
    "method",
    "minutes",
    "seed",
    "accuracy",
    "low",
    "high",
    "steps",
    "cores",
    "date",
    "processor",
]


NO_FACTS = ModelFacts(None)  # type: ignore[arg-type] # the protocol needs no threshold


class AsModel:
    """A PyTorch network in the clothes that an evaluation knows."""

    spec = SPEC

    def __init__(
        self, embed: Callable[[Tensor], Tensor], apart: Callable[[Any, Any], Any], device: str
    ) -> None:
        self.embed, self.distances, self.device = embed, apart, device

    @torch.no_grad()
    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return self.embed(plain(torch.from_numpy(pixels).to(self.device))).cpu().numpy()


plain = Augmentation()
encoder = partial(build, get("glyph").encoder.name, image_size=(35, 35), channels=1)


def metric_learning(name: str, augment: bool) -> Callable[..., tuple[AsModel, int]]:
    """A loss of pytorch-metric-learning: 48 classes x 4 images, AdamW, cosine schedule."""
    recipe = get("glyph")
    loss = {
        "triplet": pml.TripletMarginLoss(),
        "contrastive": pml.ContrastiveLoss(),
        "ntxent": pml.NTXentLoss(0.1),
    }[name]
    warp = Augmentation(**recipe.augment.model_dump()) if augment else plain

    def train(
        pixels: Tensor, labels: np.ndarray, deadline: float, seed: int, device: str
    ) -> tuple[AsModel, int]:
        torch.manual_seed(seed)
        net = encoder().to(device, memory_format=torch.channels_last)
        batches = ClassBatches(labels, rotate_classes=augment, flip_classes=augment, seed=seed)
        optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
        began, step = time.monotonic(), 0
        while (now := time.monotonic()) < deadline:
            done = (now - began) / (deadline - began)
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * 0.5 * (1 + np.cos(np.pi * done))
            batch = batches(step)
            turns = None if batch.turns is None else torch.from_numpy(batch.turns)
            x = warp(pixels[torch.from_numpy(batch.index)].to(device), turns=turns, seed=step)
            value = loss(net(x), torch.from_numpy(batch.labels).to(device))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            step += 1
        net.eval()
        return AsModel(lambda x: F.normalize(net(x)), lambda a, b: cosine(a, b, pairwise=True), device), step

    return train


def deck(pixels: Tensor, labels: np.ndarray, deadline: float, seed: int, device: str) -> tuple[AsModel, int]:
    """Slide 1's head and the training of slides 10 and 11, on this file's encoder and balanced pairs.

    That is |a - b| into one sigmoid, cross-entropy, Adam at 1e-3, 32 pairs a batch.
    """
    torch.manual_seed(seed)
    net = encoder(embedding_size=128).to(device, memory_format=torch.channels_last)
    head = WeightedL1(128).to(device)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], 1e-3)
    step = 0
    left, right, same = make_pairs(labels, pairs=32 * 20000, seed=seed)
    while time.monotonic() < deadline:
        part = slice(32 * step, 32 * step + 32)
        a, b = (plain(pixels[torch.from_numpy(side[part])]).to(device) for side in (left, right))
        logit = head.logit(torch.relu(net(a)), torch.relu(net(b)))
        value = F.binary_cross_entropy_with_logits(logit, torch.from_numpy(same[part]).float().to(device))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        step += 1
    net.eval()
    head.cpu()

    @torch.no_grad()
    def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        rows = [head(torch.from_numpy(row)[None].expand(len(b), -1), torch.from_numpy(b)) for row in a]
        return torch.stack(rows).numpy()

    return AsModel(lambda x: torch.relu(net(x)), apart, device), step


METHODS: dict[str, Callable[..., tuple[AsModel, int]]] = {
    "deck": deck,
    "pml-triplet": metric_learning("triplet", False),
    "pml-contrastive": metric_learning("contrastive", False),
    "pml-ntxent": metric_learning("ntxent", False),
    "pml-ntxent+augmentation": metric_learning("ntxent", True),
}


OURS = {"twinned": [], "twinned-adamw": ["--set", "optimizer=adamw"]}


def ours(
    method: str, data: Path, runs: Path, minutes: float, seed: int, device: str
) -> tuple[float, Any, int]:
    """Twinned as a user runs it: two commands. The classes held out for the threshold are not trained on."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "m.twin"
        command = ["twinned", "train", str(data), "-o", str(model), "--recipe", "glyph", *OURS[method]]
        command += ["--device", device]
        subprocess.run([*command, "--minutes", str(minutes), "--seed", str(seed), "--quiet"], check=True)
        found = subprocess.run(
            ["twinned", "evaluate", str(model), str(runs), "--protocol", "omniglot-runs", "--json"],
            check=True,
            capture_output=True,
            text=True,
        )
        steps = json.loads((model / "training.json").read_text())["steps"]
    shot = json.loads(found.stdout)["one_shot"]
    return shot["accuracy"], shot["ci"], steps


def theirs(
    method: str, data: Path, runs: Path, minutes: float, seed: int, device: str
) -> tuple[float, Any, int]:
    """Another way to train, for as many minutes."""
    images = load_images(data)
    deadline = time.monotonic() + 60 * minutes
    pixels = torch.from_numpy(decode(images.images, SPEC, progress=False).pixels)
    model, steps = METHODS[method](pixels, images.class_index, deadline, seed, device)
    shot = evaluate(model, runs, NO_FACTS, protocol="omniglot-runs", progress=False).one_shot  # type: ignore[arg-type]
    return shot.accuracy, shot.ci, steps


def table() -> str:
    """A markdown table of all rows: the mean over trainings, and their range."""
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    by = ("train", "minutes", "method", "processor", "cores")
    lines = [
        "| trained on | minutes | method | processor | cores | accuracy | range | seeds | steps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key in sorted({tuple(r[name] for name in by) for r in rows}):
        mine = [r for r in rows if tuple(r[name] for name in by) == key]
        found = [float(r["accuracy"]) for r in mine]
        steps = round(np.mean([int(r["steps"]) for r in mine]))
        lines.append(
            f"| {' | '.join(key)} | {np.mean(found):.4f} | {min(found):.4f} to {max(found):.4f}"
            f" | {len(found)} | {steps} |"
        )
    return "\n".join(lines)


def processor(device: str) -> str:
    """What decides how much a minute is worth: the GPU, or the widest vectors and units for bfloat16."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    units = " with bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ""
    return f"{torch.backends.cpu.get_cpu_capability()}{units}"


def picture(train: str, most: float) -> None:
    """Accuracy over seconds of training, of every method with several budgets on these images.

    All of them on one processor and as many of its cores, those of the most trainings.
    """
    with RESULTS.open() as file:
        rows = [r for r in csv.DictReader(file) if r["train"] == train and float(r["minutes"]) <= most]
    usual = statistics.mode((r["processor"], r["cores"]) for r in rows)
    rows = [r for r in rows if (r["processor"], r["cores"]) == usual]
    runs: dict[str, dict[str, list[float]]] = {}
    for method in ("twinned", *METHODS):
        mine = [r for r in rows if r["method"] == method]
        budgets = sorted({float(r["minutes"]) for r in mine})
        if len(budgets) > 1:
            at = [[float(r["accuracy"]) for r in mine if float(r["minutes"]) == budget] for budget in budgets]
            runs[method] = {
                "seconds": [60 * budget for budget in budgets],
                "20-way one-shot accuracy": [float(np.mean(found)) for found in at],
            }
    axes = accuracy_over_time(runs, measure="20-way one-shot accuracy")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes.figure.savefig(RESULTS.with_suffix(".png"), dpi=160, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="unpacked background folders")
    parser.add_argument("--runs", type=Path, required=True, help="the unpacked all_runs")
    parser.add_argument("--minutes", type=float, nargs="+", default=[2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to train")
    parser.add_argument("--methods", nargs="*", default=["twinned", *METHODS], choices=[*OURS, *METHODS])
    options = parser.parse_args()
    keep_freed_memory()  # so do they all
    RESULTS.parent.mkdir(exist_ok=True)
    fresh = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if fresh:
            writer.writeheader()
        asked = product(options.minutes, options.seeds, options.train, options.methods)
        for minutes, seed, data, method in asked:
            run = ours if method in OURS else theirs
            accuracy, ci, steps = run(method, data, options.runs, minutes, seed, options.device)
            low, high = ci or (None, None)
            row = {"train": data.name, "method": method, "minutes": float(minutes), "seed": seed}
            row |= {"accuracy": round(accuracy, 4), "low": low, "high": high, "steps": steps}
            row |= {"cores": torch.get_num_threads(), "date": time.strftime("%Y-%m-%d")}
            writer.writerow(row | {"processor": processor(options.device)})
            file.flush()
            print(json.dumps(row), file=sys.stderr)
    machine = f"{platform.machine()}, torch {torch.__version__}"
    text = f"20-way one-shot accuracy ({machine})\n\n{table()}\n"
    RESULTS.with_suffix(".md").write_text(text)
    picture("images_background_small1", 2.0)
    print(text)


if __name__ == "__main__":
    main()
