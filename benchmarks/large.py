"""Memory and start of `twinned.train` on many images.

    python benchmarks/large.py --images 20000 200000 --sizes 128 64

Draws JPEG files into a temporary folder, 20 images per class, and trains on them to the end of the first
step, in a process of its own. Time to the first step: from the call of `train`, with reading, checks and
decoding. Memory beside the map: the peak of the process's anonymous memory, above that of a run on 2,000
images, whose network needs as much; the decoded images are in a file that the system maps.
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
TRAIN = """
import json, sys, threading, time
import twinned as tw, twinned.training.api, twinned.training.trainer

def memory(name):
    text = open("/proc/self/status").read()
    return int(text.split(name + ":")[1].split()[0]) / 1000

class Stop(Exception):
    pass

class StopAtFirst(tw.Callback):
    def on_step(self, step):
        raise Stop

peak, done = [memory("RssAnon")], threading.Event()
def watch():
    while not done.wait(0.02):
        peak.append(max(peak.pop(), memory("RssAnon")))
threading.Thread(target=watch, daemon=True).start()
start = time.perf_counter()
try:
    tw.train(sys.argv[1], recipe="glyph", image_size=int(sys.argv[2]), steps=1, progress=False,
             settings={"channels": 3}, callbacks=[StopAtFirst()])
except Stop:
    pass
first = time.perf_counter() - start
done.set()
print(json.dumps({"first": first, "anonymous": peak[0], "peak": memory("VmHWM")}))
"""


def draw(folder: Path, images: int, size: int) -> None:
    """Write JPEG files of smooth noise, in class folders."""
    for kind in range(images // EACH):
        inside = folder / f"{kind:05}"
        inside.mkdir()
        rng = np.random.default_rng(kind)
        coarse = rng.integers(0, 256, (6, 6, 3))
        for number in range(EACH):
            moved = np.clip(coarse + rng.integers(-40, 41, coarse.shape), 0, 255).astype(np.uint8)
            Image.fromarray(moved).resize((size, size)).save(inside / f"{number}.jpg", quality=85)


def measure(images: int, size: int) -> dict[str, float]:
    """Return seconds, and peaks of memory in MB, of a run."""
    with tempfile.TemporaryDirectory(prefix="twinned-large-") as name:
        draw(Path(name), images, size)
        code = [sys.executable, "-c", TRAIN, name, str(size)]
        found: dict[str, float] = json.loads(
            subprocess.run(code, capture_output=True, text=True, check=True).stdout
        )
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
        "| images | pixels a side | decoded, MB | beside the map, MB | anonymous, MB |"
        " peak with the map, MB | first step after, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for images, size in zip(options.images, options.sizes, strict=True):
        few = measure(FEW, size)["anonymous"]
        found = measure(images, size)
        lines.append(
            f"| {images:,} | {size} | {images * size * size * 3 / 1e6:,.0f} |"
            f" {found['anonymous'] - few:,.0f} | {found['anonymous']:,.0f} | {found['peak']:,.0f} |"
            f" {found['first']:.0f} |"
        )
        print(lines[-1], flush=True)
    (RESULTS / "large.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
