"""Commands that draw: plot ..., explain."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from ..errors import DataError
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

plot = typer.Typer(
    help="Draw a model, its training, its figures, its images: .png or .svg.", no_args_is_help=True
)
app.add_typer(plot, name="plot")

ModelFolder = Annotated[Path, typer.Argument(help="A model folder.", metavar="MODEL")]
Data = Annotated[Path, typer.Argument(help="A folder of class folders, or a CSV.", metavar="DATA")]
Output = Annotated[Path, typer.Option("-o", "--output", help="FILE.png or FILE.svg")]
Views = Literal["overview", "roc", "det", "distances", "reliability", "mistakes", "confusion"]


@plot.command()
def architecture(
    model: ModelFolder, output: Output, force: Force = False, json: Json = False, quiet: Quiet = False
) -> None:
    """The network: shapes, parameter counts, two branches and one set of weights."""
    from .. import visualization
    from ..inference.model import load

    visualization.target(output, force=force, data=[model])
    _save(visualization.draw_architecture(load(model)), output, force=force, json=json)


@plot.command()
def history(
    models: Annotated[list[Path], typer.Argument(help="Model folders.", metavar="MODEL...")],
    output: Output,
    over: Annotated[
        Literal["step", "seconds", "epoch"], typer.Option(help="What runs along the axis.")
    ] = "step",
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How training went: loss, held-out error and accuracy. Of several models: accuracy over the seconds."""
    from .. import visualization
    from ..inference.model import load

    visualization.target(output, force=force, data=models)
    tables = {}
    for folder in models:
        loaded = load(folder)
        if (reason := loaded.record.without_history()) is not None:
            raise DataError(f"{folder}: has no training history to draw: {reason}")
        tables[str(folder)] = loaded.history()
    if len(models) == 1:
        _save(visualization.history(tables[str(models[0])], over=over), output, force=force, json=json)
    else:
        _save(visualization.accuracy_over_time(tables), output, force=force, json=json)


@plot.command()
def verification(
    model: ModelFolder,
    data: Annotated[Path, typer.Argument(help="Class folders, a CSV, a pair list, or a protocol's folder.")],
    output: Output,
    view: Annotated[Views, typer.Option(help="Which picture.")] = "overview",
    protocol: Annotated[str, typer.Option(help="auto, classes, pairs or lfw")] = "auto",
    seed: Seed = 0,
    force: Force = False,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How well pairs are told apart: curves, distances, reliability, mistakes."""
    from .. import visualization
    from ..data.images import source_name
    from ..evaluation.verification import reliability
    from ..inference.model import load
    from ..metrics.retrieval import nearest_labels

    visualization.target(output, force=force, data=[model, data])
    loaded = load(model, device=device)
    found = loaded.evaluate(str(data), protocol=protocol, seed=seed, progress=not quiet)
    for sentence in found.notes:
        teller(quiet)(sentence)
    result, comparisons, shown = found.verification, found.comparisons, found.data
    if result is None or comparisons is None or shown is None:
        raise DataError(f"{data}: protocol {found.protocol} compares no pairs; choose classes, pairs or lfw")
    fit = loaded.manifest.calibration
    drawn: Any
    if view == "overview":
        drawn = visualization.overview(result, comparisons, reliability(comparisons, fit))
    elif view in ("roc", "det"):
        drawn = (visualization.roc if view == "roc" else visualization.det)(result)
    elif view == "distances":
        drawn = visualization.distances(comparisons, fit.threshold)
    elif view == "reliability":
        drawn = visualization.reliability(reliability(comparisons, fit))
    elif view == "mistakes":
        of_pairs = found.protocol == "pairs"
        names = [source_name(image) for image in shown.images] if of_pairs else shown.labels
        drawn = visualization.worst_mistakes(comparisons, shown.images, names, threshold=fit.threshold)
    else:
        if found.protocol != "classes":
            raise DataError(f"{data}: a confusion is of classes, and protocol {found.protocol} has none")
        labels = shown.labels[~shown.forgery]
        answers = nearest_labels(shown.embeddings[~shown.forgery], labels, loaded.distances)
        drawn = visualization.confusion(labels.tolist(), answers.tolist())
    _save(drawn, output, force=force, json=json)


@plot.command()
def embeddings(
    model: ModelFolder,
    data: Data,
    output: Output,
    method: Annotated[Literal["tsne", "umap"], typer.Option(help="umap needs umap-learn.")] = "tsne",
    most: Annotated[int, typer.Option(help="Images at most, drawn at random.", min=4)] = 1000,
    seed: Seed = 0,
    force: Force = False,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """A map of the embeddings of images, with thumbnails; best of classes never seen in training."""
    from .. import visualization
    from ..data.readers import load_images
    from ..inference.model import load

    visualization.target(output, force=force, data=[model, data])
    loaded, images = load(model, device=device), load_images(data)
    if len(images) > most:
        images = images.subset(np.sort(np.random.default_rng(seed).permutation(len(images))[:most]))
        if not quiet:
            note(f"{most} images of {data} are drawn; --most N for others")
    vectors = loaded.embed(images.images, progress=not quiet)
    drawn = visualization.embedding_map(
        visualization.project(vectors, method=method, distance=loaded.distance, seed=seed),
        images.labels.tolist(),
        images=images.images,
        seen=loaded.manifest.classes,
        method={"tsne": "t-SNE", "umap": "UMAP"}[method],
    )
    _save(drawn, output, force=force, json=json)


@plot.command()
def neighbours(
    model: ModelFolder,
    data: Data,
    queries: Annotated[list[Path], typer.Argument(help="The images to search for.", metavar="IMAGE...")],
    output: Output,
    k: Annotated[int, typer.Option("-k", help="How many neighbours.", min=1, max=20)] = 6,
    force: Force = False,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The nearest images of DATA to each query; a query that lies in DATA does not find itself."""
    from .. import visualization
    from ..data.readers import load_images
    from ..inference.model import load

    visualization.target(output, force=force, data=[model, data, *queries])
    loaded, images = load(model, device=device), load_images(data)
    vectors = loaded.embed(images.images, progress=not quiet)
    apart = loaded.distances(loaded.embed([str(q) for q in queries]), vectors)
    place = {os.path.realpath(str(image)): row for row, image in enumerate(images.images)}
    asked, found = [], []
    for query, row in zip(queries, apart, strict=True):
        itself = place.get(os.path.realpath(query))
        nearest = [int(n) for n in np.argsort(row, kind="stable") if n != itself][:k]
        asked.append(visualization.Shown(query, None if itself is None else str(images.labels[itself])))
        found.append(
            [visualization.Shown(images.images[n], str(images.labels[n]), float(row[n])) for n in nearest]
        )
    _save(visualization.neighbours(asked, found, threshold=loaded.threshold), output, force=force, json=json)


@plot.command("one-shot")
def one_shot(
    model: ModelFolder,
    support: Annotated[Path, typer.Argument(help="One folder a class; its first image is the example.")],
    query: Annotated[Path, typer.Argument(help="The image asked about.", metavar="IMAGE")],
    output: Output,
    truth: Annotated[str | None, typer.Option(help="The class that it is, where that is known.")] = None,
    forced: Annotated[bool, typer.Option("--forced", help="Never answer 'unknown'.")] = False,
    force: Force = False,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """A one-shot question: the query, one example of each class, the answer."""
    from .. import visualization
    from ..data.readers import load_images
    from ..inference.model import load

    visualization.target(output, force=force, data=[model, support, query])
    loaded, images = load(model, device=device), load_images(support).genuine()
    first = np.unique(images.labels, return_index=True)[1]
    examples = [images.images[n] for n in first]
    apart = loaded.distances(loaded.embed(str(query)), loaded.embed(examples))[0]
    shown = [
        visualization.Shown(image, str(images.labels[n]), float(distance))
        for image, n, distance in zip(examples, first, apart, strict=True)
    ]
    threshold = None if forced else loaded.threshold
    _save(
        visualization.one_shot(visualization.Shown(query, truth), shown, threshold=threshold),
        output,
        force=force,
        json=json,
    )


@app.command()
def explain(
    model: ModelFolder,
    a: Annotated[Path, typer.Argument(help="An image.")],
    b: Annotated[Path, typer.Argument(help="Another image.")],
    output: Output,
    method: Annotated[Literal["auto", "exact", "occlusion"], typer.Option(help="How.")] = "auto",
    cells: Annotated[int, typer.Option(help="Regions along the shorter side, for occlusion.")] = 7,
    force: Force = False,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw why two images match: which regions of one go with which of the other."""
    from .. import visualization
    from ..inference.explain import explain as run
    from ..inference.model import load
    from ..visualization.explanation import draw

    visualization.target(output, force=force, data=[model, a, b])
    loaded = load(model, device=device)
    found = run(loaded, a, b, method=method, cells=cells)
    probability = float(loaded.probability(found.distance))
    visualization.save(draw(found, threshold=loaded.threshold, probability=probability), output, force=force)
    strongest = [{"a": list(p), "b": list(q), "weight": weight} for p, q, weight in found.strongest()]
    print_result(
        {
            "output": str(output),
            "method": found.method,
            "same": found.distance <= loaded.threshold,
            "probability": probability,
            "distance": found.distance,
            "threshold": loaded.threshold,
            "a": found.left_share.tolist(),
            "b": found.right_share.tolist(),
            "matches": strongest,
        },
        as_json=json,
        text=f"{output}: {'same' if found.distance <= loaded.threshold else 'different'},"
        f" distance {found.distance:.4g}, by {found.method}",
    )


def _save(drawn: Any, output: Path, *, force: bool, json: bool) -> None:
    from .. import visualization

    visualization.save(drawn, output, force=force)
    print_result({"output": str(output)}, as_json=json, text=str(output))
