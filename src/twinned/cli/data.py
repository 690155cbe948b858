"""Commands on data: check, crop, data list, data get."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

import twinned as tw

from ..errors import many, some
from ..utils.notes import collect, logger
from .options import Commands, Data, Force, MinFace, Run, Seed, print_errors

app = Commands()
group = Commands(help="List and fetch public data sets.")

_FILES_SHOWN = 5  # of one issue


@app.command()
def check(
    run: Run,
    data: Data,
    strict: Annotated[bool, Option("--strict", help="Exit with code 1 if there are errors.")] = False,
    faces: Annotated[
        bool | None,
        Option(
            "--faces/--no-faces",
            help="Report images without a face or with several (default: if most images show a face).",
        ),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Report problems of data before training on it."""
    with run.working():
        found = tw.check_data(tw.data.load(data), seed=seed, progress=run.progress, faces=faces)
    result = found.to_json()
    classes = "a pair list" if result["classes"] is None else many(result["classes"], "class")
    lines = [f"{many(result['images'], 'image')}, {classes}"]
    for problem in result["problems"]:
        lines.append(f"{problem['severity']}  {problem['kind']}: {problem['message']}")
        lines += [f"    {file}" for file in problem["files"][:_FILES_SHOWN]]
        if len(problem["files"]) > _FILES_SHOWN:
            lines.append(f"    and {len(problem['files']) - _FILES_SHOWN} more")
    if not result["problems"]:
        lines.append("no problems found")
    run.print(result, "\n".join(lines))
    raise typer.Exit(int(strict and any(p["severity"] == "error" for p in result["problems"])))


@app.command()
def crop(
    run: Run,
    photos: Annotated[Path, Argument(help="Folder of photographs, or one photograph.", metavar="PHOTOS")],
    output: Annotated[Path, Option("-o", "--output", help="Folder to write.")],
    size: Annotated[int, Option(help="Height and width of the faces in pixels.")] = 150,
    margin: Annotated[float, Option(help="Margin on each side of the face, relative to its size.")] = 0.25,
    every: Annotated[
        bool, Option("--all", help="Cut out every face of a photograph, not only the largest.")
    ] = False,
    min_face: MinFace = None,
    resume: Annotated[
        bool, Option("--resume", help="Leave out photographs that are done.", rich_help_panel="Run")
    ] = False,
    force: Force = False,
) -> None:
    """Cut the faces out of photographs, aligned, into the same class folders, with a list in crops.csv."""
    found = tw.faces.crop(
        photos,
        output,
        size=size,
        margin=margin,
        every=every,
        min_face=min_face,
        resume=resume,
        overwrite=force,
        progress=run.progress,
    )
    print_errors(found.unreadable)
    notes = (
        (found.no_face, "no face"),
        (found.whole, "no face was found, and the whole image is used as the face,"),
        (found.several, "several faces" if every else "several faces (--all cuts out each)"),
    )
    for files, what in notes:
        if files:
            logger.info(f"{what} in {len(files):,} of {many(found.images, 'image')}: {some(files)}")
    text = f"{output}: {many(found.faces, 'face')} from {many(found.images, 'image')}"
    run.print(found._asdict(), text)


@group.command(name="list")
def list_(run: Run) -> None:
    """List the public data sets: content, terms, addresses."""
    found, lines = [], []
    for each in tw.data.DATA_SETS.values():
        files = [
            {"address": file.addresses[0], "sha256": file.sha256, "most_bytes": file.max_bytes}
            for file in each.downloads
        ]
        about = {key: getattr(each, key) for key in ("name", "title", "terms", "page")}
        found.append({**about, "files": files})
        lines.append(f"{each.name}\n  {each.title}\n  terms: {each.terms}\n  {each.page}")
        for file in files:
            trust = "checked by SHA-256" if file["sha256"] else "no checksum: the first download is trusted"
            lines.append(f"    {file['address']}  ({trust})")
    run.print(found, "\n".join(lines))


@group.command(name="get")
def get(
    run: Run,
    name: Annotated[
        str,
        Argument(
            help="Data set: digits, letters, orl, cedar, lfw, omniglot or fashion-mnist.", metavar="NAME"
        ),
    ],
    from_: Annotated[
        Path | None,
        Option(
            "--from", help="Local copy to read, an archive or a folder (default: the variable TWINNED_DATA)."
        ),
    ] = None,
    output: Annotated[
        Path | None, Option("-o", "--output", help="Folder to write (default: named after the data set).")
    ] = None,
    force: Force = False,
) -> None:
    """Download a public data set from its owner, or convert a local copy, for training."""
    with collect() as notes:
        folder = tw.data.fetch(name, output, source=from_, force=force, progress=run.progress)
    images = len(tw.data.find_images(folder))
    use = [str(folder / part) for part in tw.data.DATA_SETS[name].use if (folder / part).exists()]
    result = {"name": name, "output": str(folder), "images": images, "data": use}
    result["notes"] = [note.text for note in notes]
    text = f"{folder}: {many(images, 'image')}; train on {' or '.join(use)}"
    run.print(result, text)
