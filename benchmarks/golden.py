"""Store the results of small, fixed runs, and compare them after a change that should not alter any number.

    python benchmarks/golden.py store FILE.json
    python benchmarks/golden.py compare FILE.json

Both run the same commands on images that this file draws: ``train`` with each recipe, on a pair list and with
cross-fitting, ``finetune``, ``wrap`` and ``calibrate``; then ``verify``, ``classify``, ``identify`` and
``evaluate`` with the models. ``store`` writes what they give: a SHA-256 of each weight, and every value of
the JSON output but the notes. ``compare`` prints each difference and exits with 1 if there are any.

Only the command line is used, with the sources of this checkout. The results are exact, so they hold for one
processor and one set of installed packages; keep the file out of the repository. ``--only glyph photo`` runs
some of the models; ``--keep DIR`` keeps the images and models.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

SOURCES = Path(__file__).resolve().parents[1] / "src"
STEPS, SEED = 12, "3"
CLASSES, IMAGES = 16, 8  # to train on: from 12 classes on, some are held out for the threshold
FEW = 8  # classes of the run that is cross-fitted instead
NOVEL_CLASSES, NOVEL_IMAGES = 6, 6  # to verify, classify, identify and evaluate
PROCESSES = 2  # at a time, each with one thread: the sums then have one order

IGNORED = {"notes"}  # sentences, which may be reworded
# The mean and deviation of the input: constants, which are not in every version's file.
CONSTANTS = {"mean", "std"}
PACKAGES = ("twinned", "torch", "onnxruntime", "numpy", "scipy", "scikit-learn", "pillow")

# Of one class, of another, and the image that is compared with them.
QUERIES = {
    "any": ("group0/class40/1.png", "group1/class41/1.png", "group0/class40/0.png"),
    "signature": ("w40_genuine_1.png", "w41_genuine_1.png", "w40_forgery_0.png"),
    "pairs": ("class40_1.png", "class41_1.png", "class40_0.png"),
}

Draw = Callable[[int, int], Image.Image]  # class, number of the image


# --- images ---------------------------------------------------------------------------------------


def stroke(kind: int, number: int, *, size: tuple[int, int], points: int, jitter: float) -> Image.Image:
    """Draw a class's polyline in black on white, its points moved a little for each image."""
    width, height = size
    corners = np.random.default_rng((1, kind)).uniform(0.12, 0.88, (points, 2))
    corners = corners + jitter * np.random.default_rng((2, kind, number)).standard_normal((points, 2))
    image = Image.new("L", size, 255)
    line = [(float(x) * width, float(y) * height) for x, y in corners]
    ImageDraw.Draw(image).line(line, fill=0, width=2 + number % 2)
    return image


def glyph(kind: int, number: int) -> Image.Image:
    """Draw a character."""
    return stroke(kind, number, size=(40, 40), points=5, jitter=0.03)


def signature(kind: int, number: int) -> Image.Image:
    """Draw a genuine signature."""
    return stroke(100 + kind, number, size=(96, 48), points=9, jitter=0.02)


def forgery(kind: int, number: int) -> Image.Image:
    """Draw a forgery: the same line in a less steady hand."""
    return stroke(100 + kind, 1000 + number, size=(96, 48), points=9, jitter=0.05)


def texture(kind: int, number: int, *, size: int, channels: int) -> Image.Image:
    """Draw a class's waves, shifted, with noise."""
    of_class, of_image = np.random.default_rng((3, kind)), np.random.default_rng((4, kind, number))
    y, x = np.mgrid[:size, :size] / size
    x, y = x + of_image.normal(0, 0.03), y + of_image.normal(0, 0.03)
    values = np.zeros((size, size, channels))
    for _ in range(5):
        u, v = of_class.integers(-4, 5, 2)
        values += np.cos(2 * np.pi * (u * x + v * y + of_class.random()))[..., None] * of_class.normal(
            0, 1, channels
        )
    values = 128 + 40 * values + of_image.normal(0, 12, values.shape)
    pixels = np.clip(values, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def face(kind: int, number: int) -> Image.Image:
    """Draw an image in place of a face: gray."""
    return texture(kind, number, size=48, channels=1)


def photo(kind: int, number: int) -> Image.Image:
    """Draw an image in place of a photograph: in color, with a tint and waves that vary within a class.

    These make the untouched encoder the worse one, so that the trained one is kept and its weights compared.
    """
    image = np.asarray(texture(100 + kind, number, size=64, channels=3), np.float64)
    other = np.asarray(texture(500 + number * 97 + kind, 0, size=64, channels=3), np.float64)
    tint = np.random.default_rng((5, kind, number)).uniform(0, 255, 3)
    return Image.fromarray((0.4 * image + 0.25 * other + 0.35 * tint).astype(np.uint8))


def draw_folders(folder: Path, draw: Draw, first: int, classes: int, images: range) -> None:
    """Write class folders, in two groups."""
    for kind in range(first, first + classes):
        inside = folder / f"group{kind % 2}" / f"class{kind:02}"
        inside.mkdir(parents=True)
        for number in images:
            draw(kind, number).save(inside / f"{number}.png")


def draw_signatures(folder: Path, first: int, writers: int, genuine: int, forged: int) -> None:
    """Write genuine and forged signatures, and the CSV that names them."""
    folder.mkdir()
    rows = []
    for kind in range(first, first + writers):
        for role, draw, count in (("genuine", signature, genuine), ("forgery", forgery, forged)):
            for number in range(count):
                name = f"w{kind:02}_{role}_{number}.png"
                draw(kind, number).save(folder / name)
                rows.append((name, f"w{kind:02}", role))
    write_csv(folder / "images.csv", ("path", "label", "role"), rows)


def write_pairs(folder: Path, classes: range, images: int) -> None:
    """Write a pair list over the glyphs, in parts of two classes that share no image with other parts."""
    folder.mkdir()

    def name(kind: int, number: int) -> str:
        return f"class{kind:02}_{number}.png"

    rows: list[tuple[str, str, int]] = []
    for kind in classes:
        other = kind ^ 1
        for number in range(images):
            glyph(kind, number).save(folder / name(kind, number))
            following = (number + 1) % images
            rows.append((name(kind, number), name(kind, following), 1))
            rows.append((name(kind, number), name(other, following), 0))
    write_csv(folder / "pairs.csv", ("left", "right", "same"), rows)


def write_csv(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    """Write a CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def draw_all(work: Path) -> None:
    """Write all images: to train on in ``data``; other classes in ``novel``, ``support`` and ``enrolled``."""
    for name, draw in (("glyph", glyph), ("face", face), ("photo", photo)):
        draw_folders(work / "data" / name, draw, 0, CLASSES, range(IMAGES))
        draw_folders(work / "novel" / name, draw, 40, NOVEL_CLASSES, range(NOVEL_IMAGES))
        draw_folders(work / "support" / name, draw, 40, NOVEL_CLASSES - 1, range(1))
        draw_folders(work / "enrolled" / name, draw, 40, NOVEL_CLASSES - 1, range(3))
    draw_folders(work / "data" / "few", glyph, 0, FEW, range(IMAGES))
    draw_folders(work / "data" / "other", glyph, 20, CLASSES, range(IMAGES))
    draw_signatures(work / "data" / "signature", 0, CLASSES, 5, 3)
    draw_signatures(work / "novel" / "signature", 40, NOVEL_CLASSES, 4, 2)
    draw_folders(work / "support" / "signature", signature, 40, NOVEL_CLASSES - 1, range(1))
    draw_folders(work / "enrolled" / "signature", signature, 40, NOVEL_CLASSES - 1, range(3))
    write_pairs(work / "data" / "pairs", range(CLASSES), 6)
    write_pairs(work / "novel" / "pairs", range(40, 40 + NOVEL_CLASSES), 6)


# --- commands -------------------------------------------------------------------------------------


class Cli:
    """The command line, run in one folder.

    Args:
        work: The folder; paths in commands and in results are relative to it.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        home = work / "home"
        home.mkdir()
        path = os.pathsep.join(filter(None, (str(SOURCES), os.environ.get("PYTHONPATH"))))
        alone = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.environment = (
            os.environ
            | alone
            | {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "HOME": str(home), "CUDA_VISIBLE_DEVICES": ""}
        )

    def __call__(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
        """Run a command and return its JSON value.

        Raises:
            SystemExit: If its exit code is none of ``codes``.
        """
        command = [sys.executable, "-m", "twinned", *arguments, "--json", "--quiet"]
        run = subprocess.run(
            command, cwd=self.work, env=self.environment, capture_output=True, text=True, check=False
        )
        if run.returncode not in codes:
            sys.exit(f"{' '.join(command[1:])}\nexit code {run.returncode}\n{run.stdout}{run.stderr}")
        return json.loads(run.stdout)

    def calibrate(self, model: str, data: str, new: str) -> Any:
        """Calibrate a copy of a model; the one place that knows where ``calibrate`` writes."""
        shutil.copytree(self.work / model, self.work / new)
        return self("calibrate", new, data, "--in-place", "--far", "0.05", "--seed", SEED)


class Made(NamedTuple):
    """A model to make.

    Args:
        kind: The images that it is used on: a folder in ``novel``.
        make: Makes it and returns the command's JSON value.
    """

    kind: str
    make: Callable[[Cli, str], Any]


def trained(recipe: str, data: str, *options: str, steps: int = STEPS) -> Callable[[Cli, str], Any]:
    """Return what trains a model with a recipe."""

    def make(cli: Cli, output: str) -> Any:
        return cli(
            *("train", f"data/{data}", "-o", output, "--recipe", recipe, "--steps", str(steps)),
            *("--seed", SEED, *FLOAT32, *options),
        )

    return make


def settings(**values: Any) -> list[str]:
    """Return ``--set`` options."""
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


# By default the faster precision is measured, and a clock gives no exact results.
FLOAT32 = settings(precision="float32")
# Batches and images are small, so that all of it takes little more than a minute.
SMALL = settings(classes_per_batch=8, images_per_class=3)
LEAST = settings(classes_per_batch=2, images_per_class=2, evaluations=1)
MODELS = {
    "glyph": Made("glyph", trained("glyph", "glyph", *SMALL)),
    "photo": Made("photo", trained("photo", "photo", "--image-size", "64x64", *LEAST, *settings(views=1))),
    "koch2015": Made("glyph", trained("koch2015", "glyph", *LEAST, steps=6)),
    "folds": Made("glyph", trained("glyph", "few", *SMALL, "--far", "0.1")),
    "face": Made("face", trained("face", "face", "--image-size", "48x48", *SMALL)),
    "signature": Made("signature", trained("signature", "signature", "--image-size", "32x64", *SMALL)),
    "photo-small": Made("photo", trained("photo-small", "photo", "--image-size", "48x48", *SMALL)),
    "pairs": Made("pairs", trained("auto", "pairs/pairs.csv", "--image-size", "32x32", "--batch-size", "32")),
    "finetune": Made(
        "glyph",
        lambda cli, output: cli(
            *("finetune", "models/glyph", "data/other", "-o", output, "--steps", str(STEPS), "--seed", SEED),
            *("--freeze", "2", *FLOAT32, *SMALL),
        ),
    ),
    "wrap": Made(
        "glyph",
        lambda cli, output: cli(
            "wrap", "models/glyph/encoder.onnx", "data/other", "-o", output, "--seed", SEED
        ),
    ),
    "calibrate": Made("glyph", lambda cli, output: cli.calibrate("models/glyph", "data/other", output)),
}
FROM_GLYPH = ("finetune", "wrap", "calibrate")  # these start from the model ``glyph``


def results(cli: Cli, name: str) -> dict[str, Any]:
    """Make a model, use it on classes that it has not seen, and return all results."""
    kind, make = MODELS[name]
    model, gallery, novel = f"models/{name}", f"galleries/{name}", f"novel/{kind}"
    found: dict[str, Any] = {"made": make(cli, model)}
    found["weights"] = weights(cli.work / model)
    same, other, asked = (f"{novel}/{end}" for end in QUERIES.get(kind, QUERIES["any"]))
    if kind != "pairs" and name not in FROM_GLYPH:
        queries = (same, other, asked)
        found["classify"] = cli("classify", model, f"support/{kind}", *queries)
        cli("gallery", "add", model, gallery, f"enrolled/{kind}")
        found["identify"] = cli("identify", model, gallery, *queries, "--fpir", "0.2")
    found["verify"] = cli("verify", model, asked, same, codes=(0, 1))
    data = f"{novel}/pairs.csv" if kind == "pairs" else novel
    found["evaluate"] = cli("evaluate", model, data, "--ways", "5", "--episodes", "50", "--seed", SEED)
    return found


def weights(folder: Path) -> dict[str, str]:
    """Return a SHA-256 of each weight of a model: of its type, its shape and its bytes."""
    path = folder / "weights.safetensors"
    if not path.exists():  # the encoder was wrapped
        return {}
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    found = {}
    for name, entry in sorted(json.loads(content[8:start]).items()):
        if name == "__metadata__" or name.rpartition(".")[2] in CONSTANTS:
            continue
        first, last = (start + offset for offset in entry["data_offsets"])
        head = f"{entry['dtype']} {entry['shape']} ".encode()
        found[name] = hashlib.sha256(head + content[first:last]).hexdigest()
    return found


def without(value: Any, names: set[str]) -> Any:
    """Return a JSON value without some keys."""
    if isinstance(value, dict):
        return {k: without(v, names) for k, v in value.items() if k not in names}
    return [without(v, names) for v in value] if isinstance(value, list) else value


def run_all(work: Path, only: list[str]) -> dict[str, Any]:
    """Run everything in a folder and return the results."""
    draw_all(work)
    cli = Cli(work)
    first = [name for name in MODELS if name in only and name not in FROM_GLYPH]
    after = [name for name in FROM_GLYPH if name in only]
    if after and "glyph" not in first:
        first.insert(0, "glyph")
    running: dict[str, Future[dict[str, Any]]] = {}

    def one(name: str) -> dict[str, Any]:
        if name in FROM_GLYPH:
            running["glyph"].result()  # began before this one
        began = time.perf_counter()
        found = results(cli, name)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        kept: dict[str, Any] = without(found, IGNORED)
        return kept

    with ThreadPoolExecutor(PROCESSES) as pool:
        for name in first + after:
            running[name] = pool.submit(one, name)
        try:
            return {name: running[name].result() for name in running if name in only}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# --- comparing ------------------------------------------------------------------------------------


def here() -> dict[str, str]:
    """Return what exact results depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {"python": platform.python_version(), "processor": processor(), **versions}


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Describe each place in which two JSON values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        if where.endswith("/weights"):
            yield from _weights_differ(before, after, where)
            return
        for key in [*before, *(k for k in after if k not in before)]:
            inside = f"{where}/{key}" if where else key
            if key not in after:
                yield f"{inside}: is missing; was {before[key]!r}"
            elif key not in before:
                yield f"{inside}: is new: {after[key]!r}"
            else:
                yield from differences(before[key], after[key], inside)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{where}/{number}")
    elif before != after or type(before) is not type(after):
        yield f"{where}: was {before!r}, is {after!r}"


def _weights_differ(before: dict[str, str], after: dict[str, str], where: str) -> Iterator[str]:
    """Describe in one line which weights differ: if one does, most do."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if names:
        yield f"{where}: {len(names)} of {len({**before, **after})} differ, the first {names[0]}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("action", choices=("store", "compare"))
    options.add_argument("file", type=Path, metavar="FILE.json")
    options.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="MODEL")
    options.add_argument("--keep", type=Path, metavar="DIR", help="a new folder for images and models")
    given = options.parse_args()

    before = json.loads(given.file.read_text("utf-8")) if given.action == "compare" else None
    with ExitStack() as stack:
        if given.keep is None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="golden-")))
        else:
            given.keep.mkdir(parents=True)
            work = given.keep.resolve()
        found = run_all(work, given.only)
    if before is None:
        text = json.dumps({"made with": here(), "results": found}, indent=1)
        given.file.write_text(text + "\n", encoding="utf-8")
        print(f"{given.file}: {len(found)} models")
        return
    stored = {name: before["results"][name] for name in found if name in before["results"]}
    lines = list(differences(stored, json.loads(json.dumps(found))))
    for line in lines:
        print(line)
    for line in differences(before["made with"], here()):
        print(f"made with another {line}", file=sys.stderr)
    print(f"{len(lines)} differences in {len(found)} models")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
