"""Commands that make a model: check, train, calibrate, demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SettingError
from .main import (
    Force,
    Json,
    Quiet,
    Seed,
    app,
    print_result,
    teller,
)

if TYPE_CHECKING:
    from ..inference.model import Model

Data = Annotated[
    Path, typer.Argument(help="A folder of class folders, a CSV, or a pair list.", metavar="DATA")
]
Output = Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Any setting, as name=value.")]


@app.command()
def check(
    data: Data,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if there are errors.")] = False,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is wrong with data before training on it."""
    from ..data.checks.checker import check_data
    from ..data.readers import load

    found = check_data(load(data), seed=seed, progress=not quiet)
    result = found.to_json()
    classes = "a pair list" if result["classes"] is None else f"{result['classes']} classes"
    lines = [f"{result['images']} images, {classes}"]
    for problem in result["problems"]:
        lines.append(f"{problem['severity']}  {problem['kind']}: {problem['message']}")
        lines += [f"    {file}" for file in problem["files"][:5]]
        if len(problem["files"]) > 5:
            lines.append(f"    and {len(problem['files']) - 5} more")
    if not result["problems"]:
        lines.append("nothing wrong was found")
    print_result(result, as_json=json, text="\n".join(lines))
    raise typer.Exit(int(strict and any(p["severity"] == "error" for p in result["problems"])))


@app.command()
def train(
    data: Data,
    output: Output,
    recipe: Annotated[str, typer.Option(help="auto, or a recipe's name.")] = "auto",
    encoder: Annotated[str | None, typer.Option(help="Instead of the recipe's.")] = None,
    loss: Annotated[str | None, typer.Option(help="Instead of the recipe's.")] = None,
    distance: Annotated[str | None, typer.Option(help="Instead of the recipe's.")] = None,
    image_size: Annotated[str | None, typer.Option(help="Height and width, HxW.")] = None,
    minutes: Annotated[float | None, typer.Option(help="From start to saved model.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to train for, instead.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs to train for, instead.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest.")] = None,
    margin: Annotated[float | None, typer.Option(help="Of the loss.")] = None,
    embedding_size: Annotated[int | None, typer.Option(help="Values of an embedding.")] = None,
    set_: Set = None,
    far: Annotated[
        float | None, typer.Option(help="False accept rate of the threshold (default: equal error).")
    ] = None,
    seed: Seed = 0,
    validate: Annotated[Path | None, typer.Option(help="Images for the threshold.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    force: Force = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    devices: Annotated[int, typer.Option(help="How many, each with a share of every batch.")] = 1,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a Siamese network on your images and write a model folder."""
    from ..training.api import train as run

    say = teller(quiet)
    model = run(
        data,
        recipe=recipe,
        encoder=encoder,
        loss=loss,
        distance=distance,
        image_size=image_size,
        minutes=minutes,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        margin=margin,
        embedding_size=embedding_size,
        settings=parse_settings(set_ or []),
        far=far,
        seed=seed,
        validate=validate,
        output=output,
        resume=resume,
        force=force,
        device=device,
        devices=devices,
        progress=not quiet,
        say=say,
    )
    emit_model(model, output, as_json=json)


def emit_model(model: Model, output: Path, *, as_json: bool, more: dict[str, Any] | None = None) -> None:
    """Print what a command made."""
    fit = model.manifest.calibration
    labelled = model.manifest.classes or model.manifest.held_out.get("classes")
    told = model.manifest.held_out.get("relations")
    print_result(
        {
            "model": str(output),
            "threshold": fit.threshold,
            "far": fit.far,
            "eer": fit.eer,
            "eer_ci": fit.eer_ci,
            "classes": len(model.manifest.classes),
            "not_measured": model.manifest.not_measured,
            "notes": model.manifest.notes,
            **(more or {}),
        },
        as_json=as_json,
        text=f"{output}: equal error rate {fit.eer:.4f}"
        f" on {fit.n_classes} {'held-out' if fit.unseen_classes else 'TRAINING'}"
        f" {'classes' if labelled else 'things, told apart by the pairs that are the same'},"
        f" threshold {fit.threshold:.4g}{_at(fit.far)}"
        + ("" if told is None else f"; relations told right for {told:.4f} of the held-out pairs")
        + (f"; {missing}" if (missing := model.manifest.unmeasured) else ""),
    )


def _at(far: float | None) -> str:
    return "" if far is None else f" at a false accept rate of {far:g}"


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """``name=value`` strings as a dictionary.

    Raises:
        SettingError: If one has no ``=``.
    """
    for pair in pairs:
        if "=" not in pair:
            raise SettingError(f"--set takes name=value; got {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs)


@app.command()
def calibrate(
    model: Annotated[Path, typer.Argument(help="A model folder; it is changed.", metavar="MODEL")],
    data: Data,
    far: Annotated[
        float | None,
        typer.Option(help="False accept rate of the threshold (default: the model's; else equal error)."),
    ] = None,
    equal_error: Annotated[
        bool, typer.Option("--equal-error", help="Choose the threshold at equal error again.")
    ] = False,
    prior: Annotated[
        float | None,
        typer.Option(help="P(same) before looking: the share of same pairs in use (default: the model's)."),
    ] = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Refit threshold and probability on new data; refuses images seen in training."""
    from ..inference.model_folder import read
    from ..inference.recalibrate import recalibrate as run

    fit = run(
        model,
        data,
        in_place=True,
        far=far,
        equal_error=equal_error,
        prior=prior,
        seed=seed,
        progress=not quiet,
    )
    found = read(model)
    print_result(
        {
            "model": str(model),
            "threshold": fit.threshold,
            "threshold_ci": fit.threshold_ci,
            "far": fit.far,
            "prior": fit.prior,
            "eer": fit.eer,
            "n_genuine": fit.n_genuine,
            "n_impostor": fit.n_impostor,
            "supported": fit.supported,
            "impostors_needed": fit.impostors_needed,
            "not_measured": found.not_measured,
        },
        as_json=json,
        text=f"{model}: threshold {fit.threshold:.4g}{_at(fit.far)} from {fit.n_classes} classes,"
        f" equal error rate {fit.eer:.4f}"
        + (
            ""
            if fit.supported
            else f"; not supported, it takes {fit.impostors_needed:,} impostor comparisons"
        )
        + (f"; {found.unmeasured}" if found.unmeasured else ""),
    )


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model folder.", metavar="MODEL")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")],
    int8: Annotated[
        Path | None, typer.Option(help="Images to calibrate an eight-bit encoder on, in class folders.")
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the encoder in the forms that other programs want, each checked against the original."""
    from ..inference.export import export_model
    from ..inference.model import load

    result = export_model(load(model, device="cpu"), output, int8=int8, force=force, progress=not quiet)
    lines = [f"{output}: {', '.join(result['files'])} (opset {result['opset']})"]
    if (cost := result["int8"]) is not None:
        before, after = cost["before"], cost["after"]
        lines.append(f"int8: equal error rate {before['eer']:.4f} before, {after['eer']:.4f} after")
        lines.append(f"      one-shot accuracy {before['one_shot']} before, {after['one_shot']} after")
    print_result(result, as_json=json, text="\n".join(lines))


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for model and pictures.")] = Path(
        "demo"
    ),
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell the whole story on the handwritten digits that scikit-learn ships."""
    from .demo import run

    result = run(
        output, seed=seed, progress=not quiet, say=(lambda sentence: None) if json or quiet else print
    )
    if json:
        print_result(result, as_json=True, text="")
