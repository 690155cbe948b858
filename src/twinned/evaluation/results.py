"""What a measurement of a model found, under its JSON keys and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.images import ImageSource, source_name
from ..errors import some
from ..metrics.comparisons import Comparisons, Floats
from ..metrics.few_shot import OneShot
from ..metrics.retrieval import Retrieval
from .thresholds import impostors_needed
from .verification import VerificationResult


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
            if v.d_prime is not None:
                lines.append(f"  {'d prime':<28} {_figure(v.d_prime, v.d_prime_ci)}")
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
        forgery: True where an image imitates its class, likewise.
        embeddings: Shape ``(n, d)``.
        seen: True where training saw the very same picture, shape ``(n,)``.
        chose: True where the threshold was chosen on it, likewise.
        unreadable: One sentence for each image left out.
        kept: Their places in the data.
        unmatched: What must be said where images that training saw cannot be recognised.
    """

    images: Sequence[ImageSource]
    labels: np.ndarray[Any, Any]
    forgery: np.ndarray[Any, Any]
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
                f"{len(names)} of {len(self.seen)} images were seen in training ({some(names)}): these"
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
            images = "image" if len(self.unreadable) == 1 else "images"
            found.append(f"{len(self.unreadable)} unreadable {images} left out: {some(self.unreadable)}")
        return found
