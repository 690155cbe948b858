"""What the training loop costs beside the network itself, what compiling would gain, how its memory grows.

    python benchmarks/training.py --data images_background [--device cuda]

Throughput: images a second of `twinned.train`'s loop (data, augmentation, averaged weights and the ten
evaluations on held-out classes, over as many steps as two minutes have) against a bare loop over the same
network, loss and optimiser on one batch of tensors that is in memory, run turn and turn about. Compiled: a
step with the network through torch.compile, against one without. Memory: the peak of a process that trains
on n, 4 n and 16 n of the images.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import twinned as tw
from twinned import losses
from twinned.data.decoded import DecodedSet
from twinned.data.splits import hold_out
from twinned.training.callbacks import Callback
from twinned.training.config import TrainConfig
from twinned.training.objective import make_batches, make_objective
from twinned.training.optimizers import create_optimizer
from twinned.training.process import keep_freed_memory
from twinned.training.recipes import get
from twinned.training.state import Step
from twinned.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
SMALLEST, MEMORY_STEPS = 1000, 60  # images; steps of the processes whose memory is measured


def whole_loop(
    config: TrainConfig, learn: DecodedSet, held_out: DecodedSet | None, steps: int, device: torch.device
) -> float:
    """Seconds a step of the loop as users run it, over all steps but the first."""
    ends: list[float] = []

    class Clock(Callback):
        def on_step(self, step: Step) -> None:
            ends.append(time.perf_counter())

    trainer = Trainer(config, config.spec(), device=device, callbacks=[Clock()], progress=False)
    trainer.fit(learn, held_out, steps=steps)
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def bare_loop(config: TrainConfig, material: DecodedSet, steps: int, device: torch.device) -> float:
    """Seconds a step of forward, backward and the optimiser on one batch that is in memory."""
    trainer = Trainer(config, config.spec(), device=device, progress=False)
    network = trainer.build().to(memory_format=torch.channels_last).train()
    batches = make_batches(material, config, [])
    objective, extra = make_objective(network, config, batches)
    optimizer = create_optimizer(network, extra, config)
    batch = batches(0)
    images = trainer.source(material).batch(batch, 0)
    began = 0.0
    for step in range(steps):
        if step == 1:
            began = now(device)
        loss, _ = objective(network, images, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return (now(device) - began) / (steps - 1)


def now(device: torch.device) -> float:
    """The time, once a GPU has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def compiled(config: TrainConfig, material: DecodedSet, steps: int, device: torch.device) -> list[str]:
    """A table: what torch.compile takes, and the speed of a step after it, as a multiple of that before."""
    trainer = Trainer(config, config.spec(), device=device, progress=False)
    network = trainer.build().to(memory_format=torch.channels_last).train()
    batch = make_batches(material, config, [])(0)
    images, labels = trainer.source(material).batch(batch, 0), torch.from_numpy(batch.labels).to(device)
    loss = losses.get(**config.loss.model_dump())

    def seconds(embed: Callable[[Tensor], Tensor]) -> float:
        began = now(device)
        with torch.autocast(device.type, torch.bfloat16):
            value = loss(embed(images), labels)
        value.backward()
        network.zero_grad(set_to_none=True)
        return now(device) - began

    faster = torch.compile(network.embed)
    to_compile = seconds(faster)
    ratio = [seconds(network.embed) / seconds(faster) for _ in range(steps)]
    return [
        "| recipe | seconds to compile | speed of a step once compiled, eager = 1 | range |",
        "|---|---|---|---|",
        f"| {config.recipe} | {to_compile:.0f} | {statistics.median(ratio):.2f} |"
        f" {min(ratio):.2f} to {max(ratio):.2f} |",
    ]


def throughput(data: tw.data.ImageSet, steps: int, times: int, device: torch.device) -> list[str]:
    """Tables: images a second of both loops, and what compiling comes to, for one recipe."""
    config = get("glyph").merge({"steps": steps, "precision": "float32"})
    learn, held_out = hold_out(
        DecodedSet.from_images(data, config.spec(), progress=False),
        fraction=config.calibration.validation_fraction,
        seed=config.seed,
    )
    size = len(make_batches(learn, config, [])(0).index)
    wholes, bares = [], [bare_loop(config, learn, steps // 4, device)]
    for _ in range(times):
        wholes.append(whole_loop(config, learn, held_out, steps, device))
        bares.append(bare_loop(config, learn, steps // 4, device))
    whole, bare = statistics.median(wholes), statistics.median(bares)
    # Each whole loop against the bare ones just before and after it: the machine is not always as fast.
    share = [(b + c) / 2 / w for w, (b, c) in zip(wholes, itertools.pairwise(bares), strict=True)]
    return [
        "| recipe | images a step | bare loop, images/s | whole loop, images/s | share | range |",
        "|---|---|---|---|---|---|",
        f"| {config.recipe} | {size} | {size / bare:,.0f} | {size / whole:,.0f} |"
        f" {100 * statistics.median(share):.1f} % | {100 * min(share):.1f} to {100 * max(share):.1f} % |",
        "",
        *compiled(config, learn, 20, device),
    ]


def peak(data: Path, images: int, steps: int) -> dict[str, float]:
    """Peak memory in MB of a process that trains on so many images, and what it took to import."""
    code = (
        "import json, sys, numpy as np, twinned as tw, twinned.training.trainer\n"
        # Not ru_maxrss, which begins with the peak of the process that started this one.
        "most = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024\n"
        "before = most(); data = tw.load_images(sys.argv[1])\n"
        "some = np.linspace(0, len(data.images) - 1, int(sys.argv[2])).astype(int)\n"
        "tw.train(data.subset(some), recipe='glyph', steps=int(sys.argv[3]), progress=False)\n"
        "print(json.dumps({'import': before, 'peak': most()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(data), str(images), str(steps)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def memory(data: Path, steps: int) -> list[str]:
    """A table: peak memory at 1, 4 and 16 times the images."""
    lines = [
        "| images | pairs among them | pixels, MB | imports, MB | peak, MB | more than for the fewest, MB |",
        "|---|---|---|---|---|---|",
    ]
    spec = get("glyph").spec()
    first = None
    for images in (SMALLEST, 4 * SMALLEST, 16 * SMALLEST):
        found = peak(data, images, steps)
        first = first or found["peak"]
        pixels = images * int(np.prod(spec.shape)) / 1e6
        lines.append(
            f"| {images:,} | {images * (images - 1) // 2:,} | {pixels:.1f} | {found['import']:,.0f} |"
            f" {found['peak']:,.0f} |"
            f" {found['peak'] - first:,.0f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of the loop")
    parser.add_argument("--parts", nargs="+", default=["loop", "memory"], choices=["loop", "memory"])
    options = parser.parse_args()
    keep_freed_memory()  # as `twinned.train` does
    machine = f"({platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__})"
    if "loop" in options.parts:
        device = torch.device(options.device)
        lines = throughput(tw.load_images(options.data), options.steps, options.times, device)
        if options.device == "cuda":
            where = f"({torch.cuda.get_device_name()}, torch {torch.__version__})"
            keep("training_cuda.md", f"The training loop {where}", lines)
        else:
            keep("training.md", f"The training loop {machine}", lines)
    if "memory" in options.parts:
        keep("training_memory.md", f"Memory of training {machine}", memory(options.data, MEMORY_STEPS))


def keep(name: str, title: str, lines: list[str]) -> None:
    text = "\n".join([title, "", *lines]) + "\n"
    (RESULTS / name).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
