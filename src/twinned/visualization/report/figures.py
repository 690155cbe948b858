"""What was measured: at a glance, as curves, as rates, for recognition. None where nothing was."""

from __future__ import annotations

from collections.abc import Iterable

from ... import visualization
from ...evaluation.results import SEEN_IN_TRAINING, USED_FOR_THRESHOLD, Evaluation
from ...evaluation.thresholds import impostors_needed
from ...evaluation.verification import reliability
from ...inference.model import Model
from ...metrics.bootstrap import Interval
from .html import (
    Html,
    between,
    figure,
    number,
    one_in,
    table,
    tag,
)
from .provenance import known_classes

_CHECKED = (SEEN_IN_TRAINING, USED_FOR_THRESHOLD, "shared-class-names")  # notes that the checks repeat


def glance(model: Model, found: Evaluation) -> list[Html]:
    """The figures in words and in tiles, and whether they can be trusted."""
    parts = []
    v = found.verification
    if v is not None and v.far is not None and v.frr is not None:
        kind = "forgeries" if v.impostors == "skilled" else "pairs that differ"
        parts.append(
            tag(
                "p",
                "At its stored threshold the model takes ",
                tag("b", f"{one_in(v.far)} of the {kind}"),
                " for the same, and misses ",
                tag("b", f"{one_in(v.frr)} of the pairs"),
                f" that are the same. Measured on {v.n_genuine + v.n_impostor:,} comparisons"
                + (f" of {v.n_classes:,} classes." if found.protocol == "classes" else "."),
                class_="lead",
            )
        )
        if (strangers := v.parts.get("random")) is not None and strangers.far is not None:
            parts.append(
                tag(
                    "p",
                    "Of the pairs of two different classes, no forgery among them, it takes ",
                    tag("b", one_in(strangers.far)),
                    f" for the same ({strangers.n_impostor:,} comparisons).",
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
        of = f"{len(folds)} folds, +- a standard error of {error:.4f}" if folds else "at the stored threshold"
        tiles.append(_tile(f"LFW accuracy, {of}", lfw["accuracy"], None))
    if (o := found.one_shot) is not None:
        tiles.append(
            _tile(f"{o.ways}-way {o.shots}-shot accuracy (by chance {1 / o.ways:.2g})", o.accuracy, o.ci)
        )
    if (r := found.retrieval) is not None:
        name = "Recall at 1: the nearest image is of the right class"
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
    """What a sceptic asks first, with the answer."""
    fit, data, v = model.manifest.calibration, found.data, found.verification
    if data is not None and not model.record.image_hashes:
        yield _check(None, "What the model was trained on is not recorded, so a leak cannot be ruled out.")
    elif data is not None and (data.hash_limitation is None or data.seen.any()):
        seen, n = int(data.seen.sum()), len(data.seen)
        yield _check(
            seen == 0,
            f"None of the {n:,} images was in training: each one's pixels were compared by SHA-256."
            if seen == 0
            else f"{seen:,} of the {n:,} images were in training. These figures flatter the model.",
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
                f"The threshold {fit.threshold:.4g} was fixed before, on {fit.n_classes:,} {classes};"
                + (" too hopeful." if unseen is False else " it was not moved."),
            )
        if missing := model.manifest.unmeasured:
            yield _check(
                False,
                f"When the threshold was chosen, {missing}. Expect more false accepts of them than of images"
                " of other classes.",
            )
        if known := known_classes(model, data, "held_out"):
            yield _check(False, f"{len(known):,} classes of the same name helped to choose the threshold.")
        low = min((far for far, row in v.tar_at_far.items() if row.supported), default=None)
        yield _check(
            low is not None and low <= 0.01,
            f"{v.n_impostor:,} impostor comparisons support false accept rates down to"
            f" {min(30 / max(v.n_impostor, 1), 1):.2g} (rule of 30); what lies below is marked.",
        )
    for note in found.remarks:
        if data is None or note.code not in _CHECKED:
            yield _check(None, note.text)


def _check(good: bool | None, sentence: str) -> Html:
    mark, kind = {True: ("✓", "good"), False: ("!", "bad"), None: ("·", "open")}[good]
    return tag("li", tag("b", mark), tag("span", sentence), class_=kind)


def curves(model: Model, found: Evaluation) -> list[Html] | None:
    """ROC, DET, distances and reliability."""
    v, comparisons = found.verification, found.comparisons
    if v is None or v.roc is None or comparisons is None:
        return None
    calibration = model.manifest.calibration
    pictures = [
        figure(
            visualization.roc(v),
            "Pairs of the same accepted, against different ones accepted by mistake. Higher is better.",
            name="roc",
        ),
        figure(
            visualization.det(v),
            "Both errors on scales that spread small rates. Lower is better; dotted: both equal.",
            name="det",
        ),
        figure(
            visualization.distances(comparisons, calibration.threshold, ax=visualization.plain(4.6, 4.1)),
            "How far apart pairs are. The closer to two separate hills, the better; filled: decided wrongly.",
            name="distances",
        ),
        figure(
            visualization.reliability(
                reliability(comparisons, calibration), ax=visualization.plain(4.6, 4.1)
            ),
            f"Does 0.8 come true eight times in ten? On the dotted line it does, at a prior of"
            f" {calibration.prior:g}. Through each point: its interval, by resampling classes. Bars:"
            " comparisons, logarithmic.",
            name="reliability",
        ),
    ]
    cost = None
    if v.cllr is not None and v.min_cllr is not None:
        cost = tag(
            "p",
            f"The probabilities cost {v.cllr:.3f} bits a comparison (Cllr; 0 knows all, 1 knows nothing)."
            f" Of these, {v.min_cllr:.3f} lie in the distances themselves and"
            f" {max(v.cllr - v.min_cllr, 0):.3f} in the calibration.",
            class_="quiet",
        )
    return [tag("div", *pictures, class_="pictures"), *([cost] if cost else [])]


def rates(found: Evaluation) -> list[Html] | None:
    """True accept rates at false accept rates, forgeries apart from strangers, sets of references."""
    v = found.verification
    if v is None or not v.tar_at_far:
        return None
    parts: list[Html] = []
    if v.d_prime is not None:
        ends = "" if v.d_prime_ci is None else "; 95 % interval {:.2f} to {:.2f}".format(*v.d_prime_ci)
        said = f"The mean distances, genuine and impostor, lie {v.d_prime:.2f} standard deviations apart"
        parts.append(tag("p", f"{said} (d'{ends}).", class_="quiet"))
    if v.parts:
        names = {"random": "strangers", "skilled": "skilled forgeries"}
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
                        "mean, by their spread" if row["scaled"] else "to the nearest",
                    ]
                    for count, row in several.items()
                ],
            )
        )
    parts.append(
        table(
            ["false accept rate", "true accept rate", "95 % interval", "impostors it takes", "supported"],
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
    """One-shot accuracy, retrieval, open-set identification, and what only one protocol has."""
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
            rows.append([f"from the worst {name} to the best", spread, "", f"{len(values)} {name}s"])
    if not rows:
        return None
    parts = [table(["figure", "value", "95 % interval", "from"], rows)]
    if unknown is not None:
        parts.append(
            tag(
                "p",
                "Open set: half of the classes are enrolled, with half of their images (at most four); all"
                " other images are held up to that gallery, at the threshold stored for one of its size and a"
                f" FPIR of {unknown['target']:g}. A label is told by"
                f" {'the mean of its images' if model.prototype else 'the nearest of its images'}.",
                class_="quiet",
            )
        )
    return parts
