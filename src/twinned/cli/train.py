"""Commands that write a model folder or change one: train, finetune, wrap, calibrate, export."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Unpack

import typer
from typer import Argument, Option

import twinned as tw

from ..errors import SettingError, many
from ..inference.input_options import InputOptions
from ..training.options import TrainOptions
from .options import Commands, Data, Force, ModelFolder, Run, Seed, wrapped

app = Commands()

Output = Annotated[Path, Option("-o", "--output", help="Model folder to write.")]
OutputOrNone = Annotated[Path | None, Option("-o", "--output", help="Model folder to write.")]
Validation = Annotated[
    Path | None,
    Option(
        "--validate",
        help="Data for choosing the threshold (default: hold out 20 % of the classes).",
        rich_help_panel="Data",
    ),
]
Resume = Annotated[bool, Option("--resume", help="Continue an interrupted run.", rich_help_panel="Run")]
ConfigFile = Annotated[
    Path | None,
    Option(
        "--config",
        help="JSON file with the configuration to start from (instead of --recipe).",
        rich_help_panel="Model",
    ),
]
PrintConfig = Annotated[
    bool,
    Option(
        "--print-config",
        help="Print the resolved configuration as JSON, without training. Precedence: options, rules,"
        " defaults of encoder, loss and optimizer, recipe.",
        rich_help_panel="Run",
    ),
]
Far = Annotated[float | None, Option(help="False accept rate of the threshold (default: equal error rate).")]


@app.command()
def train(
    run: Run,
    context: typer.Context,
    data: Data,
    output: OutputOrNone = None,
    validate: Validation = None,
    config: ConfigFile = None,
    print_config: PrintConfig = False,
    resume: Resume = False,
    force: Force = False,
    **options: Unpack[TrainOptions],
) -> None:
    """Train a Siamese network on your images and write a model folder."""
    given: dict[str, Any] = _options(options) | {"validation": validate}
    if config is not None:
        given["config"] = read_config(config)
    if print_config:
        from ..training.api import resolve_config

        found = resolve_config(data, **given)
        print(found.model_dump_json(indent=1))
        return
    if output is None:
        context.fail("Missing option '-o' / '--output'.")
    with _working(run, options):
        from ..training.api import train

        model = train(data, output, resume=resume, overwrite=force, progress=run.progress, **given)
    emit_model(run, model, output)


@app.command()
def finetune(
    run: Run,
    model: ModelFolder,
    data: Data,
    output: Output,
    old: Annotated[
        Path | None,
        Option(help="Data of the original task, for evaluating both models on it.", rich_help_panel="Data"),
    ] = None,
    validate: Validation = None,
    resume: Resume = False,
    force: Force = False,
    **options: Unpack[TrainOptions],
) -> None:
    """Train a model further on other images: new classes, a new task, a new image size.

    If that does not help on held-out classes, the encoder stays unchanged. A model that learns new relations
    is always trained, and compared with the model before.
    """
    with _working(run, options):
        from ..training.finetune import finetune

        found = finetune(
            model,
            data,
            output,
            old=old,
            validation=validate,
            resume=resume,
            overwrite=force,
            progress=run.progress,
            **_options(options),
        )
    more = {name: found.manifest.held_out.get(name) for name in ("untouched", "old")}
    more |= {"trained": found.manifest.setting("length.steps") != 0}
    emit_model(run, found, output, more=more)


def _working(run: Run, options: TrainOptions) -> AbstractContextManager[Any]:
    """Show that the program works while no other bar does; several processes show their own bars."""
    alone = options.get("devices") in (None, 1) and os.environ.get("RANK", "0") == "0"
    return run.working() if alone else nullcontext()


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were set, with ``--set`` as a dictionary."""
    chosen = {name: value for name, value in given.items() if value is not None}
    pairs = chosen.get("settings", [])
    for pair in pairs:
        if "=" not in pair:
            raise SettingError(f"--set {pair}: expected NAME=VALUE")
    return chosen | {"settings": dict(pair.split("=", 1) for pair in pairs)}


def read_config(file: Path) -> tw.TrainConfig:
    """Read a configuration from a JSON file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise SettingError("expected a JSON object")
        return tw.TrainConfig.from_saved(values)
    except SettingError as error:
        raise SettingError(f"{file}: {error}") from None
    except ValueError as error:
        raise SettingError(f"{file}: invalid JSON ({error})") from None


def emit_model(run: Run, model: tw.Model, output: Path, more: dict[str, Any] | None = None) -> None:
    """Print the figures of a new model."""
    manifest, fit = model.manifest, model.manifest.calibration
    labeled = bool(manifest.classes or manifest.held_out.get("classes"))
    kind, remark = "held-out ", "" if labeled else ' (images linked by "same" pairs)'
    if not fit.unseen_classes:
        kind = "TRAINING "
    elif manifest.is_cross_validated:
        kind, remark = "", " in cross-validation"
    elif manifest.origin == "wrapped":
        kind = ""
    text = (
        f"{output}: equal error rate {fit.eer:.4f} on"
        f" {many(fit.n_classes, kind + ('class' if labeled else 'group'))}{remark},"
        f" threshold {fit.threshold:.4g}{_at(fit.far)}"
    )
    if (relations := manifest.held_out.get("relations")) is not None:
        text += f"; relation accuracy {relations:.4f} on held-out pairs"
    result = {
        "model": str(output),
        **fit.model_dump(include={"threshold", "far", "eer", "eer_ci"}),
        "classes": len(manifest.classes),
        "not_measured": manifest.not_measured,
        "notes": manifest.notes,
    }
    run.print(result | (more or {}), _with_advice(text, model, output))


def _with_advice(text: str, model: tw.Model, folder: Path) -> str:
    """Return figures of a model with what they mean in use, and the next commands."""
    import numpy as np

    from ..evaluation.advice import judgement

    manifest, fit = model.manifest, model.manifest.calibration
    if manifest.unmeasured:
        text += f"; {manifest.unmeasured}"
    too_short = any(note.code == "no-time-to-train" for note in manifest.coded_notes())
    trained = bool(model.record.values.get("steps")) or too_short
    lines = [text, wrapped(judgement(fit.eer, fit.eer_ci, can_train_longer=trained), sys.stdout)]
    if fit.far is not None and (curve := manifest.held_out.get("curve")):
        frr = np.interp(fit.threshold, curve["threshold"], curve["frr"])
        lines.append(f"At a false accept rate of {fit.far:g}, {frr:.1%} of the same pairs are rejected")
    lines += [f"Next: twinned verify {folder} A.jpg B.jpg", f"      twinned evaluate {folder} OTHER_IMAGES"]
    return "\n".join([*lines, f"      twinned serve {folder}"])


def _at(far: float | None) -> str:
    return "" if far is None else f" at a false accept rate of {far:g}"


@app.command()
def wrap(
    run: Run,
    encoder: Annotated[
        Path, Argument(help="ONNX file that maps an image to an embedding.", metavar="ENCODER.onnx")
    ],
    data: Data,
    output: Output,
    distance: Annotated[
        str | None,
        Option(help="Distance of embeddings (default: cosine or euclidean, whichever has the lower error)."),
    ] = None,
    far: Far = None,
    licence: Annotated[str | None, Option(help="License of the encoder, for the model card.")] = None,
    seed: Seed = 0,
    force: Force = False,
    **options: Unpack[InputOptions],
) -> None:
    """Make a model from another framework's encoder; threshold and probability are fitted to your data."""
    given: dict[str, Any] = {**options}
    with run.working():
        model = tw.wrap(
            encoder,
            data,
            output=output,
            distance=distance,
            far=far,
            licence=licence,
            seed=seed,
            force=force,
            progress=run.progress,
            **given | {name: _numbers(f"--{name}", given[name]) for name in ("mean", "std")},
        )
    emit_model(run, model, output, more={"spec": model.spec.model_dump(mode="json")})


def _numbers(option: str, text: str | None) -> list[float] | None:
    """Convert numbers with commas between them."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise SettingError(
            f"{option} {text}: expected one number, or one per channel such as 0.5,0.5,0.5"
        ) from None


@app.command()
def calibrate(
    run: Run,
    model: ModelFolder,
    data: Data,
    output: Annotated[
        Path | None, Option("-o", "--output", help="Model folder to write (instead of --in-place).")
    ] = None,
    in_place: Annotated[bool, Option("--in-place", help="Change MODEL itself.")] = False,
    far: Annotated[
        float | None,
        Option(help="False accept rate of the threshold (default: the model's, or equal error rate)."),
    ] = None,
    equal_error: Annotated[
        bool, Option("--equal-error", help="Choose the threshold at the equal error rate.")
    ] = False,
    prior: Annotated[
        float | None, Option(help="Prior probability of a same pair (default: the model's).")
    ] = None,
    force: Force = False,
    seed: Seed = 0,
) -> None:
    """Fit threshold and probability to new data; refuse images used in training."""
    from ..inference.recalibrate import recalibrate

    if (output is None) != in_place:
        raise SettingError("Set either -o NEW, to write a new model, or --in-place, to change MODEL")
    with run.working():
        fit = recalibrate(
            model,
            data,
            output,
            in_place=in_place,
            far=far,
            equal_error=equal_error,
            prior=prior,
            seed=seed,
            force=force,
            progress=run.progress,
        )
    model = output or model
    found = tw.load(model)
    text = (
        f"{model}: threshold {fit.threshold:.4g}{_at(fit.far)} from {many(fit.n_classes, 'class')},"
        f" equal error rate {fit.eer:.4f}"
    )
    if not fit.supported:
        text += f"; not supported, requires {fit.impostors_needed:,} impostor comparisons"
    shown = {"threshold", "threshold_ci", "far", "prior", "eer", "n_genuine", "n_impostor", "supported"}
    result = {
        "model": str(model),
        **fit.model_dump(include={*shown, "impostors_needed"}),
        "not_measured": found.manifest.not_measured,
    }
    run.print(result, _with_advice(text, found, model))


@app.command()
def export(
    run: Run,
    model: ModelFolder,
    output: Annotated[Path, Option("-o", "--output", help="Folder to write.")],
    int8: Annotated[
        Path | None, Option(help="Images for calibrating an 8-bit encoder, in class folders.")
    ] = None,
    force: Force = False,
) -> None:
    """Export the encoder for other programs, with each file checked against the original."""
    from ..inference.export import export_model

    with run.working():
        result = export_model(
            tw.load(model, device="cpu"), output, int8=int8, force=force, progress=run.progress
        )
    lines = [f"{output}: {', '.join(result['files'])} (opset {result['opset']})"]
    if (cost := result["int8"]) is not None:
        before, after = cost["before"], cost["after"]
        lines.append(f"int8: equal error rate {before['eer']:.4f} before, {after['eer']:.4f} after")
        lines.append(f"      one-shot accuracy {before['one_shot']} before, {after['one_shot']} after")
    run.print(result, "\n".join(lines))
