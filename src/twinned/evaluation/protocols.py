"""Measuring a model by a protocol: classes, pairs, LFW's folds, Omniglot's runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ..data.benchmarks import official_protocol, read_lfw, read_omniglot_runs
from ..data.datasets import ImageSet, PairSet
from ..data.decoded import decode
from ..data.images import ImageSource, pixels_sha256
from ..data.preprocessing import ImageSpec
from ..data.readers import as_dataset
from ..errors import DataError, SettingError, some
from ..metrics.comparisons import (
    Comparisons,
    Floats,
    compare_all,
    compare_pairs,
    count_pairs,
)
from ..metrics.few_shot import (
    OneShot,
    one_shot_accuracy,
    possible_ways,
    runs_accuracy,
)
from ..metrics.intervals import mean_interval
from ..metrics.open_set import open_set
from ..metrics.retrieval import evaluate_retrieval
from ..metrics.roc import lfw_folds
from .calibration import Calibration
from .enrollment import nearest_label
from .reference_sets import (
    ReferenceSet,
    compare_references,
    distinct_probes,
    reference_sets,
)
from .results import EmbeddedSet, Evaluation
from .threshold_warnings import FEW_CLASSES
from .verification import evaluate_verification

PROTOCOLS = ("classes", "pairs", "lfw", "omniglot-runs")
_FPIR = 0.01  # of open-set identification
_ENROLLED = 4  # images a label in it, at most
_OF_REFERENCES = ("eer", "eer_ci", "threshold", "far", "far_ci", "frr", "frr_ci")


class Measured(Protocol):
    """What is measured: a `twinned.inference.model.Model`."""

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
    """Measure a model; see `twinned.inference.model.Model.evaluate`.

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
            return _omniglot_runs(model, os.fspath(data), seed=seed, progress=progress)
    elif protocol in ("lfw", "omniglot-runs"):
        raise DataError(f"protocol {protocol} reads a folder; got {type(data).__name__}")
    loaded = as_dataset(data)
    if isinstance(loaded, PairSet):
        if protocol == "classes":
            raise DataError(f"{loaded.origin}: is a pair list; protocol classes needs labelled images")
        return _pairs(model, loaded, far=far, seed=seed, progress=progress)
    if protocol == "pairs":
        raise DataError(f"{loaded.origin}: protocol pairs needs a CSV with the columns left,right,same")
    if 0 < len(tests := loaded.subset(loaded.split_name == "test")) < len(loaded):
        said = f"measured on the {len(tests)} of {len(loaded)} images that the column split marks as test"
        loaded = replace(tests, notes=(*loaded.notes, said))
    return _classes(
        model, loaded, ways=ways, shots=shots, episodes=episodes, far=far, seed=seed, progress=progress
    )


def _embed(
    model: Measured,
    images: Sequence[ImageSource],
    labels: Any,
    progress: bool,
    forgery: np.ndarray[Any, Any] | None = None,
) -> EmbeddedSet:
    decoded = decode(images, model.spec, progress=progress)
    if len(decoded.kept) == 0:
        raise DataError(f"none of {len(images)} images could be read; the first: {decoded.unreadable[0]}")
    names = [pixels_sha256(p) for p in decoded.pixels]
    return EmbeddedSet(
        images=[images[i] for i in decoded.kept],
        labels=np.asarray(labels)[decoded.kept],
        forgery=np.zeros(len(decoded.kept), bool) if forgery is None else forgery[decoded.kept],
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
    found = _embed(model, data.images, data.labels, progress, data.forgery)
    forgery = found.forgery
    notes = [*data.notes, *found.notes()]
    chose = sorted({*model.manifest.held_out.get("classes", [])} & {*map(str, found.labels)})
    if chose and not found.chose.any():
        notes.append(
            f"{len(chose)} classes of the same name chose the threshold ({some(chose)}): if they are"
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
    if (there_are := sum(count_pairs(found.labels, forgery))) > len(comparisons):
        notes.append(
            f"{len(comparisons):,} of {there_are:,} comparisons were made: all genuine ones and those with"
            " forgeries, as far as they fill half, and of the others a sample"
        )
    notes += _few(comparisons)
    if not forgery.any():
        kinds = model.manifest.held_out.get("impostors", {})
        notes += [f"{kind}: not measured, because {data.origin} marks none" for kind in kinds]
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
    label, apart = nearest_label(
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
    found = _embed(model, data.images, data.identity_groups(), progress)
    place = np.full(len(data.images), -1)
    place[found.kept] = np.arange(len(found.kept))
    left, right = place[data.left], place[data.right]
    whole = (left >= 0) & (right >= 0)
    if not whole.any():
        raise DataError(f"{data.origin}: no pair has two readable images")
    left, right = left[whole], right[whole]
    distance = model.paired_distances(found.embeddings[left], found.embeddings[right])
    unit = found.labels
    comparisons = replace(
        compare_pairs(distance, data.same[whole], left=unit[left], right=unit[right]),
        left_image=left,
        right_image=right,
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
    notes = [*found.notes(), *_few(comparisons)]
    return Evaluation(verification, None, None, "pairs", notes, details, found, comparisons, seed)


def _few(comparisons: Comparisons) -> list[str]:
    """What must be said where few classes were measured."""
    if comparisons.n_classes >= FEW_CLASSES:
        return []
    return [
        f"{comparisons.n_classes} classes are too few to mean much, however many comparisons: these intervals"
        " say little of others"
    ]


def _omniglot_runs(model: Measured, root: str, *, seed: int, progress: bool) -> Evaluation:
    """The 20 official runs of 20-way within-alphabet one-shot classification (Lake et al. 2015).

    Each query is answered on its own. Two runs share an alphabet, so pairs of runs are resampled.
    """
    runs = read_omniglot_runs(root)
    images = [image for run in runs for image in (*run.queries, *run.support)]
    found = _embed_whole(model, images, progress)
    correct, start = [], 0
    for run in runs:
        queries, support = np.split(found.embeddings[start:], [len(run.queries)])
        start += len(run.queries) + len(run.support)
        apart = model.distances(queries[: len(run.queries)], support[: len(run.support)])
        correct.append(apart.argmin(axis=1) == run.answers)
    alphabet = np.arange(len(runs)) // 2  # the official runs come in twos: run01 and run02 are Atlantean
    accuracy, ci = runs_accuracy(correct, alphabet, seed=seed)
    ways = max(len(run.support) for run in runs)
    episodes = sum(len(run.queries) for run in runs)
    one_shot = OneShot(ways=ways, shots=1, episodes=episodes, accuracy=accuracy, ci=ci)
    details = found.details() | {"runs": [float(np.mean(c)) for c in correct]}
    return Evaluation(None, one_shot, None, "omniglot-runs", found.notes(), details, found, seed=seed)


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
