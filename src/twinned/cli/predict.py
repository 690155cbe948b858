"""Commands that run a model: verify, classify, embed, evaluate, compare; and the list of models."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

import twinned as tw

from ..errors import DataError, SettingError, many
from ..utils import files
from ..utils.notes import logger
from .options import (
    MODEL_HELP,
    Commands,
    Device,
    EvaluationData,
    EveryFace,
    Force,
    Images,
    ModelFolder,
    OneFace,
    Run,
    Seed,
    Threshold,
    image_paths,
    load_on,
    print_errors,
)

app = Commands()


@app.command()
def verify(
    run: OneFace,
    model: ModelFolder,
    a: Annotated[Path, Argument(help="Image, or folder with several images of one class.", metavar="A")],
    b: Annotated[Path, Argument(help="Image to compare with A.", metavar="B")],
    threshold: Threshold = None,
) -> None:
    """Verify that two images show the same class: exit code 0 same, 1 different, 2 error."""
    loaded = run.load(model, "cpu")
    if run.url is None and (missing := loaded.manifest.unmeasured):
        logger.info(f"{missing}, so expect more false accepts of them than the model's figures show")
    verdict = loaded.verify(a, b, threshold=threshold)
    text = (
        f"{verdict.verdict}: probability {verdict.probability:.3f}. Distance {verdict.distance:.4g} is"
        f" {'within' if verdict.same else 'beyond'} the threshold {verdict.threshold:.4g}"
    )
    agreeing = ("Same", "Probably the same") if verdict.same else ("Different", "Probably different")
    if verdict.verdict not in agreeing:
        text += f": counts as {'the same' if verdict.same else 'different'}"
    if verdict.relation:
        text += f". Relation: {verdict.relation} {verdict.relation_probability:.3f}"
    run.print(verdict.to_json(), text)
    raise typer.Exit(0 if verdict.same else 1)


@app.command()
def classify(
    run: EveryFace,
    model: ModelFolder,
    support: Annotated[
        Path,
        Argument(
            help="Folder with one folder per class, each with one or more examples.", metavar="SUPPORT_DIR"
        ),
    ],
    images: Images,
    threshold: Threshold = None,
) -> None:
    """Classify images from one or more examples per class; an image of none of the classes is unknown."""
    loaded = run.load(model)
    ask = partial(loaded.classify, support=support, threshold=threshold, progress=run.progress)
    run.print_answers(run.answers_on(images, loaded.spec, ask, "Classifying"))


@app.command()
def embed(
    run: EveryFace,
    model: ModelFolder,
    images: Images,
    output: Annotated[Path, Option("-o", "--output", help="File to write, .npz or .parquet.")],
    strict: Annotated[bool, Option("--strict", help="Stop at the first unreadable image.")] = False,
    resume: Annotated[
        bool, Option("--resume", help="Continue an interrupted run.", rich_help_panel="Run")
    ] = False,
    force: Force = False,
    device: Device = "auto",
) -> None:
    """Embed images and write a file with the columns path, vector and error.

    With --faces all, each face has a row, and its box is in the column box.
    """
    from ..inference.embed_file import embed_to_file

    paths = image_paths(images)
    files.check_output(output, force=force or resume, data=images)
    if run.url is not None and resume:
        raise SettingError("--resume is not supported together with --url")
    loaded = run.load(model, device)
    errors = embed_to_file(
        loaded if run.url is None else loaded.embedder(),
        paths,
        output,
        strict=strict,
        resume=resume,
        force=force,
        progress=run.progress,
    )
    print_errors(errors)
    if len(errors) == len(paths):
        raise DataError(f"none of {many(len(paths), 'image')} could be read; {output} lists the errors")
    run.print(
        {"images": len(paths), "errors": len(errors), "output": str(output)},
        f"{output}: {many(len(paths) - len(errors), 'image')} embedded"
        + (f", {len(errors)} unreadable" if errors else ""),
    )


@app.command()
def evaluate(
    run: Run,
    model: ModelFolder,
    data: EvaluationData,
    protocol: Annotated[
        str, Option(help="Evaluation protocol: auto, classes, pairs, lfw or omniglot-runs.")
    ] = "auto",
    ways: Annotated[int, Option(help="Number of classes in a few-shot episode.")] = 20,
    shots: Annotated[int, Option(help="Number of examples per class in a few-shot episode.")] = 1,
    episodes: Annotated[int, Option(help="Number of few-shot episodes.")] = 1000,
    far: Annotated[
        float | None, Option(help="Additional false accept rate at which to report the true accept rate.")
    ] = None,
    report: Annotated[Path | None, Option(help="Report to write, FILE.html.")] = None,
    every: Annotated[bool, Option("--all", help="Print every figure instead of the main ones.")] = False,
    seed: Seed = 0,
    force: Force = False,
    device: Device = "auto",
) -> None:
    """Evaluate a model, at its stored threshold, on data that was not used for training."""
    if report is not None:
        if report.suffix.lower() not in (".html", ".htm"):
            raise SettingError(f"{report}: a report must be named FILE.html. For pictures use twinned plot")
        files.check_output(report, force=force, data=[data, model])
        report.parent.mkdir(parents=True, exist_ok=True)
    loaded = load_on(device, model)
    if report is not None and loaded.manifest.threshold is None:
        raise SettingError(f"{model}: a report needs a model with a threshold; see twinned calibrate --help")
    with run.working():
        found = loaded.evaluate(
            str(data),
            protocol=protocol,
            ways=ways,
            shots=shots,
            episodes=episodes,
            far=far,
            seed=seed,
            progress=run.progress,
        )
    for text in found.notes:
        logger.info(text)
    run.print(found.to_json(), str(found) if every else found.summary())
    if report is not None:
        from ..visualization.report.report import write_report

        with run.working():
            write_report(loaded, found, report, data=str(data))
        logger.info(f"report written to {report}")


@app.command()
def compare(
    run: Run,
    a: Annotated[Path, Argument(help=MODEL_HELP, metavar="A")],
    b: Annotated[Path, Argument(help=MODEL_HELP, metavar="B")],
    data: EvaluationData,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Compare two models on the same data: difference in error rates, with interval and p-value."""
    with run.working():
        found = tw.compare(
            load_on(device, a), load_on(device, b), str(data), seed=seed, progress=run.progress
        )
    run.print(found.to_dict(), str(found))


@app.command()
def models(run: Run) -> None:
    """List the ready-made models, which need no training: content, licenses, figures, missing extras."""
    from ..inference.ready_made import READY_MADE

    found = [each.to_json() for each in READY_MADE.values()]
    lines = []
    for each in found:
        state = "ready" if each["available"] else f"needs pip install 'twinned[{each['extra']}]'"
        lines += [
            f"{each['name']}  {each['for']}",
            f"    {each['size']} MB, {state}",
            f"    license of the weights: {each['license']}",
            f"    trained on: {each['training_data']}",
            *(f"    {row['name']}: {row['value']}  ({row['command']})" for row in each["figures"]),
        ]
    run.print(found, "\n".join(lines))
