"""Memory, start and speed of `twinned.train` on many images.

    python benchmarks/large.py --images 20000 200000 --sizes 128 64

Draws JPEG files into a temporary folder, 20 images per class, and trains a small encoder on them for some
steps, in a process of its own: once as `twinned.train` does, with images that are decoded while training
runs and batches that are read ahead, and once with all images decoded before the first step. Time to the
first step: from the call of `train`, with reading and checks. Steps a second: after the first. Memory beside
the map: the peak of the process's anonymous memory, above that of a run on 2,000 images, whose network needs
as much; the decoded images are in a file that the system maps. All files together need about 4 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results"
EACH = 20  # images per class
FEW = 2000  # images of the run that others are compared with
STEPS = 40
TRAIN = """
import json, os, sys, threading, time
import twinned as tw, twinned.data.decoded as decoded, twinned.training.inputs as inputs
from contextlib import nullcontext
from torch import nn

def memory(name):
    text = open("/proc/self/status").read()
    return int(text.split(name + ":")[1].split()[0]) / 1000

class Report(tw.Callback):
    def on_step(self, step):
        times.append(time.perf_counter())
        cpu.append(time.process_time())
        if len(times) == int(sys.argv[3]):
            rate = (len(times) - 1) / (times[-1] - times[0])
            found = {"first": times[0] - start, "cpu": cpu[0] - cpu_start, "rate": rate}
            found |= {"anonymous": peak[0], "peak": memory("VmHWM")}
            print(json.dumps(found), flush=True)
            os._exit(0)

if sys.argv[4] == "before":
    decoded.decode_lazily = decoded.decode
    inputs.PixelSource.read_ahead = lambda self, batches, rows: nullcontext(batches)
size, times, cpu = int(sys.argv[2]), [], []
encoder = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(16 * (size // 8) ** 2, 64))
peak = [memory("RssAnon")]
def watch():
    while True:
        time.sleep(0.02)
        peak.append(max(peak.pop(), memory("RssAnon")))
threading.Thread(target=watch, daemon=True).start()
start, cpu_start = time.perf_counter(), time.process_time()
tw.train(sys.argv[1], recipe="photo-small", encoder=encoder, image_size=size, steps=1_000_000,
         progress=False, callbacks=[Report()])
"""


def draw(folder: Path, images: int, size: int) -> None:
    """Write JPEG files of smooth noise, in class folders."""
    for kind in range(images // EACH):
        inside = folder / f"{kind:05}"
        inside.mkdir(parents=True)
        rng = np.random.default_rng(kind)
        coarse = rng.integers(0, 256, (6, 6, 3))
        for number in range(EACH):
            moved = np.clip(coarse + rng.integers(-40, 41, coarse.shape), 0, 255).astype(np.uint8)
            Image.fromarray(moved).resize((size, size)).save(inside / f"{number}.jpg", quality=85)


def measure(folder: Path, size: int, decoding: str) -> dict[str, float]:
    """Return seconds, steps a second, and peaks of memory in MB, of a run."""
    code = [sys.executable, "-c", TRAIN, str(folder), str(size), str(STEPS), decoding]
    found: dict[str, float] = json.loads(subprocess.run(code, stdout=subprocess.PIPE, check=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 64], help="pixels, one for each")
    options = parser.parse_args()
    lines = [
        f"# Training on many images ({platform.machine()}, {os.cpu_count()} cores)",
        "",
        "| images | pixels a side | decoded, MB | decoding | first step after, s | its CPU time, s |"
        " steps a second | beside the map, MB | anonymous, MB | peak with the map, MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for images, size in zip(options.images, options.sizes, strict=True):
        with tempfile.TemporaryDirectory(prefix="twinned-large-") as name:
            many, few = Path(name) / "many", Path(name) / "few"
            draw(many, images, size)
            draw(few, FEW, size)
            base = measure(few, size, "before")["anonymous"]
            for decoding in ("before", "during"):
                found = measure(many, size, decoding)
                lines.append(
                    f"| {images:,} | {size} | {images * size * size * 3 / 1e6:,.0f} | {decoding} training |"
                    f" {found['first']:.0f} | {found['cpu']:.0f} | {found['rate']:.2f} |"
                    f" {found['anonymous'] - base:,.0f} | {found['anonymous']:,.0f} | {found['peak']:,.0f} |"
                )
                print(lines[-1], flush=True)
    (RESULTS / "large.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
