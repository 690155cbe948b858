"""Sections on errors and provenance: worst errors and classes, data, threshold, glossary."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import PurePath

import numpy as np

from ...data.images import source_name
from ...evaluation.results import EmbeddedSet, Evaluation, number
from ...evaluation.verification import VerificationResult, class_errors, mistakes
from ...inference.model import Model
from ...metrics.comparisons import Comparisons
from .html import Html, facts, photo, table, tag

_MISTAKES, _OF_A_PAIR, _CLASSES = 6, 2, 10


def worst_pairs(model: Model, found: Evaluation) -> list[Html] | None:
    """Return the most confident errors, as pairs of images."""
    c, data = found.comparisons, found.data
    if c is None or data is None or c.left_image is None or c.right_image is None:
        return None
    wrong = mistakes(c, model.threshold, count=_MISTAKES, each=_OF_A_PAIR)
    text = f"At most {_OF_A_PAIR} of the same two classes are shown. Open a pair to see it side by side."
    parts = [tag("p", text, class_="quiet")]
    for rows, title in (
        (wrong.false_accepts, "False accepts: different, classified as the same"),
        (wrong.false_rejects, "False rejects: the same, classified as different"),
    ):
        pairs = [_pair(model, c, data, int(row), found.protocol) for row in rows]
        shown = tag("div", *pairs, class_="pairs") if pairs else tag("p", "None.", class_="quiet")
        parts += [tag("h3", title), shown]
    return parts


def _pair(model: Model, c: Comparisons, data: EmbeddedSet, row: int, protocol: str) -> Html:
    assert c.left_image is not None
    assert c.right_image is not None
    images = [int(c.left_image[row]), int(c.right_image[row])]
    distance = float(c.distance[row])
    names = [str(data.labels[k]) for k in images] if protocol != "pairs" else []
    labels = " / ".join(dict.fromkeys(names)) + (" (a forgery)" if c.forged[row] else "")
    # The last two parts of a path, so that a report names no other folders of a machine.
    files = ["/".join(PurePath(source_name(data.images[k])).parts[-2:]) for k in images]
    summary = tag(
        "summary",
        tag("div", *(photo(data.images[k], file) for k, file in zip(images, files, strict=True))),
        tag("b", f"P(same) {float(model.probability(distance)):.3f}"),
        f", distance {distance:.4g}",
        tag("span", labels) if labels else None,
        *(tag("code", file) for file in files),
    )
    return tag("details", summary, class_="pair")


def worst_classes(model: Model, found: Evaluation) -> list[Html] | None:
    """Return the classes with the most errors at the stored threshold."""
    c, data = found.comparisons, found.data
    if c is None or data is None or found.protocol != "classes":
        return None
    errors = class_errors(c, model.threshold)
    names = np.unique(data.labels)
    both = np.nan_to_num(errors.frr) + np.nan_to_num(errors.far)
    order = np.argsort(-both, kind="stable")[:_CLASSES]
    if not both[order].any():
        return [tag("p", "No class has an error at the stored threshold.", class_="quiet")]

    def rate(value: float, count: int) -> Html:
        bar = tag("span", class_="bar", style=f"width:{90 * value:.1f}px")
        return tag("span", bar, number(float(value))) if count else tag("span", "no comparison")

    rows = []
    for k in order:
        name, genuine, impostor = names[errors.label[k]], errors.n_genuine[k], errors.n_impostor[k]
        image = photo(data.images[int(np.argmax(data.labels == name))], "", size=96)
        rejects = rate(errors.frr[k], genuine), f"{genuine:,}"
        rows.append([tag("span", image, name), *rejects, rate(errors.far[k], impostor), f"{impostor:,}"])
    text = f"The {len(order)} classes with the most errors, of {len(errors.label):,}."
    if not np.isnan(errors.frr).all():
        median, tenth = map(number, np.nanquantile(errors.frr, [0.5, 0.9]))
        text += f" The median class rejects {median} of its own, the worst tenth {tenth} or more."
    head = ["class", "false rejects", "of", "false accepts", "of"]
    return [table(head, rows), tag("p", text, class_="quiet")]


def known_classes(model: Model, data: EmbeddedSet | None, where: str) -> list[str]:
    """Return the evaluated classes whose names occur in training, or in the data of the threshold."""
    manifest = model.manifest
    names = manifest.classes if where == "training" else manifest.held_out.get("classes", [])
    return sorted(set(names) & set(map(str, data.labels))) if data is not None else []


def provenance(model: Model, found: Evaluation, data: str) -> list[Html]:
    """Return facts on training data, threshold, evaluation data and model files."""
    m = model.manifest
    fit, threshold = m.calibration, f"{m.calibration.threshold:.6g}, {m.distance.replace('_', ' ')} distance"
    if fit.threshold_ci is not None:
        threshold += ", 95 % interval {:.4g} to {:.4g}".format(*fit.threshold_ci)
    shape = "x".join(map(str, model.spec.shape))
    sections: dict[str, _Facts] = {
        "Training data": _training(model),
        "Threshold": [
            ("stored threshold", threshold),
            ("chosen for", "equal error" if fit.far is None else f"a false accept rate of {fit.far:g}"),
            ("classes used", f"{fit.n_classes:,}"),
            ("comparisons used", f"{fit.n_genuine:,} genuine, {fit.n_impostor:,} impostor"),
            ("unseen in training", {True: "yes", False: "NO", None: "not known"}[m.chosen_on[0]]),
            *m.held_out.get("impostors", {}).items(),
            ("supported", "yes" if fit.supported else f"no: requires {fit.impostors_needed:,} impostors"),
        ],
        "Evaluation data": _measured(model, found, data),
        "Model": [
            ("model", tag("code", model.folder.name)),
            ("encoder", f"{m.encoder}, {shape}, {m.embedding_size:,} values"),
            ("SHA-256 of encoder.onnx", tag("code", model.encoder_sha256)),
            ("SHA-256 of head.onnx", tag("code", m.files["head.onnx"]) if m.head else None),
            ("gallery labels", f"the {'mean' if m.prototype else 'nearest'} of their images"),
            ("license of pretrained weights", m.licence),
        ],
    }
    return [part for title, rows in sections.items() for part in (tag("h3", title), facts(rows))]


_Facts = list[tuple[object, object]]


def _training(model: Model) -> _Facts:
    m = model.manifest
    held, classes = m.held_out.get("classes", []), m.data.get("classes", len(m.classes))
    lengths = ((m.setting(f"length.{unit}"), unit) for unit in ("minutes", "steps", "epochs"))
    length = next((f", {n:g} {unit if n != 1 else unit.removesuffix('s')}" for n, unit in lengths if n), "")
    recipe = f"{m.recipe.get('recipe', 'none')}{length}, seed {m.recipe.get('seed', 0)}" if m.recipe else None
    images = m.data.get("description", "not recorded")
    if "images" in m.data:
        images = f"{m.data['images']:,} {f'of {classes:,} classes' if classes else 'in pairs'}"
    return [
        ("training images", images),
        ("their fingerprint", tag("code", m.data["sha256"]) if "sha256" in m.data else None),
        ("held out of training", f"{len(held):,} classes, for the threshold" if held else None),
        ("recipe", recipe),
    ]


def _measured(model: Model, found: Evaluation, data: str) -> _Facts:
    shown = found.data
    if shown is None:
        return [("data", data), ("protocol", found.protocol)]
    classes = len(np.unique(shown.labels)) if found.protocol in ("classes", "lfw") else None
    both = known_classes(model, shown, "training")
    named = f": {', '.join(both[:8])}{' ...' if len(both) > 8 else ''}" if both else ""
    seen = f"{int(shown.seen.sum()):,} of {len(shown.seen):,}, by SHA-256 of their pixels"
    return [
        ("data", data),
        ("images", f"{len(shown.labels):,}" + (f" of {classes:,} classes" if classes else "")),
        ("left out as unreadable", f"{len(shown.unreadable):,}" if shown.unreadable else None),
        ("protocol", found.protocol),
        ("images seen in training", seen if model.record.image_hashes else "not recorded"),
        ("classes seen in training", f"{len(both):,} of {classes:,}, by name{named}" if classes else None),
    ]


def glossary(result: VerificationResult | None) -> list[Html] | None:
    """Return definitions of the terms."""
    text = files(__package__).joinpath("glossary.toml").read_text("utf-8")
    return None if result is None else [facts(tomllib.loads(text).items())]
