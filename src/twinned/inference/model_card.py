"""Model card: README.md of a model folder, rendered from model.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model_folder import Manifest


def _trained_on(manifest: Manifest) -> str:
    recipe = manifest.recipe.get("recipe", "none")
    if manifest.origin == "wrapped":
        return "- **Trained** elsewhere, on unknown data"
    images, classes = manifest.data.get("images", 0), manifest.data.get("classes", len(manifest.classes))
    if not images:
        return f"- **Not trained** here: the encoder is unchanged; recipe {recipe}"
    of_what = f"of {classes} classes" if classes else "in pairs"
    return (
        f"- **Trained on** {images} images {of_what}, recipe {recipe}, seed {manifest.recipe.get('seed', 0)}"
    )


def card(manifest: Manifest) -> str:
    """Render the model card, README.md, from model.json."""
    spec, fit = manifest.spec, manifest.calibration
    color = "gray" if spec.channels == 1 else "color"
    interval = "" if fit.eer_ci is None else f" (95 % interval {fit.eer_ci[0]:.4f} to {fit.eer_ci[1]:.4f})"
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
        f"- **Threshold** {fit.threshold:.6g} at"
        f" {'equal error' if fit.far is None else f'a false accept rate of {fit.far:g}'},"
        f" from {fit.n_classes} {manifest.chosen_on[1]}:"
        f" {fit.n_genuine:,} genuine and {fit.n_impostor:,} impostor comparisons"
        + ("" if fit.supported else f". Not supported: {fit.impostors_needed:,} impostors are needed"),
        f"- **Equal error rate** on these comparisons: {fit.eer:.4f}{interval}",
    ]
    if manifest.unmeasured:
        lines.append(
            f"- **{manifest.unmeasured[0].upper()}{manifest.unmeasured[1:]}**, so expect more false accepts"
            " than these figures. `twinned evaluate` measures them where the data mark them"
        )
    if (accuracy := manifest.held_out.get("relations")) is not None:
        lines.append(f"- **Relations** are correct for {accuracy:.4f} of the held-out pairs")
    if (several := fit.references) is not None:
        found = ", ".join(f"{row.eer:.4f} with {row.images}" for row in several.rows)
        lines.append(f"- **With several references** of a class the equal error rate is {found}")
    if named := manifest.held_out.get("identified"):
        chosen = "the mean of its images" if manifest.prototype else "the nearest of its images"
        lines.append(
            f"- **In a gallery** a label is represented by {chosen}: {named['nearest']:.4f} of held-out"
            f" probes are identified by the nearest, {named['prototype']:.4f} by the mean"
        )
    if manifest.licence:
        lines.append(f"- **License of the pretrained weights**: {manifest.licence}")
    lines += [f"- {note}" for note in manifest.notes]
    lines += [
        "",
        "Error rates hold for images like those that they were measured on. Measure them on yours:"
        " `twinned evaluate MODEL DATA`.",
        "",
    ]
    return "\n".join(lines)
