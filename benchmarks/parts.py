"""Parts of one's own: a plain loop that ends in a model, against the same parts in `twinned.train`.

    python benchmarks/parts.py --data images_background_small1

Half of the classes are trained on, the others measure. Lines: those of `PROGRAM`, a plain loop with an
encoder and a loss of its own, from imports to a model folder that `twinned verify` uses. Round trip: largest
difference of embeddings of 100 images between the network of the loop, its model, and the network of that
model. Equal error rate: of the model of the loop and of that of `twinned.train` with the same parts, batches,
steps and seed. Time a step: CPU seconds of the same steps in `twinned.train` and in the loop, measured
alternately, after the first of each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import twinned as tw
from twinned.data.datasets import ImageSet
from twinned.data.decoded import DecodedSet
from twinned.training.callbacks import Callback
from twinned.training.state import Step

RESULT = Path(__file__).parent / "results" / "parts.md"
PROGRAM = """
import sys, torch, twinned as tw
from torch import nn
from torch.nn import functional as F

def block(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(block(1, 64), block(64, 64), block(64, 64), block(64, 64), nn.Flatten())

def loss(z, y):
    similarity = F.normalize(z) @ F.normalize(z).T / 0.1 - 1e9 * torch.eye(len(z))
    same = (y[:, None] == y) & ~torch.eye(len(z), dtype=torch.bool)
    return -(similarity.log_softmax(1) * same).sum(1).div(same.sum(1)).mean()

def fit(encoder, images, steps):
    batches = tw.data.ClassBatches(images.images.class_index, classes=32, images=4)
    pixels, optimizer = torch.from_numpy(images.pixels), torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    for batch in map(batches, range(steps)):
        value = loss(encoder(pixels[batch.index].permute(0, 3, 1, 2) / 255), torch.from_numpy(batch.labels))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return encoder

spec = tw.data.ImageSpec(height=35, width=35, channels=1)
encoder = fit(Net(), tw.data.DecodedSet.from_images(tw.load_images(sys.argv[1]), spec), int(sys.argv[2]))
tw.Model.from_network(encoder, sys.argv[3], spec=spec, output=sys.argv[4])
"""
BAR_LINES, BAR_DIFFERENCE, BAR_TIME = 25, 1e-5, 1.05


class Clock(Callback):
    """CPU time at the end of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step(self, step: Step) -> None:
        self.times.append(time.process_time())


def parts() -> dict[str, Any]:
    """Names that the program defines before its last lines."""
    found: dict[str, Any] = {}
    exec(PROGRAM[: PROGRAM.index("spec = ")], found)
    return found


def by_train(own: dict[str, Any], train: ImageSet, held_out: ImageSet, steps: int) -> tuple[tw.Model, float]:
    """Train with the parts of the program; return the model and the median CPU seconds of a step."""
    torch.manual_seed(0)
    encoder, clock = own["Net"](), Clock()
    encoder.mean, encoder.std = (0.0,), (1.0,)  # the loop does not normalize its input
    model = tw.train(
        train,
        recipe="glyph",
        validation=held_out,
        encoder=encoder,
        loss=own["loss"],
        augment=lambda images: images,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        schedule=lambda step, total: 1.0,
        steps=steps,
        device="cpu",
        callbacks=[clock],
        progress=False,
        settings={
            "normalize": False,
            "rotate_classes": False,
            "flip_classes": False,
            "same_group_fraction": 0,
            "classes_per_batch": 32,
            "images_per_class": 4,
            "ema_decay": 0,
            "evaluations": 1,
            "precision": "float32",
        },
    )
    # The last step ends with the evaluation.
    return model, statistics.median(b - a for a, b in itertools.pairwise(clock.times[:-1]))


def by_loop(own: dict[str, Any], data: DecodedSet, steps: int) -> tuple[nn.Module, float]:
    """Train by the loop of the program; return the network and the mean CPU seconds of a step."""
    own["fit"](own["Net"](), data, 1)
    torch.manual_seed(0)
    encoder, start = own["Net"](), time.process_time()
    own["fit"](encoder, data, steps)
    return encoder.eval(), (time.process_time() - start) / steps


def difference(own: nn.Module, model: tw.Model, files: list[str]) -> float:
    """Return the largest difference of embeddings between a network, its model, and the model's network."""
    tw.register_encoder("Net")(type(own))
    network, images = model.to_torch(), torch.stack([model.preprocess(file) for file in files])
    with torch.no_grad():
        found: list[Tensor] = [own(images), torch.from_numpy(model.embed(files)), network.embed(images)]
    return max(float((a - b).abs().max()) for a, b in itertools.combinations(found, 2))


def verifies(folder: Path, files: list[str]) -> bool:
    """Run the program's model by the command `twinned verify`."""
    command = [sys.executable, "-m", "twinned", "verify", str(folder), *files[:2], "--json"]
    ran = subprocess.run(command, capture_output=True, text=True)
    return ran.returncode in (0, 1) and "distance" in json.loads(ran.stdout)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--times", type=int, default=3)
    given = options.parse_args()
    images, own = tw.load_images(given.data), parts()
    train, held_out = images.with_classes(images.classes[::2]), images.with_classes(images.classes[1::2])
    spec = tw.data.ImageSpec(height=35, width=35, channels=1)
    data = DecodedSet.from_images(train, spec, progress=False)
    shares, seconds = [], []
    for _ in range(given.times):
        network, plain = by_loop(own, data, given.steps)
        model, ours = by_train(own, train, held_out, given.steps)
        shares.append(ours / plain)
        seconds.append((plain, ours))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "own.twin"
        wrapped = tw.Model.from_network(network, held_out, spec=spec, output=output, progress=False)
        files = [str(file) for file in held_out.images[:100]]
        apart = difference(network, wrapped, files)
        works = verifies(output, files)
        loop, trained = (
            m.evaluate(held_out, protocol="classes", progress=False).verification for m in (wrapped, model)
        )
    lines = sum(bool(line.strip()) for line in PROGRAM.splitlines())
    plain, ours = (statistics.median(column) for column in zip(*seconds, strict=True))
    inside = loop.eer_ci[0] <= trained.eer <= loop.eer_ci[1]
    rows = [
        ("lines from own loop to a model that `twinned verify` uses", f"{lines}", f"{BAR_LINES}", works),
        ("round trip: largest difference of embeddings", f"{apart:.1e}", f"{BAR_DIFFERENCE:.0e}", True),
        (
            "equal error rate: own loop, `twinned.train`",
            f"{loop.eer:.4f} ({loop.eer_ci[0]:.4f} to {loop.eer_ci[1]:.4f}), {trained.eer:.4f}",
            "within the interval",
            inside,
        ),
        (
            "CPU time of a step: `twinned.train` / own loop",
            f"{statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f};"
            f" {1000 * ours:.0f} and {1000 * plain:.0f} ms)",
            f"{BAR_TIME} x",
            True,
        ),
    ]
    text = [
        f"Parts of one's own, {len(train.classes)} classes, {given.steps} steps of 128 images,"
        f" {torch.get_num_threads()} threads, {platform.machine()}",
        "",
        "| figure | found | bar |",
        "|---|---|---|",
        *(f"| {what} | {found}{'' if good else ' (NOT met)'} | {bar} |" for what, found, bar, good in rows),
    ]
    RESULT.write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
