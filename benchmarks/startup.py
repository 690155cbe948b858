"""Time to start: `twinned --help` and `twinned verify` as fractions of `import torch`.

    python benchmarks/startup.py

Every command runs in a new process, in turn, and the median of the processor time counts: it hardly depends
on other programs, and the fraction hardly on the machine. `verify` compares two PNG files with a model of
one minute's size (recipe glyph, 2 steps) and includes loading the model. `train --help` shows what Rich adds.

Writes benchmarks/results/startup.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import twinned as tw

RESULTS = Path(__file__).parent / "results" / "startup.md"
LIMITS = {"twinned --help": 0.15, "twinned verify": 0.35}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--repeat", type=int, default=9)
    repeat = options.parse_args().repeat
    program = "from twinned.cli.main import main; main()"
    with tempfile.TemporaryDirectory() as work:
        letters = tw.data.load_letters(["armenian"], size=32)
        tw.train(letters, Path(work, "model.twin"), recipe="glyph", steps=2, progress=False)
        for place in (0, 1):
            Image.fromarray(np.asarray(letters.images[place])).save(Path(work, f"{place}.png"))
        commands = {
            "import torch": ["import torch"],
            "twinned --help": [program, "--help"],
            "twinned train --help": [program, "train", "--help"],
            "twinned verify": [program, "verify", "model.twin", "0.png", "1.png"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(repeat):
            for name, command in commands.items():
                seconds[name].append(cpu_seconds(command, work))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    lines = ["| command | CPU seconds, median | of `import torch` | at most |", "|---|---|---|---|"]
    for name, value in medians.items():
        share = value / medians["import torch"]
        lines.append(f"| `{name}` | {value:.2f} | {share:.2f} | {LIMITS.get(name, '')} |")
    where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    text = "\n".join(["# Time to start", "", f"{where}; median of {repeat} new processes.", "", *lines, ""])
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


def cpu_seconds(command: list[str], folder: str) -> float:
    """Return the processor time, user and system, of a new process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", *command], cwd=folder, stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
