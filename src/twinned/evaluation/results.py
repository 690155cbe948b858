"""`Evaluation`: the metrics of a model on a data set, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..data.images import ImageSource, source_name
from ..errors import some
from ..metrics.bootstrap import Interval
from ..metrics.comparisons import Comparisons, Floats
from ..metrics.few_shot import OneShot
from ..metrics.retrieval import Retrieval
from ..utils.notes import Note
from .thresholds import impostors_needed
from .verification import VerificationResult

SEEN_IN_TRAINING, USED_FOR_THRESHOLD = "seen-in-training", "used-for-threshold"
_IMPOSTORS = {"all": "impostor", "skilled": "skilled-forgery", "random": "random-impostor"}
_BASELINE = {"eer": "equal error rate", "one_shot": "one-shot accuracy", "recall_at_1": "recall at 1"}


class Metric(NamedTuple):
    """One row of an evaluation's table.

    Args:
        group: Key of the protocol's section, such as ``verification`` or ``open_set``.
        section: Heading in words.
        name: Name in words.
        value: The figure; None where undefined.
        ci: 95 % interval.
        remark: Addition in parentheses, such as the number of episodes.
    """

    group: str
    section: str
    name: str
    value: float | None
    ci: Interval | Sequence[float] | None = None
    remark: str = ""

    def __str__(self) -> str:
        value = "none" if self.value is None else f"{self.value:.4f}"
        ends = "" if self.ci is None else f"  [{self.ci[0]:.4f}, {self.ci[1]:.4f}]"
        return f"{self.name:<30} {value}{ends}" + (f"  ({self.remark})" if self.remark else "")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of `Model.evaluate`. A section that the protocol cannot measure is None.

    Args:
        verification: Figures of same-or-different decisions, at the stored threshold and others.
        one_shot: N-way K-shot accuracy, forced choice.
        retrieval: Recall at k and MAP at R.
        protocol: Name of the protocol.
        remarks: Notes on the figures: images seen in training, images left out, fewer ways than requested.
        details: Figures that only this protocol has, under their JSON keys.
        data: Names, labels and embeddings behind the figures, for plots and reports.
        comparisons: Comparisons behind the verification figures.
        seed: Seed of episodes and resampling.
    """

    verification: VerificationResult | None
    one_shot: OneShot | None
    retrieval: Retrieval | None
    protocol: str
    remarks: list[Note] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    data: EmbeddedSet | None = None
    comparisons: Comparisons | None = None
    seed: int = 0

    @property
    def notes(self) -> list[str]:
        """Texts of the remarks."""
        return [note.text for note in self.remarks]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures under their JSON keys."""
        return {
            "protocol": self.protocol,
            "verification": self.verification and self.verification.to_json(),
            "one_shot": self.one_shot and self.one_shot.to_json(),
            "retrieval": self.retrieval and self.retrieval.to_json(),
            **self.details,
            "notes": self.notes,
        }

    to_json = to_dict

    def text(self) -> str:
        """Return ``str(evaluation)``; deprecated."""
        return str(self)

    def __str__(self) -> str:
        lines: list[str] = []
        section = ""
        for metric in self.metrics():
            if metric.section != section:
                section = metric.section
                lines.append(section)
            lines.append(f"  {metric}")
        return "\n".join(lines)

    def metrics(self) -> Iterator[Metric]:
        """Yield all figures in the order in which text, report and card print them."""
        if self.verification is not None:
            yield from _verification(self.verification)
        if (o := self.one_shot) is not None:
            trials = "queries" if self.protocol == "omniglot-runs" else "episodes"
            yield Metric(
                "one_shot",
                "one-shot",
                f"{o.ways}-way {o.shots}-shot accuracy",
                o.accuracy,
                o.ci,
                f"{o.episodes:,} {trials}",
            )
        if (r := self.retrieval) is not None:
            queries = f"{r.queries:,} queries"
            for k, recall in r.recall_at.items():
                yield Metric("retrieval", "retrieval", f"recall at {k}", recall, r.recall_at_ci[k], queries)
            yield Metric("retrieval", "retrieval", "MAP at R", r.map_at_r, r.map_at_r_ci, queries)
        yield from self._detailed()

    def _detailed(self) -> Iterator[Metric]:
        """Yield the figures that only some protocols have."""
        if (s := self.details.get("open_set")) is not None:
            section = (
                f"open set: {s['labels']} labels enrolled, at the threshold for a FPIR of {s['target']:g}"
            )
            for name, rate, count in (
                ("FPIR: unknown identified", "fpir", "n_strangers"),
                ("FNIR: enrolled not recognized", "fnir", "n_enrolled"),
            ):
                yield Metric("open_set", section, name, s[rate], s[f"{rate}_ci"], f"{s[count]:,} probes")
        for count, s in self.details.get("references", {}).items():
            section = f"{count} references, at the threshold stored for them"
            supported = "" if s["supported"] else "not supported"
            yield Metric("references", section, "equal error rate", s["eer"], s["eer_ci"])
            yield Metric("references", section, "FAR", s["far"], s["far_ci"], supported)
            yield Metric("references", section, "FRR", s["frr"], s["frr_ci"], supported)
        if (s := self.details.get("relations")) is not None:
            yield Metric(
                "relations", "relations", "accuracy", s["accuracy"], s["ci"], f"{s['pairs']:,} pairs"
            )
        if (s := self.details.get("lfw")) is not None:
            if "folds" in s:
                error = f"standard error {s['standard_error']:.4f}"
                yield Metric("lfw", f"LFW, {len(s['folds'])} folds", "accuracy", s["accuracy"], None, error)
            else:
                yield Metric("lfw", "LFW, accuracy at the stored threshold", "accuracy", s["accuracy"])
        for key, value in self.details.get("untouched", {}).items():
            yield Metric("untouched", "before training", _BASELINE[key], value)


def _verification(v: VerificationResult) -> Iterator[Metric]:
    """Yield the figures of same-or-different decisions."""
    section = (
        f"verification: {v.n_genuine:,} genuine and {v.n_impostor:,} {_IMPOSTORS[v.impostors]} comparisons"
    )
    yield Metric("verification", section, "equal error rate", v.eer, v.eer_ci)
    yield Metric("verification", section, "area under the ROC curve", v.auc, v.auc_ci)
    yield Metric("verification", section, "FAR at the stored threshold", v.far, v.far_ci)
    yield Metric("verification", section, "FRR at the stored threshold", v.frr, v.frr_ci)
    if v.d_prime is not None:
        yield Metric("verification", section, "d prime", v.d_prime, v.d_prime_ci)
    for far, row in v.tar_at_far.items():
        needed = f"not supported: {impostors_needed(far):,} impostor comparisons are needed"
        yield Metric(
            "verification", section, f"TAR at FAR {far:g}", row.tar, row.ci, "" if row.supported else needed
        )
    if v.cllr is not None and v.min_cllr is not None:
        yield Metric(
            "verification", section, "Cllr", v.cllr, None, f"{v.min_cllr:.4f} with the best calibration"
        )
    if (other := v.parts.get("random")) is not None:
        section = f"verification against {other.n_impostor:,} random impostors"
        yield Metric("verification", section, "equal error rate", other.eer, other.eer_ci)
        yield Metric("verification", section, "FAR at the stored threshold", other.far, other.far_ci)


@dataclass(frozen=True, eq=False)
class EmbeddedSet:
    """Images of an evaluation with their embeddings.

    Args:
        images: Readable images.
        labels: Their classes, shape ``(n,)``.
        forgery: bool ``(n,)``, True where an image imitates its class.
        embeddings: Shape ``(n, d)``.
        seen: bool ``(n,)``, True where training saw the same pixels.
        used_for_threshold: bool ``(n,)``, True where the threshold was chosen on the same pixels.
        unreadable: One sentence per image left out.
        kept: Indices of the readable images in the data.
        hash_limitation: Reason why images seen in training may not be recognized; None without one.
    """

    images: Sequence[ImageSource]
    labels: np.ndarray[Any, Any]
    forgery: np.ndarray[Any, Any]
    embeddings: Floats
    seen: np.ndarray[Any, Any]
    used_for_threshold: np.ndarray[Any, Any]
    unreadable: list[str]
    kept: np.ndarray[Any, Any]
    hash_limitation: str | None

    def details(self) -> dict[str, Any]:
        """Return the names of images seen in training, under their JSON key."""
        names = [source_name(image) for image, seen in zip(self.images, self.seen, strict=True) if seen]
        return {"seen_in_training": names} if names else {}

    def notes(self) -> list[Note]:
        """Return the notes on these images."""
        found = []
        if names := self.details().get("seen_in_training"):
            found.append(
                Note(
                    SEEN_IN_TRAINING,
                    f"{len(names)} of {len(self.seen)} images were seen in training ({some(names)}): these"
                    " figures flatter the model; evaluate on others",
                )
            )
        if self.hash_limitation is not None:
            found.append(Note("hash-limitation", self.hash_limitation))
        if (count := int(self.used_for_threshold.sum())) > 0:
            found.append(
                Note(
                    USED_FOR_THRESHOLD,
                    f"the threshold was chosen on {count} of these {len(self.seen)} images, so its"
                    " error rates are too optimistic here; evaluate on others",
                )
            )
        if self.unreadable:
            images = "image" if len(self.unreadable) == 1 else "images"
            text = f"{len(self.unreadable)} unreadable {images} left out: {some(self.unreadable)}"
            found.append(Note("unreadable", text))
        return found
