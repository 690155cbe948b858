"""Model card: README.md of a model folder, rendered from model.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model_folder import Manifest


def _trained_on(manifest: Manifest) -> str:
    recipe = manifest.recipe.get("recipe", "none")
    if recipe == "wrap":
        return "- **Trained** elsewhere, on what the file does not say"
    images, classes = manifest.data.get("images", 0), manifest.data.get("classes", len(manifest.classes))
    if not images:
        return f"- **Not trained** here: the encoder is as it was; recipe {recipe}"
    of_what = f"of {classes} classes" if classes else "in pairs"
    return (
        f"- **Trained on** {images} images {of_what}, recipe {recipe}, seed {manifest.recipe.get('seed', 0)}"
    )


def card(manifest: Manifest) -> str:
    """The model card: README.md, in words, from model.json."""
    spec, fit = manifest.spec, manifest.calibration
    grey = "grey" if spec.channels == 1 else "colour"
    interval = "" if fit.eer_ci is None else f" (95 % interval {fit.eer_ci[0]:.4f} to {fit.eer_ci[1]:.4f})"
    lines = [
        "# Model card",
        "",
        f"Written by Twinned {manifest.twinned} from model.json; edit that, not this.",
        "",
        f"- **Encoder** {manifest.encoder}: {grey} images of {spec.height}x{spec.width} to"
        f" {manifest.embedding_size} values, compared by {manifest.distance} distance"
        + (", scored by a learned head" if manifest.head else "")
        + (f" that tells {', '.join(manifest.relations)} apart" if manifest.relations else ""),
        _trained_on(manifest),
        f"- **Threshold** {fit.threshold:.6g} at"
        f" {'equal error' if fit.far is None else f'a false accept rate of {fit.far:g}'},"
        f" from {fit.n_classes} {manifest.chosen_on[1]}:"
        f" {fit.n_genuine:,} genuine and {fit.n_impostor:,} impostor comparisons"
        + ("" if fit.supported else f". Not supported: it would take {fit.impostors_needed:,} impostors"),
        f"- **Equal error rate** on those: {fit.eer:.4f}{interval}",
    ]
    if manifest.unmeasured:
        lines.append(
            f"- **{manifest.unmeasured[0].upper()}{manifest.unmeasured[1:]}**, so expect more false accepts"
            " of them than the figures here say. `twinned evaluate` measures them where the data mark them"
        )
    if (told := manifest.held_out.get("relations")) is not None:
        lines.append(f"- **Relations** are told right for {told:.4f} of the pairs held out")
    if (several := fit.references) is not None:
        found = ", ".join(f"{row.eer:.4f} with {row.images}" for row in several.rows)
        lines.append(f"- **With several references** of a class the equal error rate is {found}")
    if named := manifest.held_out.get("identified"):
        chosen = "the mean of its images" if manifest.prototype else "the nearest of its images"
        lines.append(
            f"- **In a gallery** a label is told by {chosen}: of held-out probes {named['nearest']:.4f} are"
            f" named by the nearest, {named['prototype']:.4f} by the mean"
        )
    if manifest.licence:
        lines.append(f"- **Licence of the pretrained weights**: {manifest.licence}")
    lines += [f"- {note}" for note in manifest.notes]
    lines += [
        "",
        "An error rate holds for images like those it was measured on. Measure it on yours:"
        " `twinned evaluate MODEL DATA`.",
        "",
    ]
    return "\n".join(lines)
