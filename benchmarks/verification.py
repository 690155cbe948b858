"""Verification of people and of signatures that training never saw: ORL faces, CEDAR signatures, LFW.

    python benchmarks/verification.py orl --data orl_faces --steps 600 \
        --set optimizer=adamw learning_rate=0.003
    python benchmarks/verification.py orl --data orl_faces --steps 1 --seeds 0 1 2 \
        --encoder efficientnet_lite0_face
    python benchmarks/verification.py orl --data orl_faces --steps 600 --recipe chopra2005
    python benchmarks/verification.py orl --data orl_faces --steps 200 --recipe facenet
    python benchmarks/verification.py cedar --data cedar_signatures --steps 400 --splits 5 --set held_out=0.2
    python benchmarks/verification.py cedar --data cedar_signatures --steps 1 --splits 5 --set views=0 \
        --encoder efficientnet_lite0_signature
    python benchmarks/verification.py lfw --data FOLDER --minutes 5 --seeds 0

Over a pretrained encoder, frozen, a layer is solved, which takes no steps. Outside data, then: ImageNet.
ORL: eight disjoint choices of 5 test people, trained on the other 35 (Chopra 2005 has one such split); 4 of
these choose the threshold where there is no outside data.
CEDAR: test writers in fives, skilled forgeries, ink made binary; beside the error stands how well ONE image
alone tells genuine from forged (AUC of three probes), the shortcut that flatters such figures.
LFW: View 2, ten folds, trained on people outside the fold, threshold from training people held out.
FOLDER holds the images and the official lists. A row for each training goes to
benchmarks/results/verification.csv; verification.md is made from all rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import twinned as tw
from twinned.data.benchmarks import read_lfw
from twinned.data.datasets import ImageSet
from twinned.data.decoded import decode
from twinned.data.preprocessing import ImageSpec
from twinned.metrics.roc import eer, roc
from twinned.nn.encoders import input_shape
from twinned.training.recipes import get

RESULTS = Path(__file__).parent / "results" / "verification.csv"
Budget = dict[str, float | None]
PROBES = RESULTS.with_name("probes.json")
FIELDS = [
    "task",
    "split",
    "seed",
    "minutes",
    "steps",
    "eer",
    "fr_at_fa_5",
    "fr_at_fa_7_5",
    "fr_at_fa_10",
    "accuracy",
]
FIELDS += ["far", "frr", "eer_random", "date", "eer_5_references", "eer_10_references", "encoder"]
REFERENCES = ("2", "5", "10")  # of a class, each with the threshold that training stored for so many
FIELDS += ["eer_2_references", "recipe"]
FIELDS += [f"{rate}_{count}_references" for count in REFERENCES for rate in ("far", "frr")]


def splits_of(classes: list[str], size: int) -> Iterator[list[str]]:
    """Disjoint choices of so many classes, the same ones each time."""
    order = np.random.default_rng(0).permutation(sorted(classes))
    for start in range(0, len(order) - size + 1, size):
        yield sorted(order[start : start + size].tolist())


def one(
    data: ImageSet, test: list[str], recipe: str, budget: Budget, seed: int, changes: dict[str, object]
) -> dict[str, float]:
    """Train on the other classes, measure on these."""
    others = [c for c in data.classes if c not in test]
    model = tw.train(
        data.with_classes(others),
        recipe=recipe,
        **budget,
        seed=seed,
        settings=changes,
        progress=False,
    )
    found = model.evaluate(data.with_classes(test), ways=2, progress=False)
    v = found.verification
    random = v.parts.get("random")
    pairs = found.comparisons.hardest()
    curve = roc(pairs.distance, pairs.same)
    rejects = {
        f"fr_at_fa_{name}": 1 - curve.tar_at_far(fa)
        for name, fa in (("5", 0.05), ("7_5", 0.075), ("10", 0.1))
    }
    row = {"eer": v.eer, "far": v.far, "frr": v.frr, "eer_random": random.eer if random else None, **rejects}
    several = found.details.get("references", {})
    for count in REFERENCES:
        if (of_set := several.get(count)) is not None:
            row |= {f"{name}_{count}_references": of_set[name] for name in ("eer", "far", "frr")}
    return row


def cedar(folder: Path) -> ImageSet:
    """CEDAR's files as a CSV with roles, read as anybody's data."""
    rows = ["path,label,role"]
    for role, inside, stem in (("genuine", "full_org", "original"), ("forgery", "full_forg", "forgeries")):
        files = sorted((folder / inside).glob(f"{stem}_*.png"))
        rows += [f"{path.resolve()},writer{path.stem.split('_')[1]},{role}" for path in files]
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "cedar.csv"
        file.write_text("\n".join(rows) + "\n")
        return tw.load_images(file)


class Convnet(ClassifierMixin, BaseEstimator):
    """A small convolutional network as scikit-learn has its classifiers; images come as flat rows."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def fit(self, x: np.ndarray, y: np.ndarray) -> Convnet:
        torch.manual_seed(0)
        self.classes_ = np.unique(y)
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 16), (16, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Linear(128, 1))
        images, answers = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
        optimizer = torch.optim.AdamW(self.net.parameters(), 2e-3, weight_decay=0.05)
        for _ in range(12):
            for part in torch.randperm(len(images)).split(64):
                logit = self.net(images[part].view(-1, 1, self.height, self.width))[:, 0]
                loss = nn.functional.binary_cross_entropy_with_logits(logit, answers[part])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(x).argmax(axis=1)]

    @torch.no_grad()
    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        score = torch.sigmoid(
            self.net.eval()(torch.tensor(x, dtype=torch.float32).view(-1, 1, self.height, self.width))
        )
        return torch.cat([1 - score, score], dim=1).numpy()


def one_image_probes(data: ImageSet, spec: ImageSpec) -> dict[str, float]:
    """How well ONE image alone, as the model sees it, tells genuine from forged, on unseen writers: AUC."""
    pixels = decode(data.images, spec, progress=False).pixels[..., 0].astype(np.float32) / 255
    ink = pixels < 0.5
    rows, columns = ink.sum(axis=2), ink.sum(axis=1)
    down = np.abs(np.diff(pixels, axis=1)).sum(axis=(1, 2))
    across = np.abs(np.diff(pixels, axis=2)).sum(axis=(1, 2))
    area = ink.sum(axis=(1, 2)) + 1
    figures = [area, down, across, down / area, across / area, rows.std(axis=1), columns.std(axis=1)]
    statistics = np.stack(figures, axis=1)
    small = pixels[:, : spec.height // 4 * 4, : spec.width // 4 * 4]
    small = (
        small.reshape(len(pixels), spec.height // 4, 4, spec.width // 4, 4)
        .mean(axis=(2, 4))
        .reshape(len(pixels), -1)
    )
    probes = {
        "ink statistics": (statistics, make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))),
        "forest on the thumbnail": (small, RandomForestClassifier(300, random_state=0, n_jobs=2)),
        "small convnet": (small, Convnet(spec.height // 4, spec.width // 4)),
    }
    folds = GroupKFold(5)
    return {
        name: float(
            roc_auc_score(
                data.forgery,
                cross_val_predict(
                    probe, x, data.forgery, groups=data.labels, cv=folds, method="predict_proba"
                )[:, 1],
            )
        )
        for name, (x, probe) in probes.items()
    }


def lfw(
    folder: Path, recipe: str, budget: Budget, seed: int, changes: dict[str, object], folds: int
) -> Iterator[dict[str, object]]:
    """View 2: a model a fold."""
    official = read_lfw(folder)
    pairs = official.pairs
    people_file = next(iter(folder.rglob("people.txt")), None)
    if people_file is None:
        raise SystemExit(f"no people.txt under {folder}: the folder must hold LFW's official lists")
    lines = people_file.read_text(encoding="utf-8").splitlines()
    people: list[list[str]] = []
    cursor = 1
    for _ in range(int(lines[0])):
        count = int(lines[cursor])
        people.append([line.split("\t")[0] for line in lines[cursor + 1 : cursor + 1 + count]])
        cursor += 1 + count
    data = tw.load_images(Path(pairs.images[0]).parent.parent)
    for number, tested in enumerate(people[:folds]):
        others = [c for c in data.classes if c not in set(tested)]
        model = tw.train(
            data.with_classes(others),
            recipe=recipe,
            **budget,
            seed=seed,
            settings=changes,
            progress=False,
        )
        fold = pairs.subset(official.fold == number)
        vectors = model.embed(fold.images)
        distance = model.paired_distances(vectors[fold.left], vectors[fold.right])
        far, frr = roc(distance, fold.same).at(model.threshold)
        yield {
            "split": number,
            "eer": eer(distance, fold.same),
            "accuracy": float(((distance <= model.threshold) == fold.same).mean()),
            "far": far,
            "frr": frr,
        }


def table() -> str:
    """A markdown table of all rows: the mean over trainings, and their range, for each task and budget."""
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    lines = [
        "| task | recipe | encoder | minutes | steps | trainings | seeds | EER | range"
        " | FR at FA 5 / 7.5 / 10 % | accuracy | EER, 2 / 5 / 10 references"
        " | FAR and FRR at the stored thresholds, 1 / 2 / 5 / 10 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    by = ("task", "recipe", "encoder", "minutes", "steps")
    for key in sorted({tuple(row[name] for name in by) for row in rows}):
        mine = [row for row in rows if tuple(row[name] for name in by) == key]

        def mean(name: str, mine: list[dict[str, str]] = mine) -> str:
            splits = sorted({row["split"] for row in mine if row[name]})
            if not splits:
                return ""
            # Seeds of one choice of test classes are much alike, or the same: the choices are what differs.
            values = [np.mean([float(r[name]) for r in mine if r["split"] == s and r[name]]) for s in splits]
            error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
            return f"{100 * np.mean(values):.1f} % +- {100 * error:.1f}"

        found = [float(row["eer"]) for row in mine]
        rejects = " / ".join(filter(None, (mean(f"fr_at_fa_{at}") for at in ("5", "7_5", "10"))))
        ends = ("", *(f"_{count}_references" for count in REFERENCES))
        pairs = [(mean(f"far{end}"), mean(f"frr{end}")) for end in ends]
        stored = " / ".join(f"{far} and {frr}" for far, frr in pairs if far and frr)
        lines.append(
            f"| {' | '.join(key)} | {len(mine)} | {len({row['seed'] for row in mine})} | {mean('eer')}"
            f" | {100 * min(found):.1f} to {100 * max(found):.1f} % | {rejects} | {mean('accuracy')}"
            f" | {' / '.join(filter(None, (mean(f'eer_{n}_references') for n in REFERENCES)))} | {stored} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["orl", "cedar", "lfw"])
    parser.add_argument("--data", type=Path, required=True)
    budgets = parser.add_mutually_exclusive_group(required=True)
    budgets.add_argument("--minutes", type=float, help="of each training")
    budgets.add_argument(
        "--steps", type=int, help="of each training, so that it does not depend on the machine"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--splits", type=int, default=10, help="at most so many choices of test classes")
    parser.add_argument("--recipe", help="instead of face, or of signature for CEDAR")
    parser.add_argument("--encoder", help="instead of the recipe's")
    parser.add_argument("--set", nargs="*", default=[], help="settings to try, name=value")
    options = parser.parse_args()
    recipe = options.recipe or ("signature" if options.task == "cedar" else "face")
    encoder = options.encoder or get(recipe).encoder
    changes: dict[str, object] = {"encoder": encoder} | dict(pair.split("=", 1) for pair in options.set)
    budget: Budget = {"minutes": options.minutes, "steps": options.steps}
    RESULTS.parent.mkdir(exist_ok=True)
    fresh = not RESULTS.exists()
    rows = []
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if fresh:
            writer.writeheader()

        def keep(row: dict[str, object], seed: int) -> None:
            full = {
                "task": options.task,
                "seed": seed,
                "encoder": encoder,
                "recipe": " ".join([recipe, *options.set]),
                **budget,
                "date": time.strftime("%Y-%m-%d"),
            }
            full |= {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow(full)
            file.flush()
            rows.append(full)
            print(json.dumps(full), flush=True)

        for seed in options.seeds:
            if options.task == "lfw":
                for row in lfw(options.data, recipe, budget, seed, changes, options.splits):
                    keep(row, seed)
                continue
            few = {"held_out": 0.1}  # 4 people, 5 writers: the more are left to learn from
            data = tw.load_images(options.data) if options.task == "orl" else cedar(options.data)
            for number, test in enumerate(splits_of(data.classes, 5)):
                if number == options.splits:
                    break
                keep({"split": number} | one(data, test, recipe, budget, seed, few | changes), seed)
    summary = {
        name: f"{np.mean(values):.4f} (from {min(values):.4f} to {max(values):.4f}, {len(values)} trainings)"
        for name in FIELDS[5:-1]
        if (values := [row[name] for row in rows if isinstance(row.get(name), float)])
    }
    if options.task == "cedar":
        height, width, _ = input_shape(encoder) or get(recipe).spec().shape
        spec = ImageSpec(height=height, width=width, channels=1, ink=get(recipe).ink)
        summary["one-image probes, AUC"] = one_image_probes(data, spec)
        PROBES.write_text(json.dumps(summary["one-image probes, AUC"], indent=1) + "\n")
    print(json.dumps(summary, indent=1))
    probes = PROBES.read_text() if PROBES.exists() else "not taken yet"
    RESULTS.with_suffix(".md").write_text(
        "People and writers that training never saw; +- is a standard error over choices of them."
        f"\n\n{table()}\n\n"
        "CEDAR: how well ONE image alone, as the model sees it, tells genuine from forged (AUC):"
        f"\n\n```json\n{probes.strip()}\n```\n"
    )


if __name__ == "__main__":
    main()
