"""Commands on public data sets: data list, data get."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .main import (
    Force,
    Json,
    Quiet,
    app,
    print_result,
    teller,
)

data = typer.Typer(no_args_is_help=True, help="Public data sets: what there is, fetching one.")
app.add_typer(data, name="data")


@data.command(name="list")
def list_(json: Json = False) -> None:
    """List the public data sets: what they hold, their terms, where they lie."""
    from ..data.catalog.registry import DATA_SETS

    found = [
        {
            "name": each.name,
            "title": each.title,
            "terms": each.terms,
            "page": each.page,
            "files": [
                {"address": file.addresses[0], "sha256": file.sha256, "most_bytes": file.max_bytes}
                for file in each.downloads
            ],
        }
        for each in DATA_SETS.values()
    ]
    lines = ["digits\n  1,797 handwritten digits of 10 classes, 8x8; scikit-learn ships them"]
    for each in DATA_SETS.values():
        lines.append(f"{each.name}\n  {each.title}\n  terms: {each.terms}\n  {each.page}")
        for file in each.downloads:
            checked = "checked by SHA-256" if file.sha256 else "no checksum is known: taken on trust at first"
            lines.append(f"    {file.addresses[0]}  ({checked})")
    print_result(found, as_json=json, text="\n".join(lines))


@data.command(name="get")
def get(
    name: Annotated[
        str, typer.Argument(help="digits, orl, cedar, lfw, omniglot or fashion-mnist.", metavar="NAME")
    ],
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="A local copy: an archive or a folder; or the variable TWINNED_DATA."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder to write; by default its name.")
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a public data set from its owner, or take it from a local copy, ready to be trained on."""
    from ..data.catalog.download import fetch
    from ..data.catalog.registry import DATA_SETS
    from ..data.readers import find_images
    from ..utils.notes import collect

    with collect() as notes:
        folder = fetch(name, output, source=from_, force=force, progress=not quiet)
    for note in notes:
        teller(quiet)(note.text)
    images = len(find_images(folder))
    parts = DATA_SETS[name].use if name in DATA_SETS else ("known", "novel")
    use = [str(folder / part) for part in parts if (folder / part).exists()]
    print_result(
        {
            "name": name,
            "output": str(folder),
            "images": images,
            "data": use,
            "notes": [note.text for note in notes],
        },
        as_json=json,
        text=f"{folder}: {images:,} images; train on {' or '.join(use)}",
    )
