"""Commands that start from somebody else's network: finetune, wrap."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SettingError
from .main import (
    Force,
    Json,
    Quiet,
    Seed,
    app,
    teller,
)
from .train import (
    Data,
    Output,
    Set,
    emit_model,
    parse_settings,
)

Far = Annotated[float | None, typer.Option(help="False accept rate of the threshold (default: equal error).")]


@app.command()
def finetune(
    model: Annotated[Path, typer.Argument(help="The model folder to start from.", metavar="MODEL")],
    data: Data,
    output: Output,
    freeze: Annotated[
        str | None, typer.Option(help="Stages that stay as they are: none, all, or how many.")
    ] = None,
    thaw: Annotated[
        float | None, typer.Option(help="Share of the steps after which frozen stages begin to learn.")
    ] = None,
    layer_decay: Annotated[
        float | None, typer.Option(help="Learning rate of a stage, as a share of the next one's.")
    ] = None,
    old: Annotated[
        Path | None, typer.Option(help="Images of the old task, to measure what was kept.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="How to learn, instead of the model's way.")] = None,
    loss: Annotated[str | None, typer.Option(help="Instead of the model's.")] = None,
    distance: Annotated[str | None, typer.Option(help="Instead of the model's.")] = None,
    image_size: Annotated[str | None, typer.Option(help="Height and width, HxW.")] = None,
    minutes: Annotated[float | None, typer.Option(help="From start to saved model.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to train for, instead.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs to train for, instead.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest.")] = None,
    margin: Annotated[float | None, typer.Option(help="Of the loss.")] = None,
    embedding_size: Annotated[int | None, typer.Option(help="Values of an embedding.")] = None,
    set_: Set = None,
    far: Far = None,
    seed: Seed = 0,
    validate: Annotated[Path | None, typer.Option(help="Images for the threshold.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    force: Force = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    devices: Annotated[int, typer.Option(help="How many, each with a share of every batch.")] = 1,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model further on other images: new classes, a new task, a new size.

    Where that is no better on classes held out, the network stays as it was; only one that learns relations
    which it did not know cannot stay, and is compared.
    """
    from ..training.finetune import finetune as run

    found = run(
        model,
        data,
        output=output,
        freeze=freeze,
        thaw=thaw,
        layer_decay=layer_decay,
        old=old,
        recipe=recipe,
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
        resume=resume,
        force=force,
        device=device,
        devices=devices,
        progress=not quiet,
        say=teller(quiet),
    )
    held_out = found.manifest.held_out
    emit_model(
        found,
        output,
        as_json=json,
        more={
            "trained": found.manifest.recipe.get("steps") != 0,  # or left as it was
            "untouched": held_out.get("untouched"),
            "old": held_out.get("old"),
        },
    )


@app.command()
def wrap(
    encoder: Annotated[
        Path, typer.Argument(help="An ONNX file: an image in, a vector out.", metavar="ENCODER.onnx")
    ],
    data: Data,
    output: Output,
    layout: Annotated[
        str | None, typer.Option(help="nchw (PyTorch) or nhwc (TensorFlow, Keras, JAX).")
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Pixels, 0 to 255, are multiplied by it.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Taken off after that: one value, or one a channel, with commas.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Divided by after that, likewise.")] = None,
    image_size: Annotated[str | None, typer.Option(help="Height and width, HxW, where it is free.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 or 3, where it is free.")] = None,
    fit: Annotated[str, typer.Option(help="Images of another shape: stretch, pad or crop.")] = "stretch",
    distance: Annotated[str | None, typer.Option(help="Instead of cosine or Euclidean.")] = None,
    far: Far = None,
    licence: Annotated[str | None, typer.Option(help="Of the encoder, for the model card.")] = None,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a model of another framework's encoder: threshold and probability fitted, guesses checked."""
    from ..inference.wrap import wrap as run

    model = run(
        encoder,
        data,
        output=output,
        layout=layout,
        scale=scale,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        image_size=image_size,
        channels=channels,
        fit=fit,
        distance=distance,
        far=far,
        licence=licence,
        seed=seed,
        force=force,
        progress=not quiet,
    )
    emit_model(model, output, as_json=json, more={"spec": model.spec.model_dump(mode="json")})


def _numbers(option: str, text: str | None) -> list[float] | None:
    """One number, or several with commas between."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise SettingError(
            f"{option} takes a number, or one a channel such as 0.5,0.5,0.5; got {text!r}"
        ) from None
