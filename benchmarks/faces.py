"""The ready-made model ``face``: LFW and ORL, detection on canvases, and speed beside dlib.

    python benchmarks/faces.py fit --lfw lfw_crop96
    python benchmarks/faces.py accuracy --lfw lfw_crop96 --orl orl_faces
    python benchmarks/faces.py finetune --orl orl_faces
    python benchmarks/faces.py detection --lfw lfw_crop96 --background small_objects
    python benchmarks/faces.py speed --lfw lfw_crop96 --background small_objects --dlib PYTHON
    python benchmarks/faces.py quality --lfw lfw_crop96
    python benchmarks/faces.py training --lfw lfw_crop96 --orl orl_faces --seed 0

`fit` chooses the thresholds of the model on people of LFW who are in no pair of View 2, and stores them in
the package; the other commands measure the stored model.
`accuracy`: View 2 in ten folds, each at the threshold of the other nine, and at the stored threshold; all
people of ORL.
`finetune`: fine-tuned on 20 people of ORL, equal error rate on the other 20; three choices of the people.
`detection`: faces of LFW on canvases of other photographs, 1 to 5 in a picture, 40 to 200 px, turned by up to
20 degrees.
`speed`: single images of 640x480, from faces of 80 px and of 40 px up. PYTHON has dlib and NumPy, and runs
dlib's detector and encoder on the same images, turn and turn about; both embed a face and its mirror image.
On a shared machine, the processor time counts, which is given beside the time.
`quality`: photographs of LFW outside View 2, blurred, shrunken and darkened in steps: how many are accepted
with another photograph of the person, and the limit of each measure beyond which most are rejected.
`training`: recipe face on aligned and on whole images, the same steps: LFW, tested on the people of View 2's
first fold; ORL, tested on ten people that the seed chooses. A call adds the rows of its data and seed.

Each command replaces its part of benchmarks/results/faces.json; faces.md is made from all parts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

import twinned as tw
from twinned.data.benchmarks import read_lfw
from twinned.data.decoded import decode
from twinned.data.faces import models
from twinned.data.faces.photographs import search
from twinned.data.faces.quality import measure
from twinned.data.images import open_image
from twinned.data.readers import find_images
from twinned.evaluation.fitting import calibrate
from twinned.evaluation.identification import choose_enrollment
from twinned.inference import faces as ready_made
from twinned.inference.embedder import GraphEmbedder
from twinned.inference.session import Graph
from twinned.utils.groups import rank_within_group
from twinned.utils.notes import collect

RESULTS = Path(__file__).parent / "results" / "faces.json"
FIGURES = Path(ready_made.__file__).with_name("face_figures.json")
FAR = 0.01  # of the stored threshold
SIZE = (640, 480)
FACE_OF_CROP = 0.664  # side of the box of a face relative to LFW's crop, on average
REPEATS = 3
DLIBS = "dlib's "
# Steps of `quality`: sigma in % of the face, pixels of the face, mean gray level.
SPOILED = {
    "blur": (0, 1, 2, 3, 4, 5, 6, 8),
    "size": (40, 32, 24, 20, 16, 12),
    "brightness": (30, 15, 8, 4, 2),
}
FEW, STEPS = 3, 150  # images of a person, and steps of `training`
Part = dict[str, Any]


def fit(options: argparse.Namespace) -> Part:
    """Store the thresholds, from people of LFW outside View 2."""
    tested = set(read_lfw(options.lfw).people.tolist())
    images = tw.load_images(options.lfw)
    people = [name for name in images.classes if name.rpartition("/")[2] not in tested]
    images = images.with_classes(people)
    with tempfile.TemporaryDirectory() as name:
        models.write_encoder(Path(name, "encoder.onnx"))
        graph = Graph(Path(name, "encoder.onnx"), device="cpu")
        embedder = GraphEmbedder(graph, ready_made.SPEC, ready_made.DISTANCE)
        decoded = decode(images.images, ready_made.SPEC)
        vectors = embedder.embed_pixels(decoded.pixels)
    images = images.subset(decoded.kept)
    with collect() as notes:
        report = calibrate(vectors, images, embedder, far=FAR, seed=options.seed)
    enrollment = choose_enrollment(vectors, images.labels, embedder.distances, seed=options.seed)
    calibration = report.calibration
    if enrollment.identification is not None:
        calibration = calibration.model_copy(update={"identification": enrollment.identification})
    stored = {
        "command": "python benchmarks/faces.py fit --lfw lfw_crop96",
        "calibration": calibration.model_dump(mode="json"),
        "prototype": enrollment.prototype,
        "held_out": {"images": len(images), "classes": [], "identified": enrollment.named, **report.figures},
        "notes": [list(warning) for warning in notes],
    }
    FIGURES.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    several = np.unique(images.labels, return_counts=True)[1] > 1
    return {
        "people": len(people),
        "people_with_several": int(several.sum()),
        "images": len(images),
        "unreadable": len(decoded.unreadable),
        "genuine": calibration.n_genuine,
        "impostor": calibration.n_impostor,
        "threshold": calibration.threshold,
        "threshold_ci": calibration.threshold_ci,
        "eer": calibration.eer,
        "eer_ci": calibration.eer_ci,
    }


def accuracy(options: argparse.Namespace) -> Part:
    """Measure the stored model on View 2 and on ORL."""
    model = tw.load("face")
    lfw = model.evaluate(options.lfw, protocol="lfw", seed=options.seed)
    orl = model.evaluate(options.orl, protocol="classes", seed=options.seed)
    found = lfw.details["lfw"]
    return {
        "accuracy": found["accuracy"],
        "standard_error": found["standard_error"],
        "lfw": {key: getattr(lfw.verification, key) for key in ("far", "far_ci", "frr", "frr_ci", "eer")},
        "orl": {key: getattr(orl.verification, key) for key in ("eer", "eer_ci", "far", "frr")},
    }


def finetune(options: argparse.Namespace) -> Part:
    """Fine-tune on half of ORL's people, and compare with the stored model on the other half."""
    model, images = tw.load("face"), tw.load_images(options.orl)
    runs = []
    for seed in range(options.seed, options.seed + REPEATS):
        known, novel = images.split_classes(0.5, seed=seed)
        tuned = tw.finetune(model, known, seed=seed, progress=False)
        before, after = (one.evaluate(novel, progress=False).verification.eer for one in (model, tuned))
        kept = "baseline-kept" in tuned.manifest.note_codes
        runs.append({"seed": seed, "before": before, "after": after, "kept": kept})
    return {"runs": runs}


class Canvas(NamedTuple):
    """Picture with faces.

    Args:
        image: RGB image.
        boxes: Left, top, right, bottom of each face.
    """

    image: Image.Image
    boxes: list[tuple[float, ...]]


def canvases(options: argparse.Namespace, *, sizes: tuple[float, float] = (40, 200)) -> Iterator[Canvas]:
    """Draw pictures: tiles of other photographs, and round cut-outs of faces that do not overlap."""
    rng = np.random.default_rng(options.seed)
    faces, tiles = find_images(options.lfw), find_images(options.background)
    for _ in range(options.pictures):
        canvas, tile = Image.new("RGB", SIZE), int(rng.integers(80, 330))
        for top in range(0, SIZE[1], tile):
            for left in range(0, SIZE[0], tile):
                with Image.open(tiles[rng.integers(len(tiles))]) as one:
                    canvas.paste(one.convert("RGB").resize((tile, tile)), (left, top))
        boxes: list[tuple[float, ...]] = []
        taken: list[tuple[int, int, int]] = []  # left, top, side
        for _ in range(rng.integers(1, 6)):
            size = float(np.exp(rng.uniform(*np.log(sizes))))
            side, angle = round(size / FACE_OF_CROP), float(rng.uniform(-20, 20))
            file = faces[rng.integers(len(faces))]
            for _ in range(30):
                left, top = (int(rng.integers(0, max(1, length - side))) for length in SIZE)
                apart = (abs(left - x) >= max(side, s) or abs(top - y) >= max(side, s) for x, y, s in taken)
                if side <= min(SIZE) and all(apart):
                    taken.append((left, top, side))
                    boxes.append(_paste(canvas, file, left, top, side, size, angle))
                    break
        yield Canvas(canvas, boxes)


def _paste(
    canvas: Image.Image, file: str, left: int, top: int, side: int, size: float, angle: float
) -> tuple[float, ...]:
    """Paste a turned round cut-out, and return the box of its face."""
    with Image.open(file) as one:
        crop = one.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    mask = Image.new("L", (4 * side, 4 * side))
    ImageDraw.Draw(mask).ellipse((0, 0, 4 * side - 1, 4 * side - 1), fill=255)
    turned = crop.rotate(angle, Image.Resampling.BILINEAR)
    canvas.paste(turned, (left, top), mask.resize((side, side), Image.Resampling.BOX))
    below, turn = 0.018 * side, np.deg2rad(angle)  # the middle of a face is a little below that of the crop
    x, y = left + side / 2 + below * np.sin(turn), top + side / 2 + below * np.cos(turn)
    return x - size / 2, y - size / 2, x + size / 2, y + size / 2


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union of two boxes."""
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def detection(options: argparse.Namespace) -> Part:
    """Count the faces on canvases that are found, and those found where there is none."""
    hits, sizes, false = [], [], 0
    for canvas in canvases(options):
        found = [face.box for face in tw.faces.detect(canvas.image, min_face=40)]
        pairs = [[iou(box, other) for other in found] for box in canvas.boxes]
        hits += [max(row, default=0.0) >= 0.5 for row in pairs]
        sizes += [box[2] - box[0] for box in canvas.boxes]
        false += sum(max((row[i] for row in pairs), default=0.0) < 0.5 for i in range(len(found)))
    large = np.array(sizes) >= 80
    low, high = wilson(sum(hits), len(hits))
    return {
        "pictures": options.pictures,
        "faces": len(hits),
        "recall": float(np.mean(hits)),
        "recall_ci": [low, high],
        "recall_of_80_px_and_more": float(np.mean(np.array(hits)[large])),
        "false_faces_a_picture": false / options.pictures,
    }


def wilson(found: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, found / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    return float(middle - half), float(middle + half)


# Runs in another Python: one line of JSON for each path of an array on standard input.
DLIB = """
import json, sys, time, dlib, numpy as np
detect = dlib.cnn_face_detection_model_v1(sys.argv[1])
encode = dlib.face_recognition_model_v1(sys.argv[2])
def timed(work):
    start = time.perf_counter(), time.process_time()
    found = work()
    return found, [time.perf_counter() - start[0], time.process_time() - start[1]]
for line in sys.stdin:
    image = np.load(line.strip())
    boxes, first = timed(lambda: detect(image, 0))
    views = image[:150, :150].copy(), image[:150, 149::-1].copy()
    _, second = timed(lambda: [encode.compute_face_descriptor(view) for view in views])
    boxes = [[b.rect.left(), b.rect.top(), b.rect.right() + 1, b.rect.bottom() + 1] for b in boxes]
    print(json.dumps({"boxes": boxes, "detection": first, "embedding": second}), flush=True)
"""


def speed(options: argparse.Namespace) -> Part:
    """Time detection, embedding and both for one image at a time; compare boxes with dlib's."""
    model = tw.load("face")
    folder = models._models_folder()
    assert folder is not None, "the extra faces is missing"
    files = [str(folder / source.file) for source in (models.DETECTOR, models.ENCODER)]
    times: dict[str, list[tuple[float, float]]] = {}
    overlaps: list[float] = []
    command = [str(options.dlib), "-c", DLIB, *files]
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer,
    ):
        assert peer.stdin is not None
        assert peer.stdout is not None
        for canvas in canvases(options, sizes=(80, 200)):
            pixels = np.asarray(canvas.image)
            np.save(Path(name, "image.npy"), pixels)
            print(Path(name, "image.npy"), file=peer.stdin, flush=True)
            theirs = json.loads(peer.stdout.readline())
            chip = pixels[None, :150, :150].copy()
            work: dict[str, Callable[[], Any]] = {
                "detection": partial(tw.faces.detect, pixels, min_face=80),
                "detection from 40 px": partial(tw.faces.detect, pixels, min_face=40),
                "embedding": partial(model.encoder, chip),
                "all": partial(model.embed, pixels),
                "all from 40 px": partial(model.with_faces(min_face=40).embed, pixels),
            }
            for what, call in work.items():
                times.setdefault(what, []).append(min(_timed(call) for _ in range(REPEATS)))
            for what in ("detection", "embedding"):
                times.setdefault(DLIBS + what, []).append(tuple(theirs[what]))
            ours = [face.box for face in work["detection"]()]
            overlaps += [max((iou(box, other) for other in ours), default=0.0) for box in theirs["boxes"]]
        peer.stdin.close()
    return {
        "pictures": options.pictures,
        "milliseconds": {what: _summary(rows) for what, rows in times.items()},
        "faces_of_dlib": len(overlaps),
        "iou_of_0.8": float(np.mean(np.array(overlaps) >= 0.8)),
        "iou": float(np.mean(overlaps)),
        "load": os.getloadavg()[0],
    }


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def _summary(rows: list[tuple[float, float]]) -> dict[str, float]:
    elapsed, used = 1000 * np.array(rows).T
    return {
        "time": float(np.median(elapsed)),
        "time_least": float(elapsed.min()),
        "processor_time": float(np.median(used)),
    }


def limit(values: NDArray[np.float64], accepted: NDArray[np.bool_]) -> float:
    """Return the value above which more are rejected than accepted, however it is continued."""
    each, place = np.unique(values, return_inverse=True)
    return float(each[np.bincount(place, np.where(accepted, 1, -1)).cumsum().argmax()])


def _spoiled(image: Image.Image, kind: str, degree: float) -> Image.Image:
    """Blur (sigma as percentage of the face), shrink (pixels of the face) or darken (gray level) a crop."""
    face = FACE_OF_CROP * max(image.size)
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(degree / 100 * face))
    if kind == "size":
        return image.resize([round(side * degree / face) for side in image.size], Image.Resampling.BILINEAR)
    factor = degree / float(np.asarray(image.convert("L")).mean())
    return image.point(lambda value: round(value * factor))


def quality(options: argparse.Namespace) -> Part:
    """Accept or reject spoiled photographs, each against a sharp one of the person."""
    paired = set(read_lfw(options.lfw).pairs.images)
    images = tw.load_images(options.lfw)
    images = images.subset(~np.isin(images.images, list(paired)))
    of = {name: np.flatnonzero(images.labels == name)[:2] for name in images.usable_classes()}
    sharp, other = np.array(list(of.values())[: options.pictures]).T
    model = tw.load("face")
    references = model.embed([images.images[place] for place in sharp])
    crops = [open_image(images.images[place]) for place in other]
    rows, limits = [], {}
    for kind, degrees in SPOILED.items():
        measured, accepted = [], []
        for degree in degrees:
            chips, sizes = [], []
            for owner, crop in enumerate(crops):
                spoiled = _spoiled(crop, kind, degree)
                face = search(spoiled, min_face=max(10, 0.8 * degree) if kind == "size" else None)[:1]
                if face and face[0].score > 0:
                    chips.append((owner, tw.faces.align(spoiled, face[0])))
                    sizes.append(getattr(measure(spoiled, face[0]), kind))
            owners = np.array([owner for owner, _ in chips])
            distance = model.distances(references, model.embed_pixels(np.stack([chip for _, chip in chips])))
            own = distance[owners, np.arange(len(owners))] <= model.threshold
            wrong = ((distance <= model.threshold).sum() - own.sum()) / (distance.size - own.size)
            row = {"found": len(own) / len(crops), "accepted": own.mean(), "false_accepts": wrong}
            row |= {"measured": np.median(sizes)}
            rows.append({"kind": kind, "degree": degree} | {name: float(row[name]) for name in row})
            measured += sizes
            accepted += own.tolist()
        sign = 1 if kind == "blur" else -1
        limits[kind] = sign * limit(sign * np.array(measured, np.float64), np.array(accepted))
    return {"pairs": len(crops), "rows": rows, "limits": limits}


def training(options: argparse.Namespace) -> Part:
    """Train on aligned and on whole images, and measure on people that training did not see."""
    seed = options.seed
    runs = read_parts().get("training", {"runs": []})["runs"]
    if options.lfw:
        official, images = read_lfw(options.lfw), tw.load_images(options.lfw)
        ends = [*official.pairs.left[official.fold == 0], *official.pairs.right[official.fold == 0]]
        people = np.array([name.rpartition("/")[2] for name in images.labels])
        few, tested = rank_within_group(people) < FEW, np.isin(people, official.people[ends])
        runs = _trained(runs, "LFW", images.subset(few & ~tested), images.subset(few & tested), seed)
    if options.orl:
        runs = _trained(runs, "ORL", *tw.load_images(options.orl).split_classes(0.75, seed=seed), seed)
    return {"runs": runs}


def _trained(runs: list[Part], name: str, known: tw.ImageSet, novel: tw.ImageSet, seed: int) -> list[Part]:
    """Return the runs with new ones of a data set and seed."""
    known = known.with_classes(known.usable_classes())
    row: Part = {"data": name, "seed": seed, "images": len(known), "steps": STEPS}
    for column, settings in (("aligned", {}), ("whole", {"faces": "none"})):
        model = tw.train(known, recipe="face", steps=STEPS, seed=seed, settings=settings)
        row[column] = model.evaluate(novel).verification.eer
    others = [run for run in runs if (run["data"], run["seed"]) != (name, seed)]
    return sorted([*others, row], key=lambda run: (run["data"], run["seed"]))


def report(parts: dict[str, Part]) -> str:
    """Return the results as Markdown."""
    lines = ["The ready-made model `face`; rates are fractions of 1.", ""]
    lines += ["| what | value | 95 % interval | bar | aim | seed |", "|---|---|---|---|---|---|"]

    def row(what: str, value: str, interval: Any, bar: str, aim: str, seed: int) -> None:
        shown = " to ".join(f"{end:.4f}" for end in interval) if interval else ""
        lines.append(f"| {what} | {value} | {shown} | {bar} | {aim} | {seed} |")

    if (part := parts.get("accuracy")) is not None:
        lfw, orl, seed = part["lfw"], part["orl"], part["seed"]
        value = f"{part['accuracy']:.4f} +- {part['standard_error']:.4f}"
        row("LFW View 2, accuracy, ten folds", value, None, "0.985", "0.992", seed)
        row("LFW View 2, FAR at the stored threshold (0.01 asked for)", f"{lfw['far']:.4f}", lfw["far_ci"],
            "0.004 to 0.02", "0.01 inside", seed)  # fmt: skip
        row("LFW View 2, FRR there", f"{lfw['frr']:.4f}", lfw["frr_ci"], "", "", seed)
        row("ORL, 40 people, equal error rate", f"{orl['eer']:.4f}", orl["eer_ci"], "0.01", "0.003", seed)
    for run in parts.get("finetune", {}).get("runs", []):
        value = f"{run['after']:.4f}{' (kept)' if run['kept'] else ''}, before {run['before']:.4f}"
        row("ORL, fine-tuned on 20 people, EER of the other 20", value, None, "not worse", "0.001",
            run["seed"])  # fmt: skip
    if (part := parts.get("detection")) is not None:
        seed = part["seed"]
        row("faces found, 40 to 200 px, turned by up to 20 degrees", f"{part['recall']:.4f}",
            part["recall_ci"], "0.97", "0.99", seed)  # fmt: skip
        false = f"{part['false_faces_a_picture']:.3f}"
        row(f"false faces a picture ({part['pictures']} pictures)", false, None, "0.05", "0.01", seed)
    if (part := parts.get("speed")) is not None:
        row(f"faces with an IoU of 0.8 with dlib's box, of {part['faces_of_dlib']}",
            f"{part['iou_of_0.8']:.3f}", None, "0.98", "", part["seed"])  # fmt: skip
        times, load = part["milliseconds"], part["load"]
        lines += ["", f"One image of 640x480 at a time; {part['processor']}, load {load:.1f}.", ""]
        lines += ["| milliseconds | median | least | processor time |", "|---|---|---|---|"]
        lines += [
            f"| {what} | {t['time']:.1f} | {t['time_least']:.1f} | {t['processor_time']:.1f} |"
            for what, t in times.items()
        ]
        ratios = [
            f"{what} {times[DLIBS + what][key] / times[what][key]:.0f} x ({words})"
            for what in ("detection", "embedding")
            for key, words in (("time", "time"), ("processor_time", "processor time"))
        ]
        lines += [
            "",
            f"Against dlib: {', '.join(ratios)}. `all` is detection, alignment and embedding of the"
            " largest face.",
        ]
    if (part := parts.get("fit")) is not None:
        lines += [
            "",
            f"The threshold {part['threshold']:.4f} (95 % interval"
            f" {' to '.join(f'{v:.4f}' for v in part['threshold_ci'])}) is chosen at a false accept rate of"
            f" {FAR} on {part['people']:,} people of LFW outside View 2: {part['genuine']:,} genuine and"
            f" {part['impostor']:,} impostor comparisons.",
        ]
    lines += _quality_lines(parts["quality"]) if "quality" in parts else []
    lines += _training_lines(parts["training"]) if "training" in parts else []
    return "\n".join([*lines, ""])


def _quality_lines(part: Part) -> Iterator[str]:
    yield ""
    yield f"{part['pairs']} photographs of LFW outside View 2, spoiled, each against a sharp one of the"
    yield "person, at the stored threshold: blur is the sigma of a Gaussian in % of the face, size the pixels"
    yield from ("of the face, brightness its mean gray level.", "")
    yield "| spoiled | found | accepted, of those found | false accepts | measured, median |"
    yield "|---|---|---|---|---|"
    for row in part["rows"]:
        rates = f"{row['found']:.2f} | {row['accepted']:.2f} | {row['false_accepts']:.3f}"
        yield f"| {row['kind']} {row['degree']:g} | {rates} | {row['measured']:.3g} |"
    limits = ", ".join(f"{kind} {value:.3g}" for kind, value in part["limits"].items())
    yield from ("", f"Beyond these limits, most are rejected: {limits}.")


def _training_lines(part: Part) -> Iterator[str]:
    yield from (
        "",
        "Recipe `face` on aligned faces and on whole images; equal error rate of other people.",
        "",
    )
    yield from ("| data | images | steps | seed | aligned | whole |", "|---|---|---|---|---|---|")
    for run in part["runs"]:
        how = f"{run['data']} | {run['images']:,} | {run['steps']} | {run['seed']}"
        yield f"| {how} | {run['aligned']:.3f} | {run['whole']:.3f} |"


COMMANDS: dict[str, Callable[[argparse.Namespace], Part]] = {
    "fit": fit,
    "accuracy": accuracy,
    "finetune": finetune,
    "detection": detection,
    "speed": speed,
    "quality": quality,
    "training": training,
}


def read_parts() -> dict[str, Part]:
    """Return the stored results of all commands."""
    found: dict[str, Part] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def processor() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=list(COMMANDS))
    parser.add_argument("--lfw", type=Path)
    parser.add_argument("--orl", type=Path)
    parser.add_argument("--background", type=Path)
    parser.add_argument("--dlib", type=Path, help="Python with dlib and NumPy")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = COMMANDS[options.command](options) | {"seed": options.seed, "processor": processor()}
    print(json.dumps(found, indent=1), flush=True)
    parts = read_parts()
    parts[options.command] = found
    RESULTS.write_text(json.dumps(parts, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(report(parts))


if __name__ == "__main__":
    main()
