"""Commands on galleries: gallery ..., identify, search."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

import twinned as tw

from ..errors import DataError, SettingError, many, some
from ..utils.notes import logger
from .options import (
    ERRORS_SHOWN,
    Commands,
    EveryFace,
    Images,
    ModelFolder,
    OneFace,
    Run,
    Served,
    face_name,
    print_errors,
    print_note,
)

if TYPE_CHECKING:
    from ..gallery.results import Hit

app = Commands()
group = Commands(help="Enroll, list and manage the images of a gallery.")


def _address(help_text: str, metavar: str) -> Any:
    return Argument(help=f"{help_text}: a folder, or http://HOST:6333/NAME.", metavar=metavar)


_BATCH = 32  # images between two steps of the progress bar
Address = Annotated[str, _address("Gallery", "GALLERY")]
Ids = Annotated[list[str] | None, Option("--id", help="Id of an image; can be repeated.")]
Where = Annotated[
    list[str] | None, Option("--where", help="Metadata that images must have, KEY=VALUE; can be repeated.")
]
Label = Annotated[str | None, Option(help="Label of the images.")]
Metadata = Annotated[
    list[str] | None, Option("--meta", help="Metadata of the images, KEY=VALUE; can be repeated.")
]
OnlyLabel = Annotated[
    list[str] | None, Option("--label", help="Label that images must have; can be repeated.")
]


def _pairs(given: list[str] | None) -> dict[str, Any]:
    """Convert ``key=value`` strings to metadata; numbers and true/false are parsed."""
    found: dict[str, Any] = {}
    for pair in given or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise SettingError(f"metadata {pair!r}: expected KEY=VALUE")
        found[key] = _value(value)
    return found


def _value(text: str) -> str | bool | int | float:
    """Parse a number or true/false; other text, and numbers that a gallery cannot store, stay text."""
    from json import loads

    try:
        parsed = loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(parsed, float):
        return parsed if math.isfinite(parsed) else text
    return parsed if isinstance(parsed, int) and -(2**63) <= parsed < 2**63 else text


def _labeled(given: Path, label: str | None, shared: dict[str, Any]) -> list[tuple[Any, str | None, Any]]:
    """Return path, label and metadata of each image of a folder, a CSV file or an image file."""
    from ..data.images import SUFFIXES
    from ..data.readers import find_images, load_with_metadata

    found = find_images(given) if given.is_dir() else [str(given)]
    flat = given.is_dir() and found and all(Path(path).parent == given for path in found)
    if flat and label is None:
        logger.info(f"{given}: no class folders, so its images have no label (to give one: --label)")
    if flat or label is not None:
        return [(path, label, shared) for path in found]
    if given.is_file() and given.suffix.lower() in SUFFIXES:
        raise SettingError(
            f"{given}: an image requires --label. Only folders with one folder per label have labels"
        )
    data, rows = load_with_metadata(given)
    for text in data.notes:
        logger.info(text)
    if columns := sorted(set().union(*rows)):
        logger.info(f"{given}: stored as metadata: {some(columns)}")
    if forged := int(data.forgery.sum()):
        print_note(f"{given}: {many(forged, 'forged image')} left out")
    return [
        (image, str(name), {key: _value(value) for key, value in row.items()} | shared)
        for image, name, row, forgery in zip(data.images, data.labels, rows, data.forgery, strict=True)
        if not forgery
    ]


@group.command()
def add(
    run: OneFace,
    model: ModelFolder,
    gallery: Address,
    images: Annotated[
        list[Path],
        Argument(help="Folders with one folder per label, CSV files, or image files.", metavar="DATA..."),
    ],
    label: Label = None,
    metadata: Metadata = None,
) -> None:
    """Enroll images, labeled by their folders. Images that the gallery has already are skipped.

    Images of a folder without class folders have no label: they can be found, but not identified.

    The columns of a CSV file other than path, label and role become metadata; --meta takes precedence.
    """
    shared = _pairs(metadata)
    rows = [row for given in images for row in _labeled(given, label, shared)]
    if not rows:
        raise DataError(f"no images in {', '.join(map(str, images))}")
    paths, labels, columns = zip(*rows, strict=True)
    with run.load(model).gallery(gallery, create=True) as opened:
        added = opened.add(paths, labels, metadata=columns, progress=run.progress)
        count = opened.count()
    errors = [str(error) for error in added.unreadable]
    if len(errors) == len(paths):
        raise DataError(f"none of {many(len(paths), 'image')} can be read: {some(errors, ERRORS_SHOWN)}")
    print_errors(errors)
    run.print(
        {"stored": added.stored, "skipped": added.skipped, "unreadable": errors, "count": count},
        f"{run.url or gallery}: {many(added.stored, 'image')} enrolled, {added.skipped:,} already there,"
        f" {len(errors):,} unreadable; {count:,} in total",
    )


@group.command()
def remove(run: Served, model: ModelFolder, gallery: Address, ids: Ids = None, label: Label = None) -> None:
    """Remove images by id, or all images of a label."""
    with run.load(model).gallery(gallery, create=False) as opened:
        removed = opened.remove(ids, label=label)
        count = opened.count()
    text = f"{run.url or gallery}: {many(len(removed.items), 'image')} removed; {count:,} left"
    run.print({"removed": len(removed.items), "count": count}, text)


@group.command()
def update(
    run: Served,
    model: ModelFolder,
    gallery: Address,
    ids: Ids = None,
    label: Annotated[
        str | None, Option(help="New label of the images --id; with --rename, the label to rename.")
    ] = None,
    rename: Annotated[str | None, Option(help="New name for the label --label.")] = None,
    metadata: Metadata = None,
) -> None:
    """Change the label or metadata of images, or rename a label."""
    with run.load(model).gallery(gallery, create=False) as opened:
        if rename is not None:
            if label is None or ids:
                raise SettingError("--rename NEW requires --label OLD, without --id")
            changed = opened.rename(label, rename)
        elif not ids or (label is None and not metadata):
            raise SettingError(
                "update requires --id with --label or --meta, or --label OLD with --rename NEW"
            )
        else:
            for one in ids:
                opened.update(one, label=label, metadata=_pairs(metadata) if metadata else None)
            changed = len(ids)
    run.print({"updated": changed}, f"{run.url or gallery}: {many(changed, 'image')} updated")


@group.command(name="list")
def list_(
    run: Served, model: ModelFolder, gallery: Address, label: OnlyLabel = None, where: Where = None
) -> None:
    """List the enrolled images."""
    with run.load(model).gallery(gallery, create=False) as opened:
        page = opened.list(label=label, where=_pairs(where))
    lines = [f"{item.id}  {item.label or '-'}  {item.image or '-'}" for item in page.items]
    run.print(page.to_json(), "\n".join([*lines, many(page.count, "image")]))


@group.command()
def count(
    run: Served, model: ModelFolder, gallery: Address, label: OnlyLabel = None, where: Where = None
) -> None:
    """Count the enrolled images."""
    with run.load(model).gallery(gallery, create=False) as opened:
        found = opened.count(label=label, where=_pairs(where))
        labels = opened.labels(where=_pairs(where))
    if label:
        labels = {name: n for name, n in labels.items() if name in label}
    run.print({"count": found, "labels": labels}, f"{many(found, 'image')}, {many(len(labels), 'label')}")


@group.command()
def duplicates(
    run: Served,
    model: ModelFolder,
    gallery: Address,
    within: Annotated[
        float | None,
        Option(help="Largest distance of near-duplicates (default: a tenth of the threshold; 0.1 without)."),
    ] = None,
) -> None:
    """Find groups of near-duplicates, each image with its distance to the nearest other one of the group."""
    with run.load(model).gallery(gallery, create=False) as opened, run.working():
        groups = opened.duplicates(within)
    run.print(
        [[{"id": hit.id, **hit.to_json()} for hit in group] for group in groups],
        "\n\n".join(map(_lines, groups)) or "no near-duplicates",
    )


def _lines(hits: Iterable[Hit]) -> str:
    """Return a line for each image found: distance, label, file or id."""
    return "\n".join(f"{round(h.distance, 6):.4g}  {h.label or '-'}  {h.image or h.id}" for h in hits)


@group.command()
def rebuild(
    run: Run,
    model: ModelFolder,
    gallery: Address,
    into: Annotated[str | None, Option(help="New gallery to write (default: replace GALLERY).")] = None,
    skip_missing: Annotated[
        bool, Option("--skip-missing", help="Leave out images whose files are missing.")
    ] = False,
    allow_loss: Annotated[
        int, Option(help="Number of images that replacing the gallery may lose.", metavar="N")
    ] = 0,
) -> None:
    """Embed the images of a gallery again, from their files, with another model.

    The gallery is replaced at the end, in one step. If images would be lost, it is replaced only as far as
    --allow-loss permits.
    """
    from ..gallery.copy import rebuild

    added = rebuild(
        gallery,
        tw.load(model),
        into=into,
        skip_missing=skip_missing,
        allow_loss=allow_loss,
        progress=run.progress,
    )
    print_errors(added.unreadable)
    run.print(
        {"stored": added.stored, "unreadable": [str(error) for error in added.unreadable]},
        f"{into or gallery}: {many(added.stored, 'image')} embedded again, {len(added.unreadable)} left out",
    )


@group.command()
def copy(
    run: Run,
    model: ModelFolder,
    source: Annotated[str, _address("Gallery to read", "SRC")],
    target: Annotated[str, _address("Gallery to write", "DST")],
) -> None:
    """Copy a gallery, from a folder to a server or back. An interrupted copy continues when run again."""
    from ..gallery.copy import copy

    loaded = tw.load(model)
    with loaded.gallery(source, create=False) as original, loaded.gallery(target) as copied:
        written = copy(original, copied, progress=run.progress)
        total = copied.count()
    text = f"{target}: {many(written, 'image')} copied, {total:,} in total"
    run.print({"copied": written, "count": total}, text)


@app.command()
def identify(
    run: EveryFace,
    model: ModelFolder,
    gallery: Address,
    images: Images,
    fpir: Annotated[
        float, Option(help="False positive identification rate: fraction of unknown probes that get a label.")
    ] = 0.01,
    label: OnlyLabel = None,
    where: Where = None,
) -> None:
    """Identify images: the label of each, or unknown. With --faces all, of each face, with its box."""
    loaded = run.load(model)
    with loaded.gallery(gallery, create=False) as opened:
        near = partial(opened.identify, fpir=fpir, label=label, where=_pairs(where))
        found = run.answers_on(images, loaded.spec, near, "Identifying", _BATCH)
    run.print_answers(found)


@app.command()
def search(
    run: EveryFace,
    model: ModelFolder,
    gallery: Address,
    images: Images,
    k: Annotated[int, Option("-k", help="Number of images to find.")] = 5,
    exact: Annotated[
        bool, Option("--exact", help="Compare with every image instead of using an index.")
    ] = False,
    label: OnlyLabel = None,
    where: Where = None,
) -> None:
    """Find the enrolled images that are most similar, nearest first.

    The JSON of several images is one object: the images found, by the name of the image. With --faces all it
    is a list: image, box and the images found for each face.
    """
    from ..inference.inputs import queries_of

    loaded = run.load(model)
    every = loaded.spec.faces == "all"
    with loaded.with_faces("none" if every else None).gallery(gallery, create=False) as opened:
        near = partial(opened.search, k=k, exact=exact, label=label, where=_pairs(where))

        def ask(paths: list[str]) -> list[Any]:
            return [(query, near(query.image)) for query in queries_of(paths, loaded.spec)[0]]

        answers = run.answers_on(images, loaded.spec, ask, "Searching", 1)
    blocks = [
        f"{face_name(query.name, query.box)}\n" * (len(answers) > 1)
        + (_lines(hits) or "the gallery is empty")
        for query, hits in answers
    ]
    values = [(query, [hit.to_json() for hit in hits]) for query, hits in answers]
    value: Any = values[0][1] if len(values) == 1 else {query.name: hits for query, hits in values}
    if every:
        value = [{"image": query.name, "box": query.box, "found": hits} for query, hits in values]
    run.print(value, "\n\n".join(blocks))
