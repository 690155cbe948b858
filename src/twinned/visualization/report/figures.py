"""Sections of metrics: summary, curves, table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

from ... import visualization as plots
from ...errors import many
from ...evaluation.advice import on_evaluation
from ...evaluation.results import SEEN_IN_TRAINING, USED_FOR_THRESHOLD, Evaluation, Metric, between, number
from ...evaluation.verification import reliability
from ...inference.model import Model
from .html import Html, figure, one_in, table, tag
from .provenance import known_classes

_CHECKED = (SEEN_IN_TRAINING, USED_FOR_THRESHOLD, "shared-class-names")  # notes that the checks repeat
_TILES = {
    *(f"verification.{name}" for name in ("eer", "far", "frr", "auc")),
    *("lfw.accuracy", "one_shot.accuracy", "retrieval.recall_at_1"),
}
_CAPTIONS = {
    "roc": "Accepted same pairs, against accepted different pairs. Higher is better.",
    "det": "Both error rates, on scales that spread small rates. Lower is better; dotted: equal rates.",
    "distances": "Distances of same and different pairs. Less overlap is better; filled: wrong decisions.",
    "reliability": "Observed fraction of same pairs for each predicted probability, at a prior of {:g};"
    " dotted: perfect calibration. Lines: 95 % intervals, by resampling classes. Bars: number of comparisons,"
    " logarithmic.",
}


def glance(model: Model, found: Evaluation) -> list[Html]:
    """Return a summary: figures as text and as tiles, and checks of their validity."""
    parts = []
    v = found.verification
    if v is not None and v.far is not None and v.frr is not None:
        kind = "forgeries" if v.impostors == "skilled" else "different pairs"
        far, frr = tag("b", f"{one_in(v.far)} of the {kind}"), tag("b", f"{one_in(v.frr)} of the same pairs")
        text = f"At its stored threshold the model accepts {far} as the same, and rejects {frr}. Measured on"
        classes = f" of {v.n_classes:,} classes" if found.protocol == "classes" else ""
        count = f"{v.n_genuine + v.n_impostor:,} comparisons{classes}"
        parts.append(tag("p", Html(f"{text} {count}."), class_="lead"))
        if (random := v.parts.get("random")) is not None and random.far is not None:
            start = "Of the pairs of two different classes, without forgeries, it accepts "
            end = f" as the same ({random.n_impostor:,} comparisons)."
            parts.append(tag("p", start, tag("b", one_in(random.far)), end))
    tiles = (_tile(metric) for metric in found.metrics() if metric.key in _TILES)
    return [*parts, tag("div", *tiles, class_="tiles"), tag("ul", *_checks(model, found), class_="checks")]


def advice(model: Model, found: Evaluation) -> list[Html] | None:
    """Return what the figures mean and what to do next."""
    if found.verification is None:
        return None
    seen = 0 if found.data is None else int(found.data.seen.sum())
    open_set = found.details.get("open_set")
    steps = on_evaluation(found.verification, model.manifest.calibration, seen=seen, open_set=open_set)
    items = [tag("li", *_with_commands(step), ".") for step in steps]
    return [tag("ol", *items, class_="next")] if items else None


def _with_commands(sentence: str) -> list[str]:
    """Split a sentence, with its commands as code."""
    parts = re.split(r"(twinned [a-z]+(?: -o NEW| [A-Z]+)*)", sentence)
    return [tag("code", part) if place % 2 else part for place, part in enumerate(parts)]


def _tile(metric: Metric) -> Html:
    name = ", ".join(filter(None, (metric.name, metric.remark)))
    parts = [tag("span", name, class_="name"), tag("span", number(metric.value), class_="value")]
    if metric.value is not None:
        low, high = metric.ci or (metric.value, metric.value)
        interval = tag("i", style=f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%")
        point = tag("b", style=f"left:{100 * metric.value:.2f}%")
        parts.append(tag("span", interval, point, class_="track"))
    ends = f"{metric.better} is better" + (f"; 95 % interval {between(metric.ci)}" if metric.ci else "")
    return tag("div", *parts, tag("span", ends, class_="ends"), class_="tile")


def _checks(model: Model, found: Evaluation) -> Iterable[Html]:
    """Yield checks of the validity of the figures."""
    fit, data, v = model.manifest.calibration, found.data, found.verification
    if data is not None and not model.record.image_hashes:
        yield _check(None, "The training images are not recorded, so leakage cannot be ruled out.")
    elif data is not None and (data.hash_limitation is None or data.seen.any()):
        seen, n = int(data.seen.sum()), len(data.seen)
        text = f"None of the {n:,} images was in training, by SHA-256 of their pixels."
        if seen:
            text = f"{seen:,} of the {n:,} images were in training. The figures are too optimistic."
        yield _check(not seen, text)
    if v is not None:
        good, classes = model.manifest.chosen_on
        text = f"before, on {fit.n_classes:,} {classes};"
        text += " error rates are too optimistic." if good is False else " it is unchanged."
        if data is not None and (used := data.used_for_threshold.sum()):
            images = f"{used:,} of these {len(data.seen):,} images"
            good, text = False, f"on {images}: its error rates are too optimistic here."
        yield _check(good, f"The threshold {fit.threshold:.4g} was chosen {text}")
        if missing := model.manifest.unmeasured:
            text = f"When the threshold was chosen, {missing}. Expect more false accepts of them"
            yield _check(False, f"{text} than of images of other classes.")
        if known := known_classes(model, data, "held_out"):
            count = many(len(known), "class")
            yield _check(False, f"The threshold was chosen on {count} with the same names.")
        lowest = f"{min(30 / max(v.n_impostor, 1), 1):.2g} (rule of 30); lower rates are marked."
        yield _check(
            any(row.supported and far <= 0.01 for far, row in v.tar_at_far.items()),
            f"{v.n_impostor:,} impostor comparisons support false accept rates down to {lowest}",
        )
    for note in found.remarks:
        if data is None or note.code not in _CHECKED:
            yield _check(None, note.text)


def _check(good: bool | None, sentence: str) -> Html:
    mark, kind = {True: ("✓", "good"), False: ("!", "bad"), None: ("·", "open")}[good]
    return tag("li", tag("b", mark), tag("span", sentence), class_=kind)


def curves(model: Model, found: Evaluation) -> list[Html] | None:
    """Return ROC, DET, distances and reliability."""
    v, comparisons = found.verification, found.comparisons
    if v is None or v.roc is None or comparisons is None:
        return None
    fit, one, other = model.manifest.calibration, plots.plain(4.6, 4.1), plots.plain(4.6, 4.1)
    drawn = {
        "roc": plots.roc(v),
        "det": plots.det(v),
        "distances": plots.distances(comparisons, fit.threshold, ax=one),
        "reliability": plots.reliability(reliability(comparisons, fit), ax=other),
    }
    shown = (figure(ax, _CAPTIONS[name].format(fit.prior), name=name) for name, ax in drawn.items())
    return [tag("div", *shown, class_="pictures")]


def metrics(found: Evaluation) -> list[Html]:
    """Return a table of metrics for each section of `Evaluation.metrics`."""
    parts: list[Html] = []
    for section, rows in groupby(found.metrics(), attrgetter("section")):
        cells = []
        for row in rows:
            remark = row.remark and tag("span", row.remark, class_=None if row.supported else "mark")
            cells.append([*row.cells()[:-1], remark])
        head = ["metric", "value", "95 % interval", "better", "remark"]
        parts += [tag("h3", section), table(head, cells)]
    return parts
