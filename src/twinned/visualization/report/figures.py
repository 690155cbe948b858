"""Sections of metrics: summary, curves, rates, identification. A section without data is None."""

from __future__ import annotations

from collections.abc import Iterable

from ... import visualization
from ...evaluation.results import SEEN_IN_TRAINING, USED_FOR_THRESHOLD, Evaluation
from ...evaluation.thresholds import impostors_needed
from ...evaluation.verification import reliability
from ...inference.model import Model
from ...metrics.bootstrap import Interval
from .html import Html, between, figure, number, one_in, table, tag
from .provenance import known_classes

_CHECKED = (SEEN_IN_TRAINING, USED_FOR_THRESHOLD, "shared-class-names")  # notes that the checks repeat


def glance(model: Model, found: Evaluation) -> list[Html]:
    """Return a summary: figures as text and as tiles, and checks of their validity."""
    parts = []
    v = found.verification
    if v is not None and v.far is not None and v.frr is not None:
        kind = "forgeries" if v.impostors == "skilled" else "different pairs"
        parts.append(
            tag(
                "p",
                "At its stored threshold the model accepts ",
                tag("b", f"{one_in(v.far)} of the {kind}"),
                " as the same, and rejects ",
                tag("b", f"{one_in(v.frr)} of the same pairs"),
                f". Measured on {v.n_genuine + v.n_impostor:,} comparisons"
                + (f" of {v.n_classes:,} classes." if found.protocol == "classes" else "."),
                class_="lead",
            )
        )
        if (random := v.parts.get("random")) is not None and random.far is not None:
            parts.append(
                tag(
                    "p",
                    "Of the pairs of two different classes, without forgeries, it accepts ",
                    tag("b", one_in(random.far)),
                    f" as the same ({random.n_impostor:,} comparisons).",
                )
            )
    parts.append(tag("div", *_tiles(found), class_="tiles"))
    parts.append(tag("ul", *_checks(model, found), class_="checks"))
    return parts


def _tiles(found: Evaluation) -> list[Html]:
    tiles = []
    if (v := found.verification) is not None:
        tiles += [
            _tile("Equal error rate", v.eer, v.eer_ci),
            _tile("False accept rate at the stored threshold", v.far, v.far_ci),
            _tile("False reject rate at the stored threshold", v.frr, v.frr_ci),
            _tile("Area under the ROC curve", v.auc, v.auc_ci),
        ]
    if "lfw" in found.details:
        lfw = found.details["lfw"]
        folds, error = lfw.get("folds", []), lfw.get("standard_error")
        of = f"{len(folds)} folds, standard error {error:.4f}" if folds else "at the stored threshold"
        tiles.append(_tile(f"LFW accuracy, {of}", lfw["accuracy"], None))
    if (o := found.one_shot) is not None:
        tiles.append(
            _tile(f"{o.ways}-way {o.shots}-shot accuracy (chance: {1 / o.ways:.2g})", o.accuracy, o.ci)
        )
    if (r := found.retrieval) is not None:
        name = "Recall at 1: the nearest image has the same class"
        tiles.append(_tile(name, r.recall_at.get(1), r.recall_at_ci.get(1)))
    return tiles


def _tile(name: str, value: float | None, ci: Interval | None) -> Html:
    track = None
    if value is not None:
        low, high = ci or (value, value)
        track = tag(
            "span",
            tag("i", style=f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"),
            tag("b", style=f"left:{100 * value:.2f}%"),
            class_="track",
        )
    return tag(
        "div",
        tag("span", name, class_="name"),
        tag("span", number(value), class_="value"),
        track,
        tag("span", f"95 % interval {between(ci)}" if ci else between(ci), class_="ends"),
        class_="tile",
    )


def _checks(model: Model, found: Evaluation) -> Iterable[Html]:
    """Yield checks of the validity of the figures."""
    fit, data, v = model.manifest.calibration, found.data, found.verification
    if data is not None and not model.record.image_hashes:
        yield _check(None, "The training images are not recorded, so leakage cannot be ruled out.")
    elif data is not None and (data.hash_limitation is None or data.seen.any()):
        seen, n = int(data.seen.sum()), len(data.seen)
        yield _check(
            seen == 0,
            f"None of the {n:,} images was in training, by SHA-256 of their pixels."
            if seen == 0
            else f"{seen:,} of the {n:,} images were in training. The figures are too optimistic.",
        )
    if v is not None:
        unseen, classes = model.manifest.chosen_on
        if data is not None and data.used_for_threshold.any():
            yield _check(
                False,
                f"The threshold {fit.threshold:.4g} was chosen on {data.used_for_threshold.sum():,} of these"
                f" {len(data.seen):,} images: its error rates are too optimistic here.",
            )
        else:
            yield _check(
                unseen,
                f"The threshold {fit.threshold:.4g} was chosen before, on {fit.n_classes:,} {classes};"
                + (" error rates are too optimistic." if unseen is False else " it is unchanged."),
            )
        if missing := model.manifest.unmeasured:
            yield _check(
                False,
                f"When the threshold was chosen, {missing}. Expect more false accepts of them than of images"
                " of other classes.",
            )
        if known := known_classes(model, data, "held_out"):
            yield _check(False, f"The threshold was chosen on {len(known):,} classes with the same names.")
        low = min((far for far, row in v.tar_at_far.items() if row.supported), default=None)
        yield _check(
            low is not None and low <= 0.01,
            f"{v.n_impostor:,} impostor comparisons support false accept rates down to"
            f" {min(30 / max(v.n_impostor, 1), 1):.2g} (rule of 30); lower rates are marked.",
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
    calibration = model.manifest.calibration
    pictures = [
        figure(
            visualization.roc(v),
            "Accepted same pairs, against accepted different pairs. Higher is better.",
            name="roc",
        ),
        figure(
            visualization.det(v),
            "Both error rates, on scales that spread small rates. Lower is better; dotted: equal rates.",
            name="det",
        ),
        figure(
            visualization.distances(comparisons, calibration.threshold, ax=visualization.plain(4.6, 4.1)),
            "Distances of same and different pairs. Less overlap is better; filled: wrong decisions.",
            name="distances",
        ),
        figure(
            visualization.reliability(
                reliability(comparisons, calibration), ax=visualization.plain(4.6, 4.1)
            ),
            f"Observed fraction of same pairs for each predicted probability, at a prior of"
            f" {calibration.prior:g}; dotted: perfect calibration. Lines: 95 % intervals, by resampling"
            " classes. Bars: number of comparisons, logarithmic.",
            name="reliability",
        ),
    ]
    cost = None
    if v.cllr is not None and v.min_cllr is not None:
        cost = tag(
            "p",
            f"The log likelihood ratio cost (Cllr) is {v.cllr:.3f} bits per comparison; 0 is perfect, 1 is"
            f" uninformative. Of it, {v.min_cllr:.3f} is due to discrimination (min Cllr) and"
            f" {max(v.cllr - v.min_cllr, 0):.3f} to calibration.",
            class_="quiet",
        )
    return [tag("div", *pictures, class_="pictures"), *([cost] if cost else [])]


def rates(found: Evaluation) -> list[Html] | None:
    """Return true accept rates at false accept rates, by kind of impostor, and for several references."""
    v = found.verification
    if v is None or not v.tar_at_far:
        return None
    parts: list[Html] = []
    if v.d_prime is not None:
        ends = "" if v.d_prime_ci is None else "; 95 % interval {:.2f} to {:.2f}".format(*v.d_prime_ci)
        text = f"Genuine and impostor distances have means that differ by {v.d_prime:.2f} standard deviations"
        parts.append(tag("p", f"{text} (d'{ends}).", class_="quiet"))
    if v.parts:
        names = {"random": "random impostors", "skilled": "skilled forgeries"}
        parts.append(
            table(
                ["against", "comparisons", "EER", "95 % interval", "FAR", "FRR", "AUC"],
                [
                    [
                        names[kind],
                        f"{part.n_impostor:,}",
                        number(part.eer),
                        between(part.eer_ci),
                        number(part.far),
                        number(part.frr),
                        number(part.auc),
                    ]
                    for kind, part in v.parts.items()
                ],
            )
        )
    if several := found.details.get("references"):
        parts.append(
            table(
                [
                    "references",
                    "classes",
                    "EER",
                    "95 % interval",
                    "FAR",
                    "FRR",
                    "supported",
                    "distance",
                ],
                [
                    [
                        count,
                        row["n_classes"],
                        number(row["eer"]),
                        between(row["eer_ci"]),
                        number(row["far"]),
                        number(row["frr"]),
                        tag("span", "yes", class_="fine")
                        if row["supported"]
                        else tag("span", "no", class_="mark"),
                        "mean, divided by their spread" if row["scaled"] else "nearest",
                    ]
                    for count, row in several.items()
                ],
            )
        )
    parts.append(
        table(
            ["false accept rate", "true accept rate", "95 % interval", "impostors required", "supported"],
            [
                [
                    f"{far:g}",
                    number(row.tar),
                    between(row.ci),
                    f"{impostors_needed(far):,}",
                    tag("span", "yes", class_="fine")
                    if row.supported
                    else tag("span", f"no, there are {v.n_impostor:,}", class_="mark"),
                ]
                for far, row in v.tar_at_far.items()
            ],
        )
    )
    return parts


def recognition(model: Model, found: Evaluation) -> list[Html] | None:
    """Return one-shot accuracy, retrieval, open-set identification and figures of single protocols."""
    rows: list[list[object]] = [
        [metric.name, number(metric.value), between(metric.ci), metric.remark]
        for metric in found.metrics()
        if metric.group in ("one_shot", "retrieval", "open_set")
    ]
    unknown = found.details.get("open_set")
    for name, values in (
        ("run", found.details.get("runs")),
        ("fold", found.details.get("lfw", {}).get("folds")),
    ):
        if values:
            spread = f"{number(min(values))} to {number(max(values))}"
            rows.append([f"worst to best {name}", spread, "", f"{len(values)} {name}s"])
    if not rows:
        return None
    parts = [table(["figure", "value", "95 % interval", "from"], rows)]
    if unknown is not None:
        parts.append(
            tag(
                "p",
                "Open set: half of the classes are enrolled, with half of their images (at most four). All"
                " other images are probes, at the threshold for a gallery of this size and a FPIR of"
                f" {unknown['target']:g}. A label is represented by"
                f" {'the mean of its images' if model.prototype else 'its nearest image'}.",
                class_="quiet",
            )
        )
    return parts
