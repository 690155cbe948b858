"""Measuring a model by a protocol: classes, pairs, LFW's folds, Omniglot's runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .data import ImageSet, PairSet, decode, load
from .errors import DataError, SettingError
from .fewshot import OneShot, one_shot_accuracy, possible_ways, runs_accuracy
from .images import ImageSource, ImageSpec, pixels_sha256
from .retrieval import Retrieval, evaluate_retrieval
from .runtime import Floats
from .verification import (
    Calibration,
    Comparisons,
    VerificationResult,
    compare_all,
    compare_pairs,
    evaluate_verification,
    lfw_folds,
)

PROTOCOLS = ("classes", "pairs", "lfw", "omniglot-runs")


class Measured(Protocol):
    """What is measured: a `twinned.model.Model`."""

    @property
    def spec(self) -> ImageSpec: ...
    @property
    def manifest(self) -> Any: ...
    def embed_pixels(self, pixels: Any) -> Floats: ...
    def distances(self, left: Floats, right: Floats) -> Floats: ...
    def paired_distances(self, left: Floats, right: Floats) -> Floats: ...
    def relations(self, left: Floats, right: Floats) -> list[dict[str, float]]: ...
    def training_hashes(self) -> frozenset[str]: ...


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `Model.evaluate` found. A section that the protocol cannot give is None.

    Args:
        verification: Same or different, at the stored threshold and beyond.
        one_shot: N-way K-shot, forced choice.
        retrieval: Recall at k and MAP at R.
        protocol: How it was measured.
        notes: What a reader must know: images seen in training, images left out, fewer ways than asked for.
        details: Figures that only this protocol has.
        data: Names, labels and embeddings behind the figures, for pictures and reports.
        comparisons: Behind the verification figures.
    """

    verification: VerificationResult | None
    one_shot: OneShot | None
    retrieval: Retrieval | None
    protocol: str
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    data: EmbeddedSet | None = None
    comparisons: Comparisons | None = None

    def to_json(self) -> dict[str, Any]:
        """The figures under their JSON keys."""
        return {
            "protocol": self.protocol,
            "verification": self.verification and self.verification.to_json(),
            "one_shot": self.one_shot and self.one_shot.to_json(),
            "retrieval": self.retrieval and self.retrieval.to_json(),
            **self.details,
            "notes": self.notes,
        }

    def text(self) -> str:
        """The figures in a few lines."""
        lines = []
        if (v := self.verification) is not None:
            lines.append(f"verification  {v.n_genuine:,} genuine and {v.n_impostor:,} impostor comparisons")
            for name, value, ci in (
                ("equal error rate", v.eer, v.eer_ci),
                ("area under ROC", v.auc, v.auc_ci),
                ("FAR at the stored threshold", v.far, v.far_ci),
                ("FRR at the stored threshold", v.frr, v.frr_ci),
            ):
                lines.append(f"  {name:<28} {_figure(value, ci)}")
            for far, row in v.tar_at_far.items():
                mark = "" if row.supported else "  (not supported: too few comparisons)"
                lines.append(f"  {f'TAR at FAR {far:g}':<28} {_figure(row.tar, row.ci)}{mark}")
        if (o := self.one_shot) is not None:
            lines.append(
                f"{o.ways}-way {o.shots}-shot  {_figure(o.accuracy, o.ci)}  ({o.episodes:,} episodes)"
            )
        if (r := self.retrieval) is not None:
            figures = {
                k: v for k, v in r.to_json().items() if k in ("recall_at_1", "recall_at_5", "map_at_r")
            }
            lines.append("retrieval  " + "  ".join(f"{k} {_figure(v, None)}" for k, v in figures.items()))
        if "relations" in self.details:
            relations = self.details["relations"]
            lines.append(f"relations  accuracy {relations['accuracy']:.4f}  ({relations['pairs']:,} pairs)")
        if "lfw" in self.details:
            lfw = self.details["lfw"]
            lines.append(f"LFW, ten folds: {lfw['accuracy']:.4f} +- {lfw['standard_error']:.4f}")
        if "untouched" in self.details:
            before = self.details["untouched"]
            said = {"eer": "equal error rate", "one_shot": "one-shot", "recall_at_1": "recall_at_1"}
            lines.append(
                "before training  " + "  ".join(f"{said[k]} {_figure(v, None)}" for k, v in before.items())
            )
        return "\n".join(lines)


def _figure(value: float | None, ci: Sequence[float] | None) -> str:
    if value is None:
        return "none"
    return f"{value:.4f}" + ("" if ci is None else f"  [{ci[0]:.4f}, {ci[1]:.4f}]")


@dataclass(frozen=True, eq=False)
class EmbeddedSet:
    """Images of an evaluation with their embeddings.

    Args:
        images: The readable images.
        labels: Their classes, shape ``(n,)``.
        embeddings: Shape ``(n, d)``.
        seen: True where training saw the very same picture, shape ``(n,)``.
        unreadable: One sentence for each image left out.
    """

    images: Sequence[ImageSource]
    labels: np.ndarray[Any, Any]
    embeddings: Floats
    seen: np.ndarray[Any, Any]
    unreadable: list[str]
    kept: np.ndarray[Any, Any]

    def notes(self) -> list[str]:
        """What must be said of these images."""
        found = []
        if self.seen.any():
            found.append(
                f"{int(self.seen.sum())} of {len(self.seen)} images were seen in training: these figures"
                " flatter the model; evaluate on others"
            )
        if self.unreadable:
            more = f" and {len(self.unreadable) - 3} more" if len(self.unreadable) > 3 else ""
            found.append(
                f"{len(self.unreadable)} unreadable images left out: {'; '.join(self.unreadable[:3])}{more}"
            )
        return found


def evaluate(
    model: Measured,
    data: ImageSet | PairSet | str | os.PathLike[str],
    *,
    protocol: str = "auto",
    ways: int = 20,
    shots: int = 1,
    episodes: int = 1000,
    far: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Measure a model; see `twinned.model.Model.evaluate`.

    Raises:
        SettingError: If the protocol is not known.
        DataError: If the data do not fit it.
    """
    if protocol not in ("auto", *PROTOCOLS):
        raise SettingError(f"protocol {protocol!r} is not known; choose one of {', '.join(PROTOCOLS)}")
    if ways < 2 or shots < 1 or episodes < 1:
        raise SettingError(
            f"at least 2 ways, 1 shot and 1 episode are needed;"
            f" got {ways} ways, {shots} shots, {episodes} episodes"
        )
    if protocol in ("lfw", "omniglot-runs"):
        if not isinstance(data, (str, os.PathLike)):
            raise DataError(f"protocol {protocol} reads a folder; got {type(data).__name__}")
        if not Path(data).is_dir():
            raise DataError(f"{data}: no such folder; protocol {protocol} reads the official one")
        run = _lfw if protocol == "lfw" else _omniglot_runs
        return run(model, Path(data), far=far, seed=seed, progress=progress)
    loaded = load(data) if isinstance(data, (str, os.PathLike)) else data
    if isinstance(loaded, PairSet):
        if protocol == "classes":
            raise DataError(f"{loaded.origin}: is a pair list; protocol classes needs labelled images")
        return _pairs(model, loaded, far=far, seed=seed, progress=progress)
    if protocol == "pairs":
        raise DataError(f"{loaded.origin}: protocol pairs needs a CSV with the columns left,right,same")
    return _classes(
        model, loaded, ways=ways, shots=shots, episodes=episodes, far=far, seed=seed, progress=progress
    )


def _embed(model: Measured, images: Sequence[ImageSource], labels: Any, progress: bool) -> EmbeddedSet:
    decoded = decode(images, model.spec, progress=progress)
    if len(decoded.kept) == 0:
        raise DataError(f"none of {len(images)} images could be read; the first: {decoded.unreadable[0]}")
    trained = model.training_hashes()
    seen = np.array([pixels_sha256(p) in trained for p in decoded.pixels]) if trained else None
    return EmbeddedSet(
        images=[images[i] for i in decoded.kept],
        labels=np.asarray(labels)[decoded.kept],
        embeddings=model.embed_pixels(decoded.pixels),
        seen=np.zeros(len(decoded.kept), np.bool_) if seen is None else seen,
        unreadable=[str(error) for error in decoded.unreadable],
        kept=decoded.kept,
    )


def _classes(
    model: Measured,
    data: ImageSet,
    *,
    ways: int,
    shots: int,
    episodes: int,
    far: float | None,
    seed: int,
    progress: bool,
) -> Evaluation:
    found = _embed(model, data.images, data.labels, progress)
    forgery = data.forgery[found.kept]
    notes = [*data.notes, *found.notes()]
    _, counts = np.unique(found.labels[~forgery], return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        raise DataError(
            f"{data.origin}: figures need two classes, and two images of one of them;"
            f" got {len(counts)} classes of at most {counts.max(initial=0)} images"
        )
    comparisons = compare_all(
        found.embeddings,
        found.labels,
        model.distances,
        forgery=forgery if forgery.any() else None,
        seed=seed,
    )
    calibration: Calibration = model.manifest.calibration
    verification = evaluate_verification(comparisons, calibration, extra_far=far, seed=seed)
    genuine = found.embeddings[~forgery]
    labels = found.labels[~forgery]
    most = possible_ways(labels, shots=shots)
    one_shot = None
    if most < 2:
        notes.append(f"no {shots}-shot figure: it needs 2 classes with {shots + 1} images")
    else:
        if most < ways:
            notes.append(f"{ways}-way asked for, {most} classes have {shots + 1} images: {most}-way")
        one_shot = one_shot_accuracy(
            genuine, labels, model.distances, ways=min(ways, most), shots=shots, episodes=episodes, seed=seed
        )
    retrieval = evaluate_retrieval(genuine, labels, model.distances)
    return Evaluation(
        verification, one_shot, retrieval, "classes", notes, data=found, comparisons=comparisons
    )


def _pairs(model: Measured, data: PairSet, *, far: float | None, seed: int, progress: bool) -> Evaluation:
    components = data.components()
    found = _embed(model, data.images, components, progress)
    place = np.full(len(data.images), -1)
    place[found.kept] = np.arange(len(found.kept))
    left, right = place[data.left], place[data.right]
    whole = (left >= 0) & (right >= 0)
    if not whole.any():
        raise DataError(f"{data.origin}: no pair has two readable images")
    left, right = left[whole], right[whole]
    distance = model.paired_distances(found.embeddings[left], found.embeddings[right])
    # Without class labels the image is the unit that is resampled.
    comparisons = replace(
        compare_pairs(distance, data.same[whole], left=left, right=right), left_image=left, right_image=right
    )
    verification = evaluate_verification(comparisons, model.manifest.calibration, extra_far=far, seed=seed)
    details = {}
    if data.relation is not None and model.manifest.relations:
        guesses = model.relations(found.embeddings[left], found.embeddings[right])
        right_ones = [
            max(guess, key=guess.__getitem__) == name
            for guess, name in zip(guesses, data.relation[whole], strict=True)
        ]
        details["relations"] = {"accuracy": float(np.mean(right_ones)), "pairs": len(right_ones)}
    return Evaluation(
        verification, None, None, "pairs", found.notes(), details, data=found, comparisons=comparisons
    )


def _omniglot_runs(
    model: Measured, root: Path, *, far: float | None, seed: int, progress: bool
) -> Evaluation:
    """The 20 official runs of 20-way within-alphabet one-shot classification (Lake et al. 2015).

    Each query is answered on its own. Two runs share an alphabet, so pairs of runs are resampled.
    """
    runs = [p for p in sorted(root.iterdir()) if (p / "class_labels.txt").is_file()]
    if not runs:
        raise DataError(
            f"{root}: holds no run; the unpacked all_runs is expected, with runNN/class_labels.txt"
        )
    correct, images, labels = [], [], []
    for run in runs:
        lines = [line.split() for line in (run / "class_labels.txt").read_text().splitlines() if line.strip()]
        if not lines or any(len(line) != 2 for line in lines):
            raise DataError(f"{run / 'class_labels.txt'}: each line must name a test and a training image")
        queries = [root / query for query, _ in lines]
        support = sorted((run / "training").glob("*.png"))
        names = [root / answer for _, answer in lines]
        missing = [p for p in (*queries, *names) if not p.is_file()]
        if missing:
            raise DataError(f"{missing[0]}: is named in {run / 'class_labels.txt'} and is not there")
        answers = [support.index(name) for name in names]
        found = _embed(model, [*queries, *support], np.arange(len(queries) + len(support)), False)
        if found.unreadable:
            raise DataError(f"the official runs must be whole: {found.unreadable[0]}")
        apart = model.distances(found.embeddings[: len(queries)], found.embeddings[len(queries) :])
        correct.append(apart.argmin(axis=1) == answers)
        images.append(found)
        labels.append(answers)
    alphabet = np.arange(len(runs)) // 2  # the official runs come in twos: run01 and run02 are Atlantean
    accuracy, ci = runs_accuracy(np.array(correct), alphabet, seed=seed)
    ways = len(labels[0])
    one_shot = OneShot(ways=ways, shots=1, episodes=int(np.size(correct)), accuracy=accuracy, ci=ci)
    notes = [note for found in images for note in found.notes()]
    details = {"runs": [float(np.mean(c)) for c in correct]}
    return Evaluation(None, one_shot, None, "omniglot-runs", notes, details)


def _lfw(model: Measured, root: Path, *, far: float | None, seed: int, progress: bool) -> Evaluation:
    """View 2 of Labeled Faces in the Wild: ten folds, each with its threshold from the other nine."""
    pairs_file = next(iter(sorted(root.rglob("pairs.txt"))), None)
    if pairs_file is None:
        raise DataError(f"{root}: holds no pairs.txt; the LFW images and the official lists are expected")
    folders = {p.parent.name: p.parent for p in root.rglob("*.jpg")}
    left, right, same, fold, people = read_lfw_pairs(pairs_file, folders)
    images = sorted({*left, *right})
    place = {path: index for index, path in enumerate(images)}
    found = _embed(model, images, [Path(p).parent.name for p in images], progress)
    if found.unreadable:
        raise DataError(f"the official pairs must be whole: {found.unreadable[0]}")
    a, b = (np.array([place[p] for p in side]) for side in (left, right))
    distance = model.paired_distances(found.embeddings[a], found.embeddings[b])
    comparisons = replace(
        compare_pairs(distance, same, left=found.labels[a], right=found.labels[b]),
        left_image=a,
        right_image=b,
    )
    verification = evaluate_verification(comparisons, model.manifest.calibration, extra_far=far, seed=seed)
    folds = lfw_folds(distance, same, fold)
    trained = sorted(set(model.manifest.classes) & people)
    notes = found.notes()
    if trained:
        notes.append(
            f"{len(trained)} people of the folds were in training, so this is not View 2:"
            f" {', '.join(trained[:5])}{' ...' if len(trained) > 5 else ''}"
        )
    details = {
        "lfw": {
            "accuracy": folds.mean,
            "standard_error": folds.standard_error,
            "folds": [float(x) for x in folds.accuracies],
            "people_seen_in_training": trained,
        }
    }
    return Evaluation(verification, None, None, "lfw", notes, details, data=found, comparisons=comparisons)


def read_lfw_pairs(
    path: Path, folders: dict[str, Path]
) -> tuple[list[str], list[str], np.ndarray[Any, Any], np.ndarray[Any, Any], set[str]]:
    """Read an official LFW pair list: pairs.txt (View 2) or pairsDev*.txt (View 1).

    Args:
        path: The list.
        folders: For each person the folder of images.

    Returns:
        The left and right image of each pair, whether they are one person, the fold, and all people named.

    Raises:
        DataError: If a line cannot be read or names somebody who has no folder.
    """
    left: list[str] = []
    right: list[str] = []
    same: list[bool] = []
    people: set[str] = set()
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    head = [int(value) for value in lines[0]]
    folds, each = (head[0], head[1]) if len(head) == 2 else (1, head[0])

    def image(person: str, number: str, line: int) -> str:
        if person not in folders:
            raise DataError(f"{path}, line {line}: {person} has no folder among the images")
        people.add(person)
        return str(folders[person] / f"{person}_{int(number):04d}.jpg")

    for number, parts in enumerate(lines[1:], start=2):
        if len(parts) == 3:
            left.append(image(parts[0], parts[1], number))
            right.append(image(parts[0], parts[2], number))
        elif len(parts) == 4:
            left.append(image(parts[0], parts[1], number))
            right.append(image(parts[2], parts[3], number))
        else:
            raise DataError(f"{path}, line {number}: 3 or 4 values are expected; got {len(parts)}")
        same.append(len(parts) == 3)
    fold = np.minimum(np.arange(len(same)) // (2 * each), folds - 1)
    return left, right, np.array(same, np.bool_), fold, people
