"""`Evaluation`: the metrics of a model on a data set, as JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ..data.images import ImageSource, source_name
from ..errors import SettingError, many, some
from ..metrics.bootstrap import Interval
from ..metrics.comparisons import Comparisons, Floats
from ..metrics.few_shot import OneShot
from ..metrics.retrieval import Retrieval
from ..utils.notes import Note
from .thresholds import impostors_needed
from .verification import VerificationResult

if TYPE_CHECKING:
    from pandas import DataFrame

SEEN_IN_TRAINING, USED_FOR_THRESHOLD = "seen-in-training", "used-for-threshold"
NAMES = {
    "eer": "equal error rate",
    "auc": "area under the ROC curve",
    "far": "false accept rate (FAR)",
    "frr": "false reject rate (FRR)",
    "d_prime": "d'",
    "cllr": "log likelihood ratio cost (Cllr)",
    "one_shot": "one-shot accuracy",
    "recall_at_1": "recall at 1",
    "map_at_r": "MAP at R",
    "fpir": "FPIR: unknown identified",
    "fnir": "FNIR: enrolled not recognized",
}
# Figures of `Evaluation.summary` in the order of their lines, and their names there.
_PLAIN = {
    "lfw.accuracy": "LFW accuracy",
    "relations.accuracy": "relations that are right",
    "verification.far": "different pairs accepted as the same",
    "verification.frr": "same pairs rejected as different",
    "verification.eer": "equal error rate, of both",
    "one_shot.accuracy": "",
    "retrieval.recall_at_1": "nearest image is of the same class",
}
_LINES = 5
_COLUMNS = ["section", "name", "value", "low", "high", "better", "unit", "remark", "supported"]
_LOWER = {"eer", "far", "frr", "cllr", "fpir", "fnir"}
_UNITS = {"d_prime": " standard deviations", "cllr": " bits"}
_IMPOSTORS = {"all": "impostor", "skilled": "skilled-forgery", "random": "random-impostor"}
_STORED = "at the stored threshold"


def number(value: float | None) -> str:
    """Format a figure with four decimals, or with two digits if it is closer to 0."""
    if value is None:
        return "none"
    return f"{value:.2g}" if 0 < value < 0.001 else f"{value:.4f}"


def between(ci: Sequence[float] | None) -> str:
    """Format an interval as text."""
    return "no interval" if ci is None else f"{number(ci[0])} to {number(ci[1])}"


class Metric(NamedTuple):
    """Row of the table of metrics that the terminal, the report and the model card print."""

    key: str  # path of the figure in `Evaluation.to_dict`, such as ``verification.eer``
    section: str  # heading that the row belongs under
    name: str
    value: float | None  # a fraction of 1 unless it has a `unit`; None where undefined
    ci: Interval | Sequence[float] | None = None  # 95 % interval
    remark: str = ""  # conditions, such as the number of episodes
    supported: bool = True  # False if the comparisons are too few for this rate (rule of 30)

    @property
    def better(self) -> Literal["higher", "lower"]:
        """Direction in which the metric improves."""
        return "lower" if self.key.rpartition(".")[2] in _LOWER else "higher"

    @property
    def unit(self) -> str:
        """Unit with a space before it; empty for fractions of 1."""
        return _UNITS.get(self.key.rpartition(".")[2], "")

    def cells(self) -> list[str]:
        """Return name, value, interval, better direction and remark as text."""
        return [self.name, number(self.value) + self.unit, between(self.ci), self.better, self.remark]

    def __str__(self) -> str:
        ends = "" if self.ci is None else f"  [{number(self.ci[0])}, {number(self.ci[1])}]"
        remark = f"  ({self.remark})" if self.remark else ""
        return f"{self.name:<32} {number(self.value)}{self.unit}{ends}{remark}"


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

    def to_frame(self) -> DataFrame:
        """Return the metrics as a pandas DataFrame, one row for each of `metrics`.

        The index is the key, such as ``verification.eer``. The columns are section, name, value, low and high
        (the 95 % interval), better (the direction in which the metric improves), unit, remark and supported.

        Raises:
            SettingError: If pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ModuleNotFoundError:
            raise SettingError("to_frame needs pandas: pip install pandas") from None
        rows = {}
        for row in self.metrics():
            low, high = row.ci or (None, None)
            more = {"low": low, "high": high, "better": row.better, "unit": row.unit.strip()}
            rows[row.key] = row._asdict() | more
        frame = DataFrame.from_dict(rows, orient="index")[_COLUMNS]
        return frame.astype({"value": float, "low": float, "high": float})

    def headline(self) -> dict[str, Any]:
        """Return the main figures that need no threshold, under their JSON keys."""
        found: dict[str, Any] = {}
        if self.verification is not None:
            found["eer"] = self.verification.eer
        if self.one_shot is not None:
            found["one_shot"] = self.one_shot.accuracy
        if self.retrieval is not None:
            found["recall_at_1"] = self.retrieval.recall_at[1]
        return found

    def __str__(self) -> str:
        lines: list[str] = []
        for section, rows in groupby(self.metrics(), attrgetter("section")):
            lines += [section, *(f"  {row}" for row in rows)]
        return "\n".join(lines)

    def summary(self) -> str:
        """Return the main figures in plain words, at most five lines with 95 % intervals."""
        rows = {row.key: row for row in self.metrics()}
        forgeries = self.verification is not None and self.verification.impostors == "skilled"
        lines: list[str] = []
        for key, name in _PLAIN.items():
            if (row := rows.get(key)) is None or row.value is None or len(lines) == _LINES:
                continue
            if forgeries and key == "verification.far":
                name = "forgeries accepted as the same"
            ends = "" if row.ci is None else f"  [{row.ci[0]:.1%} to {row.ci[1]:.1%}]"
            lines.append(f"{name or row.name:<36} {row.value:>6.1%}{ends}")
        return "\n".join(lines)

    def metrics(self) -> list[Metric]:
        """Return all figures, one row each, in the order in which they are printed."""
        rows = [] if self.verification is None else _verification(self.verification)
        if (o := self.one_shot) is not None:
            trials = f"{o.episodes:,} episodes"
            if runs := self.details.get("runs"):
                trials = f"{o.episodes:,} queries, {_spread(runs, 'runs')}"
            name, remark = f"{o.ways}-way {o.shots}-shot accuracy", f"{trials}, chance {1 / o.ways:.2g}"
            rows.append(Metric("one_shot.accuracy", "one-shot", name, o.accuracy, o.ci, remark))
        if (r := self.retrieval) is not None:
            keys = [*(f"recall_at_{k}" for k in r.recall_at), "map_at_r"]
            rows += _rows("retrieval", "retrieval", r.to_json(), *keys, remark=f"{r.queries:,} queries")
        return rows + self._detailed()

    def _detailed(self) -> list[Metric]:
        """Return the figures that only some protocols have."""
        rows: list[Metric] = []
        if (s := self.details.get("open_set")) is not None:
            labels = many(s["labels"], "label")
            section = f"open set: {labels} enrolled, at the threshold for a FPIR of {s['target']:g}"
            for key, count in (("fpir", "n_strangers"), ("fnir", "n_enrolled")):
                rows += _rows("open_set", section, s, key, remark=f"{s[count]:,} probes")
        for count, s in self.details.get("references", {}).items():
            group, distance = f"references.{count}", "scaled mean" if s["scaled"] else "nearest"
            section = f"{many(int(count), 'reference')}, {distance} distance, {many(s['n_classes'], 'class')}"
            remark = f"{_STORED}{'' if s['supported'] else ', not supported'}"
            rows += _rows(group, section, s, "eer")
            rows += _rows(group, section, s, "far", "frr", remark=remark, supported=s["supported"])
        if (s := self.details.get("relations")) is not None:
            remark = many(s["pairs"], "pair")
            rows.append(Metric("relations.accuracy", "relations", "accuracy", s["accuracy"], s["ci"], remark))
        if (s := self.details.get("lfw")) is not None:
            remark = _STORED
            if "folds" in s:
                remark = f"{_spread(s['folds'], 'folds')}, standard error {s['standard_error']:.4f}"
            rows.append(Metric("lfw.accuracy", "LFW", "LFW accuracy", s["accuracy"], None, remark))
        before = self.details.get("untouched", {})
        return rows + _rows("untouched", "before training", before, *before)


def _rows(
    group: str, section: str, figures: Mapping[str, Any], *keys: str, remark: str = "", supported: bool = True
) -> list[Metric]:
    """Return the rows of figures whose intervals have the keys ``KEY_ci``."""
    return [
        Metric(
            f"{group}.{key}",
            section,
            NAMES.get(key, key.replace("_", " ")),
            figures[key],
            figures.get(f"{key}_ci"),
            remark,
            supported,
        )
        for key in keys
    ]


def _spread(values: Sequence[float], name: str) -> str:
    return f"{len(values)} {name} from {number(min(values))} to {number(max(values))}"


def _verification(v: VerificationResult) -> list[Metric]:
    """Return the figures of same-or-different decisions."""
    group = "verification"
    section = f"{group}: {v.n_genuine:,} genuine and {v.n_impostor:,} {_IMPOSTORS[v.impostors]} comparisons"
    rows = _rows(group, section, vars(v), "eer", "auc")
    if v.threshold is not None:
        rows += _rows(group, section, vars(v), "far", "frr", remark=_STORED)
    for far, row in v.tar_at_far.items():
        needed = f"not supported: {impostors_needed(far):,} impostors are needed"
        key, remark = f"{group}.tar_at_far.{far:g}.tar", "" if row.supported else needed
        rows.append(Metric(key, section, f"TAR at FAR {far:g}", row.tar, row.ci, remark, row.supported))
    if v.d_prime is not None:
        rows += _rows(group, section, vars(v), "d_prime")
    if v.cllr is not None and v.min_cllr is not None:
        remark = f"{number(v.min_cllr)} with the best calibration"
        rows += _rows(group, section, vars(v), "cllr", remark=remark)
    if (other := v.parts.get("random")) is not None:
        section = f"verification against {other.n_impostor:,} random impostors"
        rows += _rows(f"{group}.random", section, vars(other), "eer", "auc")
        if v.threshold is not None:
            rows += _rows(f"{group}.random", section, vars(other), "far", remark=_STORED)
    return rows


@dataclass(frozen=True, eq=False)
class EmbeddedSet:
    """Readable images of an evaluation with their embeddings."""

    images: Sequence[ImageSource]
    labels: np.ndarray[Any, Any]  # (n,)
    forgery: np.ndarray[Any, Any]  # bool (n,), True where an image imitates its class
    embeddings: Floats  # (n, d)
    seen: np.ndarray[Any, Any]  # bool (n,), True where training saw the same pixels
    used_for_threshold: np.ndarray[Any, Any]  # bool (n,), True where the threshold was chosen on the pixels
    unreadable: list[str]  # a sentence per image left out
    kept: np.ndarray[Any, Any]  # indices of the readable images in the data
    hash_limitation: str | None  # reason why images seen in training may not be recognized

    def details(self) -> dict[str, Any]:
        """Return the names of images seen in training, under their JSON key."""
        names = [source_name(image) for image, seen in zip(self.images, self.seen, strict=True) if seen]
        return {"seen_in_training": names} if names else {}

    def notes(self) -> list[Note]:
        """Return the notes on these images."""
        found = []
        if names := self.details().get("seen_in_training"):
            text = f"{len(names)} of {len(self.seen)} images were seen in training ({some(names)})"
            found.append(
                Note(SEEN_IN_TRAINING, f"{text}: these figures flatter the model; evaluate on others")
            )
        if self.hash_limitation is not None:
            found.append(Note("hash-limitation", self.hash_limitation))
        if (count := int(self.used_for_threshold.sum())) > 0:
            text = f"the threshold was chosen on {count} of these {len(self.seen)} images, so its error rates"
            found.append(Note(USED_FOR_THRESHOLD, f"{text} are too optimistic here; evaluate on others"))
        if self.unreadable:
            left_out = many(len(self.unreadable), "unreadable image")
            found.append(Note("unreadable", f"{left_out} left out: {some(self.unreadable)}"))
        return found
