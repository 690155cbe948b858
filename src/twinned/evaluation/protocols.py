"""Evaluation protocols: labeled classes, pairs, LFW's folds, Omniglot's runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.benchmarks import LfwPairs, OneShotRun, official_protocol, read_lfw, read_omniglot_runs
from ..data.datasets import ImageSet, PairSet
from ..data.decoded import decode
from ..data.images import ImageSource
from ..data.readers import Data, as_dataset
from ..errors import DataError, SettingError, many, some
from ..metrics.bootstrap import mean_interval
from ..metrics.comparisons import Comparisons, Embedder, Floats, compare, compare_pairs, count_pairs
from ..metrics.few_shot import OneShot, check_episodes, few_shot, possible_ways
from ..metrics.retrieval import Retrieval, evaluate_retrieval, open_set
from ..metrics.roc import lfw_folds
from ..utils.groups import rank_within_group
from ..utils.notes import Note
from .calibration import Calibration
from .fitting import FEW_CLASSES
from .identification import nearest_label
from .reference_sets import compare_references, distinct_probes, draw_reference_sets
from .results import EmbeddedSet, Evaluation
from .verification import evaluate_verification

PROTOCOLS = ("classes", "pairs", "lfw", "omniglot-runs")
_FPIR = 0.01  # target of open-set identification
_ENROLLED = 4  # maximum number of images per label in it
_OF_REFERENCES = ("eer", "eer_ci", "threshold", "far", "far_ci", "frr", "frr_ci")


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model that its evaluation needs beside its embeddings; hashes are SHA-256 of pixels."""

    calibration: Calibration | None
    prototype: bool = False  # gallery labels are represented by the mean of their images
    classes: Sequence[str] = ()  # that it was trained on
    threshold_classes: Sequence[str] = ()
    harder_impostors: Sequence[str] = ()  # kinds that are harder than images of other classes: forgeries
    training_hashes: frozenset[str] = frozenset()
    threshold_hashes: frozenset[str] = frozenset()
    hash_limitation: str | None = None  # reason why training images may not be recognized
    # Probabilities of the relations for rows of embeddings; None without a relation head.
    relations: Callable[[Floats, Floats], list[dict[str, float]]] | None = None


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
    """Evaluate an embedder on images, pairs, or their path; see `twinned.inference.model.Model.evaluate`."""
    if protocol not in ("auto", *PROTOCOLS):
        raise SettingError(f"Unknown protocol {protocol!r}. Choose one of {', '.join(PROTOCOLS)}")
    check_episodes(ways, shots, episodes)
    run = _Run(embedder, facts, ways, shots, episodes, far, seed, progress)
    if isinstance(data, (str, os.PathLike)):
        if protocol == "auto":
            protocol = official_protocol(data) or protocol
        if protocol == "lfw":
            return run.lfw(read_lfw(data))
        if protocol == "omniglot-runs":
            return run.omniglot_runs(read_omniglot_runs(data))
    elif protocol in ("lfw", "omniglot-runs"):
        raise DataError(f"Protocol {protocol} reads a folder; got {type(data).__name__}")
    loaded = as_dataset(data)
    if isinstance(loaded, PairSet):
        if protocol == "classes":
            raise DataError(f"{loaded.origin}: Protocol classes needs labeled images; got a pair list")
        return run.pairs(loaded)
    if protocol == "pairs":
        raise DataError(f"{loaded.origin}: Protocol pairs needs a CSV with the columns left,right,same")
    if 0 < len(tests := loaded.subset(loaded.split_name == "test")) < len(loaded):
        text = f"measured on the {len(tests)} of {len(loaded)} images that the column split marks as test"
        loaded = replace(tests, notes=(*loaded.notes, text))
    return run.classes(loaded)


@dataclass(frozen=True)
class _Run:
    """One evaluation, with a method for each protocol; fields as the arguments of `evaluate`."""

    embedder: Embedder
    facts: ModelFacts
    ways: int
    shots: int
    episodes: int
    far: float | None
    seed: int
    progress: bool

    def classes(self, data: ImageSet) -> Evaluation:
        found = self._embed(data.images, data.labels, data.forgery)
        forgery, facts, notes = found.forgery, self.facts, [Note("data", text) for text in data.notes]
        notes += found.notes()
        shared = sorted({*facts.threshold_classes} & {*map(str, found.labels)})
        if shared and not found.used_for_threshold.any():
            text = f"{many(len(shared), 'class')} of the threshold have the same names ({some(shared)})"
            notes.append(Note("shared-class-names", f"{text}: its error rates may flatter the model"))
        _, counts = np.unique(found.labels[~forgery], return_counts=True)
        if len(counts) < 2 or counts.max() < 2:
            raise DataError(
                f"{data.origin}: Two classes are needed, and two images of one of them;"
                f" got {len(counts)} classes of at most {counts.max(initial=0)} images"
            )
        comparisons = compare(found.embeddings, data.subset(found.kept), self.embedder, seed=self.seed)
        if (total := sum(count_pairs(found.labels, forgery))) > len(comparisons):
            text = f"{len(comparisons):,} of {total:,} comparisons were made: those within a class and with"
            text += " forgeries, up to half of all, and a sample of the others"
            notes.append(Note("sampled-comparisons", text))
        if not forgery.any():
            notes += [
                Note("impostors-not-measured", f"{kind}: not measured, because {data.origin} marks none")
                for kind in facts.harder_impostors
            ]
        genuine, labels = found.embeddings[~forgery], found.labels[~forgery]
        one_shot, remarks = self._one_shot(genuine, labels)
        details = {
            "open_set": None if forgery.any() else self._open_set(genuine, labels),
            "references": self._references(found),
        }
        return self._result(
            "classes",
            found,
            comparisons,
            notes=[*notes, *remarks],
            details={name: figures for name, figures in details.items() if figures},
            one_shot=one_shot,
            retrieval=evaluate_retrieval(genuine, labels, self.embedder.distances),
        )

    def pairs(self, data: PairSet) -> Evaluation:
        found = self._embed(data.images)
        pairs = data.keep_images(found.kept)
        if not len(pairs):
            raise DataError(f"{data.origin}: No pair has two readable images")
        found = replace(found, labels=pairs.identity_groups())
        comparisons = compare(found.embeddings, pairs, self.embedder)
        details = {}
        if pairs.relation is not None and self.facts.relations is not None:
            ends = found.embeddings[pairs.left], found.embeddings[pairs.right]
            correct = [
                max(row, key=row.__getitem__) == name
                for row, name in zip(self.facts.relations(*ends), pairs.relation, strict=True)
            ]
            ci = mean_interval(np.array(correct), found.labels[pairs.left], seed=self.seed)
            details["relations"] = {"accuracy": float(np.mean(correct)), "ci": ci, "pairs": len(correct)}
        comparisons = replace(comparisons, left_image=pairs.left, right_image=pairs.right)
        return self._result("pairs", found, comparisons, details=details)

    def omniglot_runs(self, runs: Sequence[OneShotRun]) -> Evaluation:
        """Measure the 20 official runs of 20-way within-alphabet one-shot classification (Lake et al. 2015).

        Each query is classified independently. Two runs share an alphabet, so pairs of runs are resampled.
        """
        found = self._embed_all([image for run in runs for image in (*run.queries, *run.support)])
        correct, start = [], 0
        for run in runs:
            queries, support = np.split(found.embeddings[start:], [len(run.queries)])
            start += len(run.queries) + len(run.support)
            distance = self.embedder.distances(queries[: len(run.queries)], support[: len(run.support)])
            correct.append(distance.argmin(axis=1) == run.answers)
        # run01 and run02 are of one alphabet, and so on
        alphabet = np.repeat(np.arange(len(runs)) // 2, [len(right) for right in correct])
        answers = np.concatenate(correct)
        one_shot = OneShot(
            ways=max(len(run.support) for run in runs),
            shots=1,
            episodes=len(answers),
            accuracy=float(answers.mean()),
            ci=mean_interval(answers, alphabet, seed=self.seed),
        )
        details = {"runs": [float(np.mean(right)) for right in correct]}
        return self._result("omniglot-runs", found, None, details=details, one_shot=one_shot)

    def lfw(self, official: LfwPairs) -> Evaluation:
        """Measure Labeled Faces in the Wild: folds, each at the threshold of the others; or View 1."""
        pairs, calibration = official.pairs, self.facts.calibration
        found = self._embed_all(pairs.images, official.people)
        left, right = (found.embeddings[ends] for ends in (pairs.left, pairs.right))
        distance = self.embedder.paired_distances(left, right)
        comparisons = compare_pairs(
            distance, pairs.same, left=found.labels[pairs.left], right=found.labels[pairs.right]
        )
        trained = sorted(set(self.facts.classes) & set(found.labels.tolist()))
        lfw: dict[str, Any] = {"people_seen_in_training": trained}
        notes = found.notes()
        if official.fold.any():
            folds = lfw_folds(distance, pairs.same, official.fold)
            lfw |= {"accuracy": folds.mean, "standard_error": folds.standard_error}
            lfw["folds"] = folds.accuracies.tolist()
        else:
            if calibration is None:
                raise DataError(f"{pairs.origin}: One fold needs a stored threshold, and the model has none")
            lfw["accuracy"] = float(np.mean((distance <= calibration.threshold) == pairs.same))
            text = f"{pairs.origin}: one fold, so accuracy is measured at the stored threshold"
            notes.append(Note("one-fold", text))
        if trained:
            text = f"{len(trained)} people of the folds were in training, so this is not View 2"
            notes.append(Note("people-seen-in-training", f"{text}: {some(trained)}"))
        comparisons = replace(comparisons, left_image=pairs.left, right_image=pairs.right)
        return self._result("lfw", found, comparisons, notes=notes, details={"lfw": lfw})

    def _embed(self, images: Sequence[ImageSource], labels: Any = None, forgery: Any = None) -> EmbeddedSet:
        decoded, facts = decode(images, self.embedder.spec, progress=self.progress), self.facts
        if len(kept := decoded.kept) == 0:
            raise DataError(f"None of {len(images)} images could be read. The first: {decoded.unreadable[0]}")
        return EmbeddedSet(
            images=[images[i] for i in kept],
            labels=(np.arange(len(images)) if labels is None else labels)[kept],
            forgery=np.zeros(len(kept), bool) if forgery is None else forgery[kept],
            embeddings=self.embedder.embed_pixels(decoded.pixels),
            seen=np.isin(decoded.hashes, sorted(facts.training_hashes)),
            used_for_threshold=np.isin(decoded.hashes, sorted(facts.threshold_hashes)),
            unreadable=[str(error) for error in decoded.unreadable],
            kept=kept,
            hash_limitation=facts.hash_limitation,
        )

    def _embed_all(self, images: Sequence[ImageSource], labels: Any = None) -> EmbeddedSet:
        """Embed the images of an official list; all must be readable."""
        found = self._embed(images, labels)
        if found.unreadable:
            raise DataError(f"All images of an official protocol must be readable: {found.unreadable[0]}")
        return found

    def _result(
        self,
        protocol: str,
        found: EmbeddedSet,
        comparisons: Comparisons | None,
        *,
        notes: Sequence[Note] | None = None,
        details: dict[str, Any],
        one_shot: OneShot | None = None,
        retrieval: Retrieval | None = None,
    ) -> Evaluation:
        notes, verification = [*(found.notes() if notes is None else notes)], None
        if comparisons is not None:
            verification = evaluate_verification(
                comparisons, self.facts.calibration, extra_far=self.far, seed=self.seed
            )
            if comparisons.n_classes < FEW_CLASSES:
                text = f"{comparisons.n_classes} classes are too few to be representative: figures on other"
                notes.append(Note("few-classes", f"{text} classes may lie far outside of these intervals"))
        details, seed = found.details() | details, self.seed
        return Evaluation(
            verification, one_shot, retrieval, protocol, notes, details, found, comparisons, seed
        )

    def _one_shot(self, vectors: Floats, labels: np.ndarray[Any, Any]) -> tuple[OneShot | None, list[Note]]:
        """Measure one-shot accuracy, with as many ways as the classes allow."""
        ways, shots, notes = self.ways, self.shots, []
        most = possible_ways(labels, shots=shots)
        if most < 2:
            text = f"{shots}-shot accuracy not measured: it needs 2 classes with {shots + 1} images"
            return None, [Note("one-shot-skipped", text)]
        if most < ways:
            text = f"{most} classes have {shots + 1} images or more, so ways are {most} instead of {ways}"
            notes.append(Note("fewer-ways", text))
        ways, measure = min(ways, most), self.embedder.distances
        return few_shot(vectors, labels, ways, shots, self.episodes, self.seed, distance=measure), notes

    def _references(self, found: EmbeddedSet) -> dict[str, Any]:
        """Measure the stored thresholds of reference sets on sets drawn from these classes, by their size."""
        if self.facts.calibration is None or (fitted := self.facts.calibration.references) is None:
            return {}
        measure = self.embedder.distances
        sets = draw_reference_sets(
            found.embeddings, found.labels, measure, forgery=found.forgery, seed=self.seed
        )
        measured = {}
        for row, pairs in compare_references(sets, fitted):
            figures = evaluate_verification(pairs, row, seed=self.seed).to_json()
            measured[str(row.images)] = {
                "scaled": row.scaled,
                "supported": row.supported,
                **{name: figures[name] for name in _OF_REFERENCES},
                **dict(zip(("n_genuine", "n_impostor"), distinct_probes(sets, row.images), strict=True)),
                "n_classes": len(np.unique(pairs.left)),
            }
        return measured

    def _open_set(self, vectors: Floats, labels: np.ndarray[Any, Any]) -> dict[str, Any] | None:
        """Measure open-set identification at the threshold stored for a gallery of that size.

        Half of the classes are enrolled with half of their images, at most four. All other images are probes.
        None with fewer than 8 classes, or without a stored threshold.
        """
        facts = self.facts
        names, code, counts = np.unique(labels, return_inverse=True, return_counts=True)
        several = np.flatnonzero(counts > 1)
        if facts.calibration is None or len(names) < 8 or len(several) < 4:
            return None
        random = np.random.default_rng(self.seed)
        order = np.lexsort((random.random(len(code)), code))
        rank = np.empty(len(code), np.intp)
        rank[order] = rank_within_group(code[order])
        inside = np.isin(code, random.permutation(several)[: min(len(several) - 1, len(names) // 2)])
        known = inside & (rank < np.minimum(counts // 2, _ENROLLED)[code])
        size = len(np.unique(code[known]))
        measure = self.embedder.distances
        label, distance = nearest_label(
            vectors[~known], vectors[known], code[known], measure, prototype=facts.prototype
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
            seed=self.seed,
        )
        return {"target": _FPIR, "labels": size, "images": int(known.sum()), **rates.to_json()}
