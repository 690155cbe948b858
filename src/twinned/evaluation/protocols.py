"""Evaluation protocols: labeled classes, pairs, LFW's folds, Omniglot's runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..data.benchmarks import official_protocol, read_lfw, read_omniglot_runs
from ..data.datasets import ImageSet, PairSet
from ..data.decoded import decode
from ..data.images import ImageSource
from ..data.readers import Data, as_dataset
from ..errors import DataError, SettingError, many, some
from ..metrics.bootstrap import mean_interval
from ..metrics.comparisons import Comparisons, Floats, compare, compare_pairs, count_pairs, locate_pairs
from ..metrics.embedder import Embedder
from ..metrics.few_shot import OneShot, few_shot, possible_ways, runs_accuracy
from ..metrics.open_set import open_set
from ..metrics.retrieval import evaluate_retrieval
from ..metrics.roc import lfw_folds
from ..utils.groups import rank_within_group
from ..utils.notes import Note
from .calibration import Calibration
from .enrollment import nearest_label
from .reference_sets import ReferenceSet, compare_references, distinct_probes, draw_reference_sets
from .results import EmbeddedSet, Evaluation
from .threshold_warnings import FEW_CLASSES
from .verification import evaluate_verification

PROTOCOLS = ("classes", "pairs", "lfw", "omniglot-runs")
_FPIR = 0.01  # target of open-set identification
_ENROLLED = 4  # maximum number of images per label in it
_OF_REFERENCES = ("eer", "eer_ci", "threshold", "far", "far_ci", "frr", "frr_ci")


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model that its evaluation needs beside its embeddings.

    Args:
        calibration: Stored thresholds and probabilities; None if the model has none.
        prototype: Gallery labels are represented by the mean of their images.
        classes: Names of the training classes.
        threshold_classes: Names of the classes that the threshold was chosen on.
        harder_impostors: Kinds of impostor that are harder than images of other classes, such as forgeries.
        training_hashes: SHA-256 of the pixels of every training image.
        threshold_hashes: SHA-256 of the pixels of every image that the threshold was chosen on.
        hash_limitation: Reason why training images may not be recognized; None without one.
        relations: Probabilities of the relations for rows of embeddings; None without a relation head.
    """

    calibration: Calibration | None
    prototype: bool = False
    classes: Sequence[str] = ()
    threshold_classes: Sequence[str] = ()
    harder_impostors: Sequence[str] = ()
    training_hashes: frozenset[str] = frozenset()
    threshold_hashes: frozenset[str] = frozenset()
    hash_limitation: str | None = None
    relations: Callable[[Floats, Floats], list[dict[str, float]]] | None = None


class _Options(NamedTuple):
    ways: int
    shots: int
    episodes: int
    far: float | None
    seed: int
    progress: bool


def evaluate(
    embedder: Embedder,
    data: Data,
    facts: ModelFacts,
    *,
    protocol: str = "auto",
    ways: int = 20,
    shots: int = 1,
    episodes: int = 1000,
    far: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Evaluate an embedder. `twinned.inference.model.Model.evaluate` documents the other arguments.

    Args:
        embedder: Embeds images and measures distances.
        data: Images, pairs, or their path.
        facts: Calibration and training data of the model.

    Raises:
        SettingError: If the protocol is unknown.
        DataError: If the data do not fit it.
    """
    if protocol not in ("auto", *PROTOCOLS):
        raise SettingError(f"Unknown protocol {protocol!r}. Choose one of {', '.join(PROTOCOLS)}")
    if ways < 2 or shots < 1 or episodes < 1:
        raise SettingError(
            f"At least 2 ways, 1 shot and 1 episode are needed;"
            f" got {ways} ways, {shots} shots, {episodes} episodes"
        )
    options = _Options(ways, shots, episodes, far, seed, progress)
    if isinstance(data, (str, os.PathLike)):
        if protocol == "auto":
            protocol = official_protocol(data) or protocol
        if protocol == "lfw":
            return _lfw(embedder, facts, os.fspath(data), options)
        if protocol == "omniglot-runs":
            return _omniglot_runs(embedder, facts, os.fspath(data), options)
    elif protocol in ("lfw", "omniglot-runs"):
        raise DataError(f"Protocol {protocol} reads a folder; got {type(data).__name__}")
    loaded = as_dataset(data)
    if isinstance(loaded, PairSet):
        if protocol == "classes":
            raise DataError(f"{loaded.origin}: Protocol classes needs labeled images; got a pair list")
        return _pairs(embedder, facts, loaded, options)
    if protocol == "pairs":
        raise DataError(f"{loaded.origin}: Protocol pairs needs a CSV with the columns left,right,same")
    if 0 < len(tests := loaded.subset(loaded.split_name == "test")) < len(loaded):
        text = f"measured on the {len(tests)} of {len(loaded)} images that the column split marks as test"
        loaded = replace(tests, notes=(*loaded.notes, text))
    return _classes(embedder, facts, loaded, options)


def _embed(
    embedder: Embedder,
    facts: ModelFacts,
    images: Sequence[ImageSource],
    labels: Any,
    progress: bool,
    forgery: np.ndarray[Any, Any] | None = None,
) -> EmbeddedSet:
    decoded = decode(images, embedder.spec, progress=progress)
    if len(decoded.kept) == 0:
        raise DataError(f"None of {len(images)} images could be read. The first: {decoded.unreadable[0]}")
    return EmbeddedSet(
        images=[images[i] for i in decoded.kept],
        labels=np.asarray(labels)[decoded.kept],
        forgery=np.zeros(len(decoded.kept), bool) if forgery is None else forgery[decoded.kept],
        embeddings=embedder.embed_pixels(decoded.pixels),
        seen=np.isin(decoded.hashes, sorted(facts.training_hashes)),
        used_for_threshold=np.isin(decoded.hashes, sorted(facts.threshold_hashes)),
        unreadable=[str(error) for error in decoded.unreadable],
        kept=decoded.kept,
        hash_limitation=facts.hash_limitation,
    )


def _classes(embedder: Embedder, facts: ModelFacts, data: ImageSet, options: _Options) -> Evaluation:
    found = _embed(embedder, facts, data.images, data.labels, options.progress, data.forgery)
    forgery, seed = found.forgery, options.seed
    notes = [*(Note("data", text) for text in data.notes), *found.notes()]
    shared = sorted({*facts.threshold_classes} & {*map(str, found.labels)})
    if shared and not found.used_for_threshold.any():
        notes.append(
            Note(
                "shared-class-names",
                f"the threshold was chosen on {many(len(shared), 'class')} with these names ({some(shared)}):"
                " if they are the same classes, its error rates flatter the model",
            )
        )
    _, counts = np.unique(found.labels[~forgery], return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        raise DataError(
            f"{data.origin}: Two classes are needed, and two images of one of them;"
            f" got {len(counts)} classes of at most {counts.max(initial=0)} images"
        )
    comparisons = compare(found.embeddings, data, embedder, rows=found.kept, seed=seed)
    notes += _comparison_notes(found, comparisons, facts, data.origin)
    details = found.details()
    genuine, labels = found.embeddings[~forgery], found.labels[~forgery]
    one_shot, remarks = _one_shot(embedder, genuine, labels, options)
    if not forgery.any() and (rates := _open_set(embedder, facts, genuine, labels, seed=seed)) is not None:
        details["open_set"] = rates
    sets = draw_reference_sets(found.embeddings, found.labels, embedder.distances, forgery=forgery, seed=seed)
    if several := _references(sets, facts.calibration, seed=seed):
        details["references"] = several
    return Evaluation(
        evaluate_verification(comparisons, facts.calibration, extra_far=options.far, seed=seed),
        one_shot,
        evaluate_retrieval(genuine, labels, embedder.distances),
        "classes",
        [*notes, *remarks],
        details,
        found,
        comparisons,
        seed,
    )


def _comparison_notes(
    found: EmbeddedSet, comparisons: Comparisons, facts: ModelFacts, origin: str
) -> list[Note]:
    """Return notes on the comparisons made of a data set, and on those missing."""
    notes = []
    if (total := sum(count_pairs(found.labels, found.forgery))) > len(comparisons):
        notes.append(
            Note(
                "sampled-comparisons",
                f"{len(comparisons):,} of {total:,} comparisons were made: those within a class and with"
                " forgeries, up to half of all, and a sample of the others",
            )
        )
    notes += _few(comparisons)
    if not found.forgery.any():
        notes += [
            Note("impostors-not-measured", f"{kind}: not measured, because {origin} marks none")
            for kind in facts.harder_impostors
        ]
    return notes


def _one_shot(
    embedder: Embedder, vectors: Floats, labels: np.ndarray[Any, Any], options: _Options
) -> tuple[OneShot | None, list[Note]]:
    """Measure one-shot accuracy, with as many ways as the classes allow."""
    ways, shots = options.ways, options.shots
    most = possible_ways(labels, shots=shots)
    if most < 2:
        text = f"{shots}-shot accuracy not measured: it needs 2 classes with {shots + 1} images"
        return None, [Note("one-shot-skipped", text)]
    notes = []
    if most < ways:
        text = f"{most} classes have {shots + 1} images or more, so ways are {most} instead of {ways}"
        notes.append(Note("fewer-ways", text))
    found = few_shot(
        vectors,
        labels,
        distance=embedder.distances,
        ways=min(ways, most),
        shots=shots,
        episodes=options.episodes,
        seed=options.seed,
    )
    return found, notes


def _references(
    sets: Sequence[ReferenceSet], calibration: Calibration | None, *, seed: int
) -> dict[str, Any]:
    """Measure the stored thresholds of reference sets on sets drawn from these classes, by their size."""
    if calibration is None or (fitted := calibration.references) is None:
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
    embedder: Embedder, facts: ModelFacts, vectors: Floats, labels: np.ndarray[Any, Any], *, seed: int
) -> dict[str, Any] | None:
    """Measure open-set identification at the threshold stored for a gallery of that size.

    Half of the classes are enrolled with half of their images, at most four. All other images are probes.

    Returns:
        None with fewer than 8 classes, or without a stored threshold.
    """
    if facts.calibration is None:
        return None
    names, code, counts = np.unique(labels, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    if len(names) < 8 or len(several) < 4:
        return None
    random = np.random.default_rng(seed)
    order = np.lexsort((random.random(len(code)), code))
    rank = np.empty(len(code), np.intp)
    rank[order] = rank_within_group(code[order])
    inside = np.isin(code, random.permutation(several)[: min(len(several) - 1, len(names) // 2)])
    known = inside & (rank < np.minimum(counts // 2, _ENROLLED)[code])
    size = len(np.unique(code[known]))
    label, distance = nearest_label(
        vectors[~known], vectors[known], code[known], embedder.distances, prototype=facts.prototype
    )
    threshold = facts.calibration.identification_threshold(
        size, _FPIR, images_per_label=known.sum() / size, prototype=facts.prototype
    )
    rates = open_set(
        distance,
        threshold,
        label=names[code[~known]],
        enrolled=inside[~known],
        correct=label == code[~known],
        seed=seed,
    )
    return {"target": _FPIR, "labels": size, "images": int(known.sum()), **rates.to_json()}


def _pairs(embedder: Embedder, facts: ModelFacts, data: PairSet, options: _Options) -> Evaluation:
    found = _embed(embedder, facts, data.images, data.identity_groups(), options.progress)
    left, right, whole = locate_pairs(data, found.kept)
    if not whole.any():
        raise DataError(f"{data.origin}: No pair has two readable images")
    comparisons = compare(found.embeddings, data, embedder, rows=found.kept)
    comparisons = replace(comparisons, left_image=left, right_image=right)
    verification = evaluate_verification(
        comparisons, facts.calibration, extra_far=options.far, seed=options.seed
    )
    details = found.details()
    if data.relation is not None and facts.relations is not None:
        probabilities = facts.relations(found.embeddings[left], found.embeddings[right])
        correct = [
            max(row, key=row.__getitem__) == name
            for row, name in zip(probabilities, data.relation[whole], strict=True)
        ]
        ci = mean_interval(np.array(correct), found.labels[left], seed=options.seed)
        details["relations"] = {"accuracy": float(np.mean(correct)), "ci": ci, "pairs": len(correct)}
    notes = [*found.notes(), *_few(comparisons)]
    return Evaluation(verification, None, None, "pairs", notes, details, found, comparisons, options.seed)


def _few(comparisons: Comparisons) -> list[Note]:
    """Return a note if few classes were measured."""
    if comparisons.n_classes >= FEW_CLASSES:
        return []
    return [
        Note(
            "few-classes",
            f"{comparisons.n_classes} classes are too few to be representative, however many comparisons:"
            " figures on other classes may lie far outside of these intervals",
        )
    ]


def _omniglot_runs(embedder: Embedder, facts: ModelFacts, root: str, options: _Options) -> Evaluation:
    """Measure the 20 official runs of 20-way within-alphabet one-shot classification (Lake et al. 2015).

    Each query is classified independently. Two runs share an alphabet, so pairs of runs are resampled.
    """
    runs = read_omniglot_runs(root)
    images = [image for run in runs for image in (*run.queries, *run.support)]
    found = _embed_all(embedder, facts, images, options.progress)
    correct, start = [], 0
    for run in runs:
        queries, support = np.split(found.embeddings[start:], [len(run.queries)])
        start += len(run.queries) + len(run.support)
        distance = embedder.distances(queries[: len(run.queries)], support[: len(run.support)])
        correct.append(distance.argmin(axis=1) == run.answers)
    alphabet = np.arange(len(runs)) // 2  # run01 and run02 are of one alphabet, and so on
    accuracy, ci = runs_accuracy(correct, alphabet, seed=options.seed)
    ways = max(len(run.support) for run in runs)
    episodes = sum(len(run.queries) for run in runs)
    one_shot = OneShot(ways=ways, shots=1, episodes=episodes, accuracy=accuracy, ci=ci)
    details = found.details() | {"runs": [float(np.mean(c)) for c in correct]}
    return Evaluation(None, one_shot, None, "omniglot-runs", found.notes(), details, found, seed=options.seed)


def _lfw(embedder: Embedder, facts: ModelFacts, root: str, options: _Options) -> Evaluation:
    """Measure Labeled Faces in the Wild: ten folds, each at the threshold of the other nine; or View 1."""
    official = read_lfw(root)
    pairs = official.pairs
    found = _embed_all(embedder, facts, pairs.images, options.progress, official.people)
    distance = embedder.paired_distances(found.embeddings[pairs.left], found.embeddings[pairs.right])
    comparisons = replace(
        compare_pairs(distance, pairs.same, left=found.labels[pairs.left], right=found.labels[pairs.right]),
        left_image=pairs.left,
        right_image=pairs.right,
    )
    verification = evaluate_verification(
        comparisons, facts.calibration, extra_far=options.far, seed=options.seed
    )
    trained = sorted(set(facts.classes) & set(found.labels.tolist()))
    lfw: dict[str, Any] = {"people_seen_in_training": trained}
    notes = found.notes()
    if official.fold.any():
        folds = lfw_folds(distance, pairs.same, official.fold)
        lfw |= {"accuracy": folds.mean, "standard_error": folds.standard_error}
        lfw["folds"] = folds.accuracies.tolist()
    else:
        if facts.calibration is None:
            raise DataError(f"{pairs.origin}: One fold needs a stored threshold, and the model has none")
        lfw["accuracy"] = float(np.mean((distance <= facts.calibration.threshold) == pairs.same))
        text = f"{pairs.origin}: one fold, so accuracy is measured at the stored threshold"
        notes.append(Note("one-fold", text))
    if trained:
        text = f"{len(trained)} people of the folds were in training, so this is not View 2: {some(trained)}"
        notes.append(Note("people-seen-in-training", text))
    return Evaluation(verification, None, None, "lfw", notes, {"lfw": lfw}, found, comparisons, options.seed)


def _embed_all(
    embedder: Embedder, facts: ModelFacts, images: Sequence[ImageSource], progress: bool, labels: Any = None
) -> EmbeddedSet:
    """Embed the images of an official list; all must be readable."""
    found = _embed(embedder, facts, images, np.arange(len(images)) if labels is None else labels, progress)
    if found.unreadable:
        raise DataError(f"All images of an official protocol must be readable: {found.unreadable[0]}")
    return found
