"""Measuring a model by a protocol: classes, pairs, LFW's folds, Omniglot's runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from .data import ImageSet, PairSet, decode, load
from .data.official import official_protocol, read_lfw, read_omniglot_runs
from .errors import DataError, SettingError
from .fewshot import OneShot, one_shot_accuracy, possible_ways, runs_accuracy
from .images import ImageSource, ImageSpec, pixels_sha256, source_name
from .intervals import mean_interval
from .retrieval import Retrieval, evaluate_retrieval
from .runtime import Floats
from .verification import (
    Calibration,
    Comparisons,
    ReferenceSet,
    VerificationResult,
    closest_labels,
    compare_all,
    compare_pairs,
    compare_references,
    distinct_probes,
    evaluate_verification,
    impostors_needed,
    lfw_folds,
    open_set,
    reference_sets,
)

PROTOCOLS = ("classes", "pairs", "lfw", "omniglot-runs")
_FPIR = 0.01  # of open-set identification
_ENROLLED = 4  # images a label in it, at most
_OF_REFERENCES = ("eer", "eer_ci", "threshold", "far", "far_ci", "frr", "frr_ci")


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
    @property
    def prototype(self) -> bool: ...
    def identification_threshold(self, labels: int, fpir: float, *, images_per_label: float) -> float: ...
    def training_hashes(self) -> frozenset[str]: ...
    def threshold_hashes(self) -> frozenset[str]: ...
    def unmatched(self) -> str | None: ...


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
        seed: Of episodes and resampling.
    """

    verification: VerificationResult | None
    one_shot: OneShot | None
    retrieval: Retrieval | None
    protocol: str
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    data: EmbeddedSet | None = None
    comparisons: Comparisons | None = None
    seed: int = 0

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
            against = {"all": "impostor", "skilled": "skilled-forgery", "random": "random-impostor"}[
                v.impostors
            ]
            lines.append(f"verification  {v.n_genuine:,} genuine and {v.n_impostor:,} {against} comparisons")
            for name, value, ci in (
                ("equal error rate", v.eer, v.eer_ci),
                ("area under ROC", v.auc, v.auc_ci),
                ("FAR at the stored threshold", v.far, v.far_ci),
                ("FRR at the stored threshold", v.frr, v.frr_ci),
            ):
                lines.append(f"  {name:<28} {_figure(value, ci)}")
            for far, row in v.tar_at_far.items():
                mark = (
                    ""
                    if row.supported
                    else f"  (not supported: it takes {impostors_needed(far):,} impostor comparisons)"
                )
                lines.append(f"  {f'TAR at FAR {far:g}':<28} {_figure(row.tar, row.ci)}{mark}")
            if v.cllr is not None and v.min_cllr is not None:
                lines.append(f"  {'Cllr (at best)':<28} {v.cllr:.4f}  ({v.min_cllr:.4f})")
            if (other := v.parts.get("random")) is not None:
                lines.append(
                    f"  against {other.n_impostor:,} random impostors: equal error rate"
                    f" {_figure(other.eer, other.eer_ci)}, FAR {_figure(other.far, other.far_ci)}"
                )
        if (o := self.one_shot) is not None:
            lines.append(
                f"{o.ways}-way {o.shots}-shot  {_figure(o.accuracy, o.ci)}  ({o.episodes:,} episodes)"
            )
        if (r := self.retrieval) is not None:
            figures = {
                k: v for k, v in r.to_json().items() if k in ("recall_at_1", "recall_at_5", "map_at_r")
            }
            lines.append("retrieval  " + "  ".join(f"{k} {_figure(v, None)}" for k, v in figures.items()))
        if (s := self.details.get("open_set")) is not None:
            lines.append(
                f"open set  {s['labels']} labels enrolled, at the threshold for a FPIR of {s['target']:g}"
            )
            for name, rate in (("strangers given a name", "fpir"), ("enrolled not recognised", "fnir")):
                lines.append(f"  {name:<28} {_figure(s[rate], s[rate + '_ci'])}")
        for count, s in self.details.get("references", {}).items():
            lines.append(
                f"{count} references  equal error rate {_figure(s['eer'], s['eer_ci'])},"
                f" FAR {s['far']:.4f}, FRR {s['frr']:.4f} at the threshold stored for them"
                + ("" if s["supported"] else " (not supported)")
            )
        if "relations" in self.details:
            relations = self.details["relations"]
            figure = _figure(relations["accuracy"], relations["ci"])
            lines.append(f"relations  accuracy {figure}  ({relations['pairs']:,} pairs)")
        if "lfw" in self.details:
            lfw = self.details["lfw"]
            lines.append(
                f"LFW, {len(lfw['folds'])} folds: {lfw['accuracy']:.4f} +- {lfw['standard_error']:.4f}"
                if "folds" in lfw
                else f"LFW, accuracy at the stored threshold: {lfw['accuracy']:.4f}"
            )
        if "untouched" in self.details:
            before = self.details["untouched"]
            said = {"eer": "equal error rate", "one_shot": "one-shot", "recall_at_1": "recall_at_1"}
            lines.append(
                "before training  " + "  ".join(f"{said[k]} {_figure(v, None)}" for k, v in before.items())
            )
        return "\n".join(lines)


def _first(sentences: Sequence[str], most: int = 3) -> str:
    """The first few, and how many more."""
    more = f" and {len(sentences) - most} more" if len(sentences) > most else ""
    return "; ".join(sentences[:most]) + more


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
        chose: True where the threshold was chosen on it, likewise.
        unreadable: One sentence for each image left out.
        kept: Their places in the data.
        unmatched: What must be said where images that training saw cannot be recognised.
    """

    images: Sequence[ImageSource]
    labels: np.ndarray[Any, Any]
    embeddings: Floats
    seen: np.ndarray[Any, Any]
    chose: np.ndarray[Any, Any]
    unreadable: list[str]
    kept: np.ndarray[Any, Any]
    unmatched: str | None

    def details(self) -> dict[str, Any]:
        """Which images training saw, where it saw some."""
        names = [source_name(image) for image, seen in zip(self.images, self.seen, strict=True) if seen]
        return {"seen_in_training": names} if names else {}

    def notes(self) -> list[str]:
        """What must be said of these images."""
        found = []
        if names := self.details().get("seen_in_training"):
            found.append(
                f"{len(names)} of {len(self.seen)} images were seen in training ({_first(names)}): these"
                " figures flatter the model; evaluate on others"
            )
        if self.unmatched is not None:
            found.append(self.unmatched)
        if self.chose.any():
            found.append(
                f"the threshold was chosen on {self.chose.sum()} of these {len(self.chose)} images, so its"
                " error rates are too hopeful here; evaluate on others"
            )
        if self.unreadable:
            found.append(f"{len(self.unreadable)} unreadable images left out: {_first(self.unreadable)}")
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
    if isinstance(data, (str, os.PathLike)):
        if protocol == "auto":
            protocol = official_protocol(data) or protocol
        if protocol == "lfw":
            return _lfw(model, os.fspath(data), far=far, seed=seed, progress=progress)
        if protocol == "omniglot-runs":
            return _omniglot_runs(model, os.fspath(data), seed=seed)
    elif protocol in ("lfw", "omniglot-runs"):
        raise DataError(f"protocol {protocol} reads a folder; got {type(data).__name__}")
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
    names = [pixels_sha256(p) for p in decoded.pixels]
    return EmbeddedSet(
        images=[images[i] for i in decoded.kept],
        labels=np.asarray(labels)[decoded.kept],
        embeddings=model.embed_pixels(decoded.pixels),
        seen=np.isin(names, sorted(model.training_hashes())),
        chose=np.isin(names, sorted(model.threshold_hashes())),
        unreadable=[str(error) for error in decoded.unreadable],
        kept=decoded.kept,
        unmatched=model.unmatched(),
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
    chose = sorted({*model.manifest.held_out.get("classes", [])} & {*map(str, found.labels)})
    if chose and not found.chose.any():
        notes.append(
            f"{len(chose)} classes of the same name chose the threshold ({_first(chose)}): if they are"
            " the same, what is measured at it flatters the model"
        )
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
            notes.append(
                f"{most} classes have {shots + 1} images or more, so one-shot is {most}-way instead of"
                f" {ways}-way"
            )
        one_shot = one_shot_accuracy(
            genuine, labels, model.distances, ways=min(ways, most), shots=shots, episodes=episodes, seed=seed
        )
    retrieval = evaluate_retrieval(genuine, labels, model.distances)
    details = found.details()
    if (rates := None if forgery.any() else _open_set(model, genuine, labels, seed=seed)) is not None:
        details["open_set"] = rates
    sets = reference_sets(found.embeddings, found.labels, model.distances, forgery=forgery, seed=seed)
    if several := _references(sets, calibration, seed=seed):
        details["references"] = several
    return Evaluation(
        verification,
        one_shot,
        retrieval,
        "classes",
        notes,
        details,
        found,
        comparisons,
        seed,
    )


def _references(sets: Sequence[ReferenceSet], calibration: Calibration, *, seed: int) -> dict[str, Any]:
    """Sets of references drawn from these classes, at the thresholds stored for them, by their size."""
    if (fitted := calibration.references) is None:
        return {}
    found = {}
    for row, pairs in compare_references(sets, fitted):
        figures = evaluate_verification(pairs, row, seed=seed).to_json()
        found[str(row.images)] = {
            "scaled": row.scaled,
            "supported": row.supported,
            **{name: figures[name] for name in _OF_REFERENCES},
            **dict(zip(("n_genuine", "n_impostor"), distinct_probes(sets, row.images), strict=True)),
            "n_classes": len(np.unique(pairs.left)),
        }
    return found


def _open_set(
    model: Measured, vectors: Floats, labels: np.ndarray[Any, Any], *, seed: int
) -> dict[str, Any] | None:
    """Half of the classes enrolled with half of their images, at most four; all others held up to them.

    At the threshold that the model has for a gallery of that size. None with fewer than 8 classes.
    """
    names, code, counts = np.unique(labels, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    if len(names) < 8 or len(several) < 4:
        return None
    random = np.random.default_rng(seed)
    order = np.lexsort((random.random(len(code)), code))
    rank = np.empty(len(code), np.intp)
    rank[order] = np.arange(len(code)) - np.searchsorted(code[order], code[order])
    inside = np.isin(code, random.permutation(several)[: min(len(several) - 1, len(names) // 2)])
    known = inside & (rank < np.minimum(counts // 2, _ENROLLED)[code])
    size = len(np.unique(code[known]))
    label, apart = closest_labels(
        vectors[~known], vectors[known], code[known], model.distances, prototype=model.prototype
    )
    threshold = model.identification_threshold(size, _FPIR, images_per_label=known.sum() / size)
    rates = open_set(
        apart,
        threshold,
        label=names[code[~known]],
        enrolled=inside[~known],
        correct=label == code[~known],
        seed=seed,
    )
    return {"target": _FPIR, "labels": size, "images": int(known.sum()), **rates.to_json()}


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
    details = found.details()
    if data.relation is not None and model.manifest.relations:
        guesses = model.relations(found.embeddings[left], found.embeddings[right])
        right_ones = [
            max(guess, key=guess.__getitem__) == name
            for guess, name in zip(guesses, data.relation[whole], strict=True)
        ]
        ci = mean_interval(np.array(right_ones), found.labels[left], seed=seed)
        details["relations"] = {"accuracy": float(np.mean(right_ones)), "ci": ci, "pairs": len(right_ones)}
    return Evaluation(verification, None, None, "pairs", found.notes(), details, found, comparisons, seed)


def _omniglot_runs(model: Measured, root: str, *, seed: int) -> Evaluation:
    """The 20 official runs of 20-way within-alphabet one-shot classification (Lake et al. 2015).

    Each query is answered on its own. Two runs share an alphabet, so pairs of runs are resampled.
    """
    runs = read_omniglot_runs(root)
    correct, notes = [], []
    for run in runs:
        found = _embed_whole(model, [*run.queries, *run.support], False)
        queries, support = np.split(found.embeddings, [len(run.queries)])
        correct.append(model.distances(queries, support).argmin(axis=1) == run.answers)
        notes += found.notes()
    alphabet = np.arange(len(runs)) // 2  # the official runs come in twos: run01 and run02 are Atlantean
    accuracy, ci = runs_accuracy(correct, alphabet, seed=seed)
    ways = max(len(run.support) for run in runs)
    episodes = sum(len(run.queries) for run in runs)
    one_shot = OneShot(ways=ways, shots=1, episodes=episodes, accuracy=accuracy, ci=ci)
    details = {"runs": [float(np.mean(c)) for c in correct]}
    return Evaluation(None, one_shot, None, "omniglot-runs", notes, details, seed=seed)


def _lfw(model: Measured, root: str, *, far: float | None, seed: int, progress: bool) -> Evaluation:
    """Labeled Faces in the Wild: ten folds, each with its threshold from the other nine; or View 1."""
    official = read_lfw(root)
    pairs = official.pairs
    found = _embed_whole(model, pairs.images, progress, official.people)
    distance = model.paired_distances(found.embeddings[pairs.left], found.embeddings[pairs.right])
    comparisons = replace(
        compare_pairs(distance, pairs.same, left=found.labels[pairs.left], right=found.labels[pairs.right]),
        left_image=pairs.left,
        right_image=pairs.right,
    )
    calibration: Calibration = model.manifest.calibration
    verification = evaluate_verification(comparisons, calibration, extra_far=far, seed=seed)
    trained = sorted(set(model.manifest.classes) & set(found.labels.tolist()))
    lfw: dict[str, Any] = {"people_seen_in_training": trained}
    notes = found.notes()
    if official.fold.any():
        folds = lfw_folds(distance, pairs.same, official.fold)
        lfw |= {"accuracy": folds.mean, "standard_error": folds.standard_error}
        lfw["folds"] = folds.accuracies.tolist()
    else:
        lfw["accuracy"] = float(np.mean((distance <= calibration.threshold) == pairs.same))
        notes.append(f"{pairs.origin}: one fold, so its accuracy is that at the stored threshold")
    if trained:
        notes.append(
            f"{len(trained)} people of the folds were in training, so this is not View 2:"
            f" {', '.join(trained[:5])}{' ...' if len(trained) > 5 else ''}"
        )
    return Evaluation(verification, None, None, "lfw", notes, {"lfw": lfw}, found, comparisons, seed)


def _embed_whole(
    model: Measured, images: Sequence[ImageSource], progress: bool, labels: Any = None
) -> EmbeddedSet:
    """Embed images of an official list, of which none may be left out."""
    found = _embed(model, images, np.arange(len(images)) if labels is None else labels, progress)
    if found.unreadable:
        raise DataError(f"the official images must be whole: {found.unreadable[0]}")
    return found
