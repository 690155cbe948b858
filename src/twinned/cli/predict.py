"""Commands that run a model: verify, classify, embed, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, SettingError
from ..utils import files
from .main import (
    Device,
    Force,
    Json,
    Quiet,
    Seed,
    app,
    note,
    print_result,
    teller,
)

if TYPE_CHECKING:
    from ..inference.model import Model

ModelFolder = Annotated[Path, typer.Argument(help="A model folder.", metavar="MODEL")]


def _on(device: str, model: Model) -> Model:
    """The model, with a note where ONNX Runtime does not offer the device that was asked for."""
    if device not in ("auto", "cpu") and model.encoder.note is not None:
        note(model.encoder.note)
    return model


@app.command()
def verify(
    model: ModelFolder,
    a: Annotated[Path, typer.Argument(help="An image, or a folder of references.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="The image asked about.", metavar="B")],
    threshold: Annotated[float | None, typer.Option(help="Instead of the model's own.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell whether two images show the same thing: exit 0 same, 1 different, 2 trouble."""
    from ..inference.model import load

    loaded = load(model, device="cpu")
    verdict = loaded.verify(a, b, threshold=threshold)
    if missing := loaded.manifest.unmeasured:
        teller(quiet)(f"{missing}, so expect more false accepts of them than the model's figures say")
    word = "same" if verdict.same else "different"
    print_result(
        verdict.to_json(),
        as_json=json,
        text=f"{word}  probability {verdict.probability:.3f}  distance {verdict.distance:.4g}"
        f"  threshold {verdict.threshold:.4g}"
        + (f"  {verdict.relation} {verdict.relation_probability:.3f}" if verdict.relation else ""),
    )
    raise typer.Exit(0 if verdict.same else 1)


@app.command()
def classify(
    model: ModelFolder,
    support: Annotated[
        Path, typer.Argument(help="One folder a class, as few as one image each.", metavar="SUPPORT_DIR")
    ],
    images: Annotated[list[Path], typer.Argument(help="The images to classify.", metavar="IMAGE...")],
    threshold: Annotated[float | None, typer.Option(help="Instead of the model's own.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell which class each image shows, from as few as one example a class; or that it is none of them."""
    from ..data.readers import load_images
    from ..inference.model import load

    examples = load_images(support).genuine()  # a forgery is no example of what it imitates
    classes = {name: list(examples.with_classes([name]).images) for name in examples.classes}
    guesses = load(model).classify([str(i) for i in images], classes, threshold=threshold, progress=not quiet)
    lines = [
        f"{g.image}  {g.label or 'unknown'}  probability {g.probability:.3f}  distance {g.distance:.4g}"
        for g in guesses
    ]
    print_result([g.to_json() for g in guesses], as_json=json, text="\n".join(lines))


@app.command()
def embed(
    model: ModelFolder,
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", metavar="IMAGE...")],
    output: Annotated[Path, typer.Option("-o", "--output", help="FILE.npz or FILE.parquet")],
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    force: Force = False,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Embed images into a file: arrays path, vector and error."""
    from ..data.images import advice_on
    from ..data.readers import find_images
    from ..inference.embed_file import embed_to_file
    from ..inference.model import load

    for given in images:
        if not given.exists():
            raise DataError(
                "; ".join(filter(None, [f"{given}: no such file or folder", advice_on(str(given))]))
            )
    files.refuse(output, force=force or resume, data=images)
    paths = [p for given in images for p in (find_images(given) if given.is_dir() else [str(given)])]
    if not paths:
        raise DataError(f"no images in {', '.join(map(str, images))}")
    written = embed_to_file(
        _on(device, load(model, device=device)),
        paths,
        output,
        strict=strict,
        resume=resume,
        force=force,
        progress=not quiet,
    )
    for error in written.errors[:20]:
        note(error)
    if len(written.errors) > 20:
        note(f"and {len(written.errors) - 20} more unreadable images; all are named in {output}")
    if len(written.errors) == written.images:
        raise DataError(f"none of {written.images} images could be read; {output} says why")
    print_result(
        {"images": written.images, "errors": len(written.errors), "output": str(output)},
        as_json=json,
        text=f"{output}: {written.images - len(written.errors)} images embedded"
        + (f", {len(written.errors)} unreadable" if written.errors else ""),
    )


@app.command()
def evaluate(
    model: ModelFolder,
    data: Annotated[
        Path,
        typer.Argument(help="Class folders, a CSV, a pair list, or a protocol's folder.", metavar="DATA"),
    ],
    protocol: Annotated[str, typer.Option(help="auto, classes, pairs, lfw or omniglot-runs")] = "auto",
    ways: Annotated[int, typer.Option(help="Classes of a one-shot episode.")] = 20,
    shots: Annotated[int, typer.Option(help="Examples a class in it.")] = 1,
    episodes: Annotated[int, typer.Option(help="How many episodes.")] = 1000,
    far: Annotated[float | None, typer.Option(help="One more row of TAR at FAR.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report, FILE.html.")] = None,
    seed: Seed = 0,
    force: Force = False,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on data it has not seen; the stored threshold is measured, never moved."""
    from ..inference.model import load

    if report is not None:
        if report.suffix.lower() not in (".html", ".htm"):
            raise SettingError(f"{report}: a report is a page, FILE.html; twinned plot makes pictures")
        files.refuse(report, force=force, data=[data, model])
        report.parent.mkdir(parents=True, exist_ok=True)
    loaded = _on(device, load(model, device=device))
    found = loaded.evaluate(
        str(data),
        protocol=protocol,
        ways=ways,
        shots=shots,
        episodes=episodes,
        far=far,
        seed=seed,
        progress=not quiet,
    )
    say = teller(quiet)
    for sentence in found.notes:
        say(sentence)
    print_result(found.to_json(), as_json=json, text=str(found))
    if report is not None:
        from ..visualization.report.report import write_report

        write_report(loaded, found, report, data=str(data))
        say(f"report written to {report}")
