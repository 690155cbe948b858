"""Open-set identification: do strangers get a name as seldom as was asked for?

    python benchmarks/openset.py orl      --train lfw_crop96 --data orl_faces --minutes 2
    python benchmarks/openset.py omniglot --train images_background --data images_evaluation --minutes 2

A model is trained on other people (other alphabets); its threshold for a gallery comes from classes held out
there. Then half of the classes of DATA are enrolled with four images each (ORL: 20 people, and 20 strangers),
everything else is held up to them, at thresholds for three target rates. Twenty choices of who is enrolled,
intervals by resampling people. The second half of the table is the same after `twinned calibrate` on the
enrolled images, each time: no stranger, and no image that is held up, has a part in the threshold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import twinned as tw
from twinned.data.datasets import ImageSet
from twinned.evaluation.identification import nearest_label
from twinned.inference.recalibrate import recalibrate
from twinned.metrics import OpenSet, open_set

RESULTS = Path(__file__).parent / "results" / "openset.json"
TARGETS = (0.01, 0.05, 0.1)
CHOICES = 20
ENROLLED = 4  # images a label
Row = dict[str, object]


def chosen(data: ImageSet, choice: int) -> tuple[np.ndarray, np.ndarray]:
    """For each image: whether its class is in the gallery, and whether the image itself is."""
    names, random = np.asarray(data.labels), np.random.default_rng(choice)
    order = random.permutation(len(names))
    inside = np.isin(names, random.permutation(data.classes)[: len(data.classes) // 2])
    known = np.zeros(len(names), bool)
    for name in np.unique(names[inside]):
        known[order[names[order] == name][:ENROLLED]] = True
    return inside, known


def rates(folder: Path, data: ImageSet, *, calibrated: bool) -> Iterator[Row]:
    """Rates over several choices of who is enrolled, at thresholds for each target."""
    model, names = tw.load(folder), np.asarray(data.labels)
    vectors = model.embed(data.images)
    found: dict[float, list[OpenSet]] = {target: [] for target in TARGETS}
    for choice in range(CHOICES):
        inside, known = chosen(data, choice)
        if calibrated:
            new = data.subset(np.flatnonzero(known))
            recalibrate(folder, new, in_place=True, seed=choice, progress=False)
            model = tw.load(folder)
        label, apart = nearest_label(
            vectors[~known], vectors[known], names[known], model.distances, prototype=model.prototype
        )
        size = len(np.unique(names[known]))
        for target in TARGETS:
            threshold = model.identification_threshold(size, target, images_per_label=ENROLLED)
            found[target].append(
                open_set(
                    apart,
                    threshold,
                    label=names[~known],
                    enrolled=inside[~known],
                    correct=label == names[~known],
                    seed=choice,
                )
            )
    for target, several in found.items():
        fpir = np.array([f.fpir for f in several])
        intervals = np.array([f.fpir_ci for f in several])
        holds = (intervals[:, 0] <= target) & (target <= intervals[:, 1])
        yield {
            "threshold from": "the enrolled images" if calibrated else "training data",
            "enrolled": size,
            "target": target,
            "fpir": float(fpir.mean()),
            "fpir_5_95": np.quantile(fpir, (0.05, 0.95)).tolist(),
            "interval_of_one": intervals.mean(axis=0).tolist(),
            "target_inside": float(holds.mean()),
            "fnir": float(np.mean([f.fnir for f in several])),
        }


def table(rows: list[Row]) -> str:
    """All rows as Markdown."""
    lines = [
        "| data | threshold from | enrolled | target FPIR | FPIR, mean | 5 to 95 % of choices"
        " | interval of one choice | target inside it | FNIR |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        spread, one = (" to ".join(f"{100 * x:.1f}" for x in r[k]) for k in ("fpir_5_95", "interval_of_one"))
        lines.append(
            f"| {r['data']}, seed {r['seed']} | {r['threshold from']} | {r['enrolled']} |"
            f" {100 * r['target']:g} % | {100 * r['fpir']:.1f} % | {spread} % | {one} % |"
            f" {100 * r['target_inside']:.0f} % | {100 * r['fnir']:.1f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["orl", "omniglot"])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    rows: list[Row] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    data = tw.load_images(options.data)
    for seed in options.seeds:
        rows = [r for r in rows if (r["data"], r["seed"]) != (options.task, seed)]
        with tempfile.TemporaryDirectory() as name:
            work = Path(name) / "m.twin"
            tw.train(
                tw.load_images(options.train),
                output=work,
                recipe={"orl": "face", "omniglot": "glyph"}[options.task],
                minutes=options.minutes,
                seed=seed,
                progress=False,
            )
            for calibrated in (False, True):
                for row in rates(work, data, calibrated=calibrated):
                    rows.append({"data": options.task, "seed": seed, "minutes": options.minutes} | row)
                    print(json.dumps(rows[-1]), flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(
        f"Open-set identification, {ENROLLED} images a label, {CHOICES} choices of who is enrolled"
        f" ({platform.machine()}, {os.cpu_count()} cores)\n\n{table(rows)}\n"
    )


if __name__ == "__main__":
    main()
