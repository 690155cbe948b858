"""Commands on galleries: gallery ..., identify, search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DataError, SettingError, some
from .main import (
    Json,
    Quiet,
    app,
    note,
    print_result,
    teller,
)
from .predict import ModelFolder

galleries = typer.Typer(no_args_is_help=True, help="Enrol, list and look after the images of a gallery.")
app.add_typer(galleries, name="gallery")

Address = Annotated[str, typer.Argument(help="A folder, or http://host:6333/name.", metavar="GALLERY")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Of an image; may be given again.")]
Where = Annotated[
    list[str] | None, typer.Option("--where", help="Only images with this metadata: key=value.")
]
OnlyLabel = Annotated[list[str] | None, typer.Option("--label", help="Only this label; may be given again.")]

_NAMED = 20  # unreadable images


def _open(model: Path, address: str, *, create: bool = False) -> Any:
    from ..inference.model import load

    return load(model).gallery(address, create=create)


def _pairs(given: list[str] | None) -> dict[str, Any]:
    """``key=value`` as metadata; numbers and true/false are read as such."""
    found: dict[str, Any] = {}
    for pair in given or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise SettingError(f"metadata is given as key=value; got {pair!r}")
        found[key] = _value(value)
    return found


def _value(text: str) -> str | bool | int | float:
    """Read a number or true/false as such; any other text, and a number that no gallery keeps, is text."""
    from json import loads
    from math import isfinite

    try:
        parsed = loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(parsed, float):
        return parsed if isfinite(parsed) else text
    return parsed if isinstance(parsed, int) and -(2**63) <= parsed < 2**63 else text


@galleries.command()
def add(
    model: ModelFolder,
    gallery: Address,
    images: Annotated[
        list[Path], typer.Argument(help="Folders of class folders, CSVs, or images.", metavar="DATA...")
    ],
    label: Annotated[str | None, typer.Option(help="Of all these images.")] = None,
    metadata: Annotated[list[str] | None, typer.Option("--meta", help="key=value for all of them.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Enrol images; a folder's class folders are the labels. What is stored already is skipped.

    The columns of a CSV other than path, label and role are kept as metadata; --meta takes precedence.
    """
    from ..data.images import SUFFIXES
    from ..data.readers import find_images, load_with_metadata

    shared = _pairs(metadata)
    paths: list[Any] = []
    labels: list[str | None] = []
    of_each: list[dict[str, Any]] = []
    for given in images:
        if label is not None:
            found = find_images(given) if given.is_dir() else [str(given)]
            paths += found
            labels += [label] * len(found)
            of_each += [shared] * len(found)
            continue
        if given.is_file() and given.suffix.lower() in SUFFIXES:
            raise SettingError(f"{given}: an image needs --label; folders of class folders bring their own")
        data, rows = load_with_metadata(given)
        for sentence in data.notes:
            teller(quiet)(sentence)
        if columns := sorted(set().union(*rows)):
            teller(quiet)(f"{given}: kept as metadata: {some(columns)}")
        if forged := int(data.forgery.sum()):
            note(f"{given}: {forged} forgeries are not enrolled")
        genuine = [place for place, forgery in enumerate(data.forgery.tolist()) if not forgery]
        paths += [data.images[place] for place in genuine]
        labels += [str(data.labels[place]) for place in genuine]
        of_each += [{**{k: _value(v) for k, v in rows[place].items()}, **shared} for place in genuine]
    if not paths:
        raise DataError(f"no images in {', '.join(map(str, images))}")
    with _open(model, gallery, create=True) as opened:
        added = opened.add(paths, labels, metadata=of_each, progress=not quiet)
        count = opened.count()
    if len(added.unreadable) == len(paths):
        named = "; ".join(str(error) for error in added.unreadable[:_NAMED])
        raise DataError(f"none of {len(paths):,} images can be read: {named}{_further(added.unreadable)}")
    _note_unreadable(added.unreadable)
    print_result(
        {
            "stored": added.stored,
            "skipped": added.skipped,
            "unreadable": [str(error) for error in added.unreadable],
            "count": count,
        },
        as_json=json,
        text=f"{gallery}: {added.stored} images enrolled, {added.skipped} there already,"
        f" {len(added.unreadable)} unreadable; {count} in all",
    )


def _note_unreadable(unreadable: Sequence[object]) -> None:
    for error in unreadable[:_NAMED]:
        note(f"left out: {error}")
    if further := _further(unreadable):
        note(f"left out{further}")


def _further(unreadable: Sequence[object]) -> str:
    return f" and {len(unreadable) - _NAMED:,} more" if len(unreadable) > _NAMED else ""


@galleries.command()
def remove(
    model: ModelFolder,
    gallery: Address,
    ids: Ids = None,
    label: Annotated[str | None, typer.Option(help="All images of this label.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove images by id, or all of a label."""
    with _open(model, gallery) as opened:
        removed = opened.remove(ids, label=label)
        count = opened.count()
    print_result(
        {"removed": len(removed.items), "count": count},
        as_json=json,
        text=f"{gallery}: {len(removed.items)} images removed; {count} left",
    )


@galleries.command()
def update(
    model: ModelFolder,
    gallery: Address,
    ids: Ids = None,
    label: Annotated[str | None, typer.Option(help="The new label (with --id), or the old one.")] = None,
    rename: Annotated[str | None, typer.Option(help="The new name of --label.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--meta", help="key=value, instead of the old.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Change the label or metadata of images, or rename a label."""
    with _open(model, gallery) as opened:
        if rename is not None:
            if label is None or ids:
                raise SettingError("--rename NEW goes with --label OLD, without --id")
            changed = opened.rename(label, rename)
        else:
            if not ids or (label is None and not metadata):
                raise SettingError("update takes --id with --label or --meta, or --label OLD --rename NEW")
            for one in ids:
                opened.update(one, label=label, metadata=_pairs(metadata) if metadata else None)
            changed = len(ids)
    print_result({"updated": changed}, as_json=json, text=f"{gallery}: {changed} images updated")


@galleries.command(name="list")
def list_(
    model: ModelFolder,
    gallery: Address,
    label: OnlyLabel = None,
    where: Where = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the enrolled images."""
    with _open(model, gallery) as opened:
        page = opened.list(label=label, where=_pairs(where))
    lines = [f"{item.id}  {item.label or '-'}  {item.image or '-'}" for item in page.items]
    print_result(page.to_json(), as_json=json, text="\n".join([*lines, f"{page.count} images"]))


@galleries.command()
def count(
    model: ModelFolder,
    gallery: Address,
    label: OnlyLabel = None,
    where: Where = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count the enrolled images."""
    with _open(model, gallery) as opened:
        found = opened.count(label=label, where=_pairs(where))
        labels = opened.labels(where=_pairs(where))
    if label:
        labels = {name: n for name, n in labels.items() if name in label}
    print_result(
        {"count": found, "labels": labels}, as_json=json, text=f"{found} images, {len(labels)} labels"
    )


@galleries.command()
def duplicates(
    model: ModelFolder,
    gallery: Address,
    within: Annotated[
        float | None, typer.Option(help="Distance; by default a tenth of the threshold.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find groups of near-duplicates."""
    with _open(model, gallery) as opened:
        groups = opened.duplicates(within)
    value = [[{"id": r.id, "label": r.label, "image": r.image} for r in group] for group in groups]
    text = "\n\n".join("\n".join(f"{r.label or '-'}  {r.image or r.id}" for r in group) for group in groups)
    print_result(value, as_json=json, text=text or "no near-duplicates")


@galleries.command()
def rebuild(
    model: ModelFolder,
    gallery: Address,
    into: Annotated[str | None, typer.Option(help="A new gallery, instead of replacing this one.")] = None,
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="Leave out lost files.")] = False,
    allow_loss: Annotated[
        int, typer.Option(help="Replace the gallery even if it loses up to this many images.", metavar="N")
    ] = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Embed a gallery's images again, from their files, for this model.

    The gallery is replaced at the end, in one step, and never by one with fewer images unless --allow-loss
    permits it.
    """
    from ..gallery.copy import rebuild as run
    from ..inference.model import load

    added = run(
        gallery,
        load(model),
        into=into,
        skip_missing=skip_missing,
        allow_loss=allow_loss,
        progress=not quiet,
    )
    _note_unreadable(added.unreadable)
    print_result(
        {"stored": added.stored, "unreadable": [str(error) for error in added.unreadable]},
        as_json=json,
        text=f"{into or gallery}: {added.stored} images embedded again, {len(added.unreadable)} left out",
    )


@galleries.command()
def copy(
    model: ModelFolder,
    source: Annotated[str, typer.Argument(help="The gallery to read.", metavar="SRC")],
    target: Annotated[str, typer.Argument(help="The gallery to write.", metavar="DST")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy a gallery, from a folder to a server or back; run it again to go on."""
    from ..gallery.copy import copy as run

    with _open(model, source) as ours, _open(model, target, create=True) as theirs:
        written = run(ours, theirs, progress=not quiet)
        total = theirs.count()
    print_result(
        {"copied": written, "count": total}, as_json=json, text=f"{target}: {written} copied, {total} in all"
    )


@app.command()
def identify(
    model: ModelFolder,
    gallery: Address,
    images: Annotated[list[Path], typer.Argument(help="The images asked about.", metavar="IMAGE...")],
    fpir: Annotated[float, typer.Option(help="Share of strangers that may be given a name.")] = 0.01,
    label: OnlyLabel = None,
    where: Where = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Name who or what images show, or say unknown."""
    with _open(model, gallery) as opened:
        found = opened.identify([str(i) for i in images], fpir=fpir, label=label, where=_pairs(where))
    lines = [
        f"{f.image}  {f.label or 'unknown'}  probability {f.probability:.3f}  distance {f.distance:.4g}"
        for f in found
    ]
    print_result([f.to_json() for f in found], as_json=json, text="\n".join(lines))


@app.command()
def search(
    model: ModelFolder,
    gallery: Address,
    image: Annotated[Path, typer.Argument(help="The image asked about.", metavar="IMAGE")],
    k: Annotated[int, typer.Option("-k", help="How many.")] = 5,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with all, even with an index.")] = False,
    label: OnlyLabel = None,
    where: Where = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the enrolled images that look most alike, nearest first."""
    with _open(model, gallery) as opened:
        hits = opened.search(str(image), k, exact=exact, label=label, where=_pairs(where))
    lines = [f"{h.distance:.4g}  {h.label or '-'}  {h.image or h.id}" for h in hits]
    print_result([h.to_json() for h in hits], as_json=json, text="\n".join(lines) or "the gallery is empty")
