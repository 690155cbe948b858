"""Model card: README.md of a model folder, rendered from model.json."""

from __future__ import annotations

from collections.abc import Iterator

from ..evaluation.results import NAMES, Metric
from .model_folder import Manifest


def _trained_on(manifest: Manifest) -> str:
    recipe = manifest.recipe.get("recipe", "none")
    if manifest.origin == "wrapped":
        return f"- **Trained** elsewhere, on {manifest.data.get('description', 'unknown data')}"
    images, classes = manifest.data.get("images", 0), manifest.data.get("classes", len(manifest.classes))
    if not images:
        return f"- **Not trained** here: the encoder is unchanged; recipe {recipe}"
    of_what = f"of {classes} classes" if classes else "in pairs"
    return (
        f"- **Trained on** {images} images {of_what}, recipe {recipe}, seed {manifest.recipe.get('seed', 0)}"
    )


def _threshold(manifest: Manifest) -> str:
    if (fit := manifest.stored_calibration) is None:
        return "- **No threshold**: `twinned calibrate MODEL DATA -o NEW` chooses one"
    return (
        f"- **Threshold** {fit.threshold:.6g} at"
        f" {'equal error' if fit.far is None else f'a false accept rate of {fit.far:g}'},"
        f" from {fit.n_classes} {manifest.chosen_on[1]}:"
        f" {fit.n_genuine:,} genuine and {fit.n_impostor:,} impostor comparisons"
        + ("" if fit.supported else f". Not supported: {fit.impostors_needed:,} impostors are needed")
    )


def _metrics(manifest: Manifest) -> Iterator[Metric]:
    """Yield the figures on the images that the threshold was chosen on."""
    if (fit := manifest.stored_calibration) is None:
        return
    found = manifest.held_out
    several = [] if fit.references is None else fit.references.rows
    for row, remark in ((fit, "two images"), *((row, f"{row.images} references") for row in several)):
        yield Metric("calibration.eer", "", NAMES["eer"], row.eer, row.eer_ci, remark)
    if (accuracy := found.get("relations")) is not None:
        yield Metric("held_out.relations", "", "accuracy of relations", accuracy)
    for kind, accuracy in found.get("identified", {}).items():
        image = "mean of the images" if kind == "prototype" else "nearest image"
        remark = f"by the {image}; {'used' if manifest.prototype == (kind == 'prototype') else 'not used'}"
        yield Metric(
            f"held_out.identified.{kind}", "", "probes identified in a gallery", accuracy, None, remark
        )


def card(manifest: Manifest) -> str:
    """Render the model card, README.md, from model.json."""
    spec = manifest.spec
    color = "gray" if spec.channels == 1 else "color"
    lines = [
        "# Model card",
        "",
        f"Written by Twinned {manifest.twinned} from model.json; changes here are overwritten.",
        "",
        f"- **Encoder** {manifest.encoder}: {color} images of {spec.height}x{spec.width} to"
        f" {manifest.embedding_size} values, compared by {manifest.distance} distance"
        + (", scored by a learned head" if manifest.head else "")
        + (f" that predicts {', '.join(manifest.relations)}" if manifest.relations else ""),
        _trained_on(manifest),
        _threshold(manifest),
    ]
    if manifest.unmeasured:
        lines.append(
            f"- **{manifest.unmeasured[0].upper()}{manifest.unmeasured[1:]}**, so expect more false accepts"
            " than these figures. `twinned evaluate` measures them where the data mark them"
        )
    if manifest.licence:
        lines.append(f"- **License of the pretrained weights**: {manifest.licence}")
    lines += [f"- {note}" for note in manifest.notes]
    if manifest.stored_calibration is None:
        return "\n".join([*lines, ""])
    lines += [
        "",
        "Metrics on the images that the threshold was chosen on:",
        "",
        "| metric | value | 95 % interval | better | remark |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(metric.cells())} |" for metric in _metrics(manifest)),
        "",
        "Error rates hold for images like those that they were measured on. Measure them on yours:"
        " `twinned evaluate MODEL DATA`.",
        "",
    ]
    return "\n".join(lines)
