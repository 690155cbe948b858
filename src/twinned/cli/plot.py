"""Commands that draw: plot ..., explain."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

import twinned as tw

from ..errors import DataError
from ..utils.notes import logger
from .options import MODEL_HELP, Commands, Device, EvaluationData, Force, ModelFolder, Run, Seed, load_on

app = Commands()
group = Commands(help="Draw a model, its training, its metrics or its images, as .png or .svg.")

Images = Annotated[Path, Argument(help="Folder with one folder per class, or CSV file.", metavar="DATA")]
View = Literal["overview", "roc", "det", "distances", "reliability", "mistakes", "confusion"]


@dataclass(frozen=True, kw_only=True)
class Picture(Run):
    """Options of commands that draw."""

    output: Annotated[Path, Option("-o", "--output", help="Picture to write, .png or .svg.")]
    force: Force = False

    def load(self, model: Path, *data: Path, device: str = "auto") -> tw.Model:
        """Check that the picture can be written, then load the model."""
        tw.plots.target(self.output, force=self.force, data=[model, *data])
        return load_on(device, model)

    def save(self, drawn: Any, value: Mapping[str, Any] | None = None, text: str = "") -> None:
        """Write the picture, and print its path with further results."""
        tw.plots.save(drawn, self.output, force=self.force)
        self.print({"output": str(self.output), **(value or {})}, f"{self.output}{text}")


@group.command()
def architecture(run: Picture, model: ModelFolder) -> None:
    """Draw the network: output shapes, parameter counts, two branches with shared weights."""
    run.save(tw.plots.draw_architecture(run.load(model)))


@group.command()
def history(
    run: Picture,
    models: Annotated[list[Path], Argument(help=MODEL_HELP, metavar="MODEL...")],
    over: Annotated[
        Literal["step", "seconds", "epoch"], Option(help="Unit of the horizontal axis.")
    ] = "step",
) -> None:
    """Draw loss, held-out error and accuracy during training; for several models, accuracy over time."""
    tw.plots.target(run.output, force=run.force, data=models)
    tables = {}
    for folder in models:
        loaded = tw.load(folder)
        if (reason := loaded.record.without_history()) is not None:
            raise DataError(f"{folder}: has no training history to draw: {reason}")
        tables[str(folder)] = loaded.record.history()
    if len(models) == 1:
        run.save(tw.plots.history(tables[str(models[0])], over=over))
    else:
        run.save(tw.plots.accuracy_over_time(tables))


@group.command()
def verification(
    run: Picture,
    model: ModelFolder,
    data: EvaluationData,
    view: Annotated[View, Option(help="Kind of picture.")] = "overview",
    protocol: Annotated[str, Option(help="Evaluation protocol: auto, classes, pairs or lfw.")] = "auto",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Draw verification metrics: ROC, DET, distances, reliability, mistakes, confusion."""
    loaded = run.load(model, data, device=device)
    with run.working():
        found = loaded.evaluate(str(data), protocol=protocol, seed=seed, progress=run.progress)
    for text in found.notes:
        logger.info(text)
    run.save(_verification(loaded, found, view, str(data)))


def _verification(model: tw.Model, found: tw.Evaluation, view: View, data: str) -> Any:
    """Draw one view of an evaluation."""
    from ..data.images import source_name
    from ..evaluation.verification import reliability
    from ..metrics.retrieval import nearest_labels

    result, comparisons, shown = found.verification, found.comparisons, found.data
    if result is None or comparisons is None or shown is None:
        raise DataError(f"{data}: protocol {found.protocol} compares no pairs. Choose classes, pairs or lfw")
    calibration = model.manifest.calibration
    match view:
        case "overview":
            return tw.plots.overview(result, comparisons, reliability(comparisons, calibration))
        case "roc":
            return tw.plots.roc(result)
        case "det":
            return tw.plots.det(result)
        case "distances":
            return tw.plots.distances(comparisons, calibration.threshold)
        case "reliability":
            return tw.plots.reliability(reliability(comparisons, calibration))
        case "mistakes":
            of_pairs = found.protocol == "pairs"
            names = [source_name(image) for image in shown.images] if of_pairs else shown.labels
            return tw.plots.worst_mistakes(comparisons, shown.images, names, threshold=calibration.threshold)
        case "confusion":
            if found.protocol != "classes":
                raise DataError(
                    f"{data}: a confusion matrix requires classes; protocol {found.protocol} has none"
                )
            labels = shown.labels[~shown.forgery]
            answers = nearest_labels(shown.embeddings[~shown.forgery], labels, model.distances)
            return tw.plots.confusion(labels.tolist(), answers.tolist())


@group.command()
def embeddings(
    run: Picture,
    model: ModelFolder,
    data: Images,
    method: Annotated[
        Literal["tsne", "umap"], Option(help="Projection to two dimensions; umap requires umap-learn.")
    ] = "tsne",
    most: Annotated[int, Option(help="Maximum number of images, drawn at random.", min=4)] = 1000,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Draw a map of the embeddings of images, with thumbnails; preferably of classes not used in training."""
    import numpy as np

    loaded, images = run.load(model, data, device=device), tw.load_images(data)
    if len(images) > most:
        images = images.subset(np.sort(np.random.default_rng(seed).permutation(len(images))[:most]))
        logger.info(f"{most} images of {data} are drawn. Set --most N to draw more")
    with run.working():
        vectors = loaded.embed(images.images, progress=run.progress)
        points = tw.plots.project(vectors, method=method, distance=loaded.distance, seed=seed)
    drawn = tw.plots.embedding_map(
        points,
        images.labels.tolist(),
        images=images.images,
        seen=loaded.manifest.classes,
        method={"tsne": "t-SNE", "umap": "UMAP"}[method],
    )
    run.save(drawn)


@group.command()
def neighbours(
    run: Picture,
    model: ModelFolder,
    data: Images,
    queries: Annotated[list[Path], Argument(help="Images to search for.", metavar="IMAGE...")],
    k: Annotated[int, Option("-k", help="Number of neighbors of each image.", min=1, max=20)] = 6,
    device: Device = "auto",
) -> None:
    """Draw the nearest images of DATA to each query; a query that is in DATA does not find itself."""
    import numpy as np

    loaded, images = run.load(model, data, *queries, device=device), tw.load_images(data)
    vectors = loaded.embed(images.images, progress=run.progress)
    distances = loaded.distances(loaded.embed([str(q) for q in queries]), vectors)
    index = {os.path.realpath(str(image)): n for n, image in enumerate(images.images)}
    asked, found = [], []
    for query, row in zip(queries, distances, strict=True):
        itself = index.get(os.path.realpath(query))
        nearest = [int(n) for n in np.argsort(row, kind="stable") if n != itself][:k]
        asked.append(tw.plots.Shown(query, None if itself is None else str(images.labels[itself])))
        found.append(
            [tw.plots.Shown(images.images[n], str(images.labels[n]), float(row[n])) for n in nearest]
        )
    run.save(tw.plots.neighbours(asked, found, threshold=loaded.manifest.threshold))


@group.command("one-shot")
def one_shot(
    run: Picture,
    model: ModelFolder,
    support: Annotated[
        Path, Argument(help="Folder with one folder per class, whose first image is the example.")
    ],
    query: Annotated[Path, Argument(help="Image to classify.", metavar="IMAGE")],
    truth: Annotated[str | None, Option(help="True class of IMAGE, if known.")] = None,
    forced: Annotated[bool, Option("--forced", help="Never answer 'unknown'.")] = False,
    device: Device = "auto",
) -> None:
    """Draw a one-shot classification: the query, one example per class, the answer."""
    import numpy as np

    loaded = run.load(model, support, query, device=device)
    images = tw.load_images(support).genuine()
    first = np.unique(images.labels, return_index=True)[1]
    examples = [images.images[n] for n in first]
    distances = loaded.distances(loaded.embed([str(query)]), loaded.embed(examples))[0]
    shown = [
        tw.plots.Shown(image, str(images.labels[n]), float(distance))
        for image, n, distance in zip(examples, first, distances, strict=True)
    ]
    threshold = None if forced else loaded.manifest.threshold
    run.save(tw.plots.one_shot(tw.plots.Shown(query, truth), shown, threshold=threshold))


@app.command()
def explain(
    run: Picture,
    model: ModelFolder,
    a: Annotated[Path, Argument(help="First image.")],
    b: Annotated[Path, Argument(help="Second image.")],
    method: Annotated[
        Literal["auto", "exact", "occlusion"],
        Option(help="exact splits the similarity by region; occlusion covers one region at a time."),
    ] = "auto",
    cells: Annotated[
        int, Option(help="Number of regions along the shorter side, for --method occlusion.")
    ] = 7,
    device: Device = "auto",
) -> None:
    """Draw why two images match: the regions of one that correspond to regions of the other."""
    from ..inference.explain import explain
    from ..visualization.model_figures import draw_explanation

    loaded = run.load(model, a, b, device=device)
    found = explain(loaded, a, b, method=method, cells=cells)
    threshold, same, probability = loaded.manifest.threshold, None, None
    verdict = f"distance {found.distance:.4g}, by {found.method}"
    if threshold is not None:
        same, probability = found.distance <= threshold, float(loaded.probability(found.distance))
        verdict = f"{'same' if same else 'different'}, {verdict}"
    drawn = draw_explanation(found, threshold=threshold, probability=probability)
    run.save(
        drawn,
        {
            "method": found.method,
            "same": same,
            "probability": probability,
            "distance": found.distance,
            "threshold": threshold,
            "a": found.left_share.tolist(),
            "b": found.right_share.tolist(),
            "matches": [
                {"a": list(left), "b": list(right), "weight": weight}
                for left, right, weight in found.strongest()
            ],
        },
        f": {verdict}",
    )
