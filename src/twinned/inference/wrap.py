"""Wrap an ONNX encoder of any framework as a model, with a threshold and a probability."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import distances
from ..data.datasets import ImageSet, PairSet
from ..data.decoded import DecodedSet
from ..data.preprocessing import ImageSpec, parse_image_size
from ..data.readers import as_dataset
from ..data.splits import subsample
from ..errors import DataError, ModelError, SettingError
from ..evaluation.fitting import CalibrationReport, calibrate
from ..metrics.comparisons import compare
from ..metrics.roc import eer
from ..utils import files
from ..utils.notes import collect, note
from . import model_folder
from .embedder import GraphEmbedder
from .model import Model
from .model_card import card
from .model_folder import Manifest
from .onnx_import import InputFormat, OnnxEncoder, build, layouts_of, open_onnx, require_layout, size_of
from .session import Floats, Graph

# Usual inputs of float encoders, most frequent first: (pixels * scale - mean) / std.
_FED: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "by ImageNet's mean and deviation": (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "from -1 to 1": (1 / 255, (0.5,), (0.5,)),
    "from 0 to 1": (1 / 255, (0.0,), (1.0,)),
    "from 0 to 255": (1.0, (0.0,), (1.0,)),
}
_LOOK_AT = 256  # number of images that guesses are checked on


def wrap(
    encoder: str | os.PathLike[str],
    data: ImageSet | PairSet | str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    layout: str | None = None,
    scale: float | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    image_size: str | int | tuple[int, int] | None = None,
    channels: int | None = None,
    fit: str = "stretch",
    distance: str | None = None,
    far: float | None = None,
    licence: str | None = None,
    seed: int = 0,
    force: bool = False,
    progress: bool = True,
) -> Model:
    """Make a model from an ONNX encoder of any framework.

    Missing options are inferred from the file. Where it leaves a choice, each possibility is tried on some of
    the images, and the one with the lowest equal error rate is used. Notes are logged
    (`twinned.utils.notes`) and kept in the model. The model card names the license of the encoder, if
    given.

    Args:
        encoder: ONNX file with one input, an image, and one output, a vector.
        data: Images or pairs to fit the threshold to, or their path.
        output: Model folder to write; by default the model is in a temporary folder until it is saved.
        layout: ``nchw`` (PyTorch) or ``nhwc`` (TensorFlow, Keras, JAX).
        scale: Factor of the pixels, 0 to 255, before ``mean`` is subtracted and the result divided by
            ``std``. Defaults to 1/255, or to 1 for a mean above 1, if one of the others is given.
        mean: One value, or one per channel; 0 if only the others are given.
        std: One value, or one per channel; 1 if only the others are given.
        image_size: Height and width, if the file leaves them free.
        channels: 1 or 3, if the file leaves them free.
        fit: Resizing of images of another shape; see `ImageSpec`.
        distance: Name of the distance; by default cosine or Euclidean, whichever has the lower error.
        far: False accept rate to choose the threshold at; equal error by default.
        seed: Seed of samples and resampling.
        force: Replace ``output``.
        progress: Show progress bars.

    Raises:
        ModelError: If the file is not such an encoder.
        SettingError: If a required option is missing, or one does not fit the file.
        DataError: If the images give no genuine or no impostor comparison.
    """
    if far is not None and not 0 < far < 1:
        raise SettingError(f"A false accept rate must be between 0 and 1, such as 0.01; got {far}")
    path = Path(encoder)
    found = open_onnx(path)
    ways = _ways(found, layout, scale, mean, std, image_size, channels, fit)
    metrics = ("cosine", "euclidean") if distance is None else (distance,)
    for metric in metrics:
        distances.get(metric)
    target = None if output is None else Path(output)
    with collect() as notes, tempfile.TemporaryDirectory(prefix="twinned-") as name:
        images = as_dataset(data)
        if isinstance(images, ImageSet):
            images, texts = images.calibration_subset()
            for text in texts:
                note("split-column", text)
        if target is not None:
            model_folder.refuse_target(target, force=force, data=[images.origin, path])
        decoded = DecodedSet.from_images(images, ways[0].spec, progress=progress)
        _check(decoded, images.origin)
        folder = Path(name)
        way, metric = _choose(found, ways, metrics, decoded, folder, seed)
        build(found, way, folder / "encoder.onnx")
        embedder = GraphEmbedder(Graph(folder / "encoder.onnx", device="cpu"), way.spec, metric)
        embeddings = embedder.embed_pixels(decoded.pixels)
        if _is_constant(embeddings):
            raise _useless(path)
        report = calibrate(embeddings, decoded.dataset, embedder, far=far, seed=seed)
        note(
            "trained-elsewhere",
            f"the encoder was trained elsewhere; {path.name} does not record whether on these classes too",
        )
        for warning in report.warnings:
            note(*warning)
        manifest = {
            "distance": metric,
            "notes": notes,
            "licence": licence,
            "recipe": {"recipe": "wrap", "seed": seed},
        }
        _write(folder, path, way, embeddings, decoded, report, manifest)
        if target is not None:
            model_folder.copy(folder, target, force=force)
            return Model(target)
        kept: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory(prefix="twinned-")
        model_folder.copy(folder, Path(kept.name), force=True)
        return Model(kept.name, temporary=kept)


def _ways(
    found: OnnxEncoder,
    layout: str | None,
    scale: float | None,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    image_size: str | int | tuple[int, int] | None,
    channels: int | None,
    fit: str,
) -> list[InputFormat]:
    """Return the input formats that the file and the user leave open."""
    require_layout(layout)
    layouts = layouts_of(found)
    shown = ", ".join("?" if size is None else str(size) for size in found.shape)
    if not layouts:
        raise ModelError(f"{found.path}: The input is ({shown}); images have 1 or 3 channels, first or last")
    if layout is not None:
        if layout not in layouts:
            raise SettingError(
                f"{found.path}: The input is ({shown}), which is {' or '.join(layouts)}; got layout {layout}"
            )
        layouts = [layout]
    given = None if image_size is None else parse_image_size(image_size)
    if found.kind == "uint8":
        if any(value is not None for value in (scale, mean, std)):
            raise SettingError(f"{found.path}: The encoder takes uint8; scale, mean and std do not apply")
        fed = {"as bytes": _FED["from 0 to 255"]}
    elif any(value is not None for value in (scale, mean, std)):
        try:
            below, by = (
                np.atleast_1d(np.array(plain if value is None else value, float))
                for value, plain in ((mean, 0.0), (std, 1.0))
            )
            if not (below.size and by.size):
                raise ValueError("empty")
            times = float(scale) if scale is not None else 1.0 if below.max() > 1 else 1 / 255
        except (TypeError, ValueError):
            raise SettingError(
                f"scale must be a number, mean and std one or more; got scale {scale!r}, mean {mean!r},"
                f" std {std!r}"
            ) from None
        if not (np.isfinite([times, *below, *by]).all() and times > 0 and (by > 0).all()):
            options = {"scale": scale, "mean": mean, "std": std}
            got = ", ".join(f"{name} {value}" for name, value in options.items() if value is not None)
            raise SettingError(f"scale and std must be above 0, and mean finite; got {got}")
        words = f"as (pixels * {times:.4g} - {below.tolist()}) / {by.tolist()}"
        fed = {words: (times, tuple(below.tolist()), tuple(by.tolist()))}
    else:
        fed = _FED
    ways = []
    for name in layouts:
        height, width, planes = size_of(found, name)
        if given is not None and any(f not in (None, g) for f, g in zip((height, width), given, strict=True)):
            raise SettingError(f"{found.path}: Images must be {height}x{width}; got {given[0]}x{given[1]}")
        height, width = given or (height, width)
        if height is None or width is None:
            raise SettingError(f"{found.path}: The input is ({shown}). Set the image size, height x width")
        if channels is not None and planes not in (None, channels):
            raise SettingError(f"{found.path}: Images must have {planes} channels, {name}; got {channels}")
        planes = planes or channels or 3
        for words, (times, below_, by_) in fed.items():
            if not {len(below_), len(by_)} <= {1, planes}:
                if fed is _FED:
                    continue
                raise SettingError(f"mean and std need one value, or one per channel ({planes}); got {words}")
            spec = _spec(height, width, planes, fit, times, below_, by_)
            ways.append(InputFormat(name, spec, words))
    return ways


def _spec(
    height: int,
    width: int,
    channels: int,
    fit: str,
    times: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> ImageSpec:
    """Return the input format as an `ImageSpec`, whose mean and std apply to pixels divided by 255."""
    of_255 = 255 * times
    values: dict[str, Any] = {"height": height, "width": width, "channels": channels, "fit": fit}
    for name, given in (("mean", mean), ("std", std)):
        values[name] = tuple(float(v) for v in np.broadcast_to(np.array(given) / of_255, channels))
    return ImageSpec(**values)


def _choose(
    found: OnnxEncoder,
    ways: list[InputFormat],
    metrics: Sequence[str],
    decoded: DecodedSet,
    folder: Path,
    seed: int,
) -> tuple[InputFormat, str]:
    """Try the open choices on some of the images, and return the one with the lowest equal error rate."""
    if len(ways) == len(metrics) == 1:
        return ways[0], metrics[0]
    some = subsample(decoded, _LOOK_AT, seed=seed, per_class=4)
    if some.labelled is not None and not some.labelled.usable_classes():
        some = decoded
    errors: dict[tuple[int, str], float] = {}
    problem: ModelError | None = None
    for number, way in enumerate(ways):
        try:
            build(found, way, folder / "tried.onnx")
            graph = Graph(folder / "tried.onnx", device="cpu")
            vectors = GraphEmbedder(graph, way.spec, metrics[0]).embed_pixels(some.pixels)
        except ModelError as error:
            problem = error
            continue
        for metric in metrics:
            if not _is_constant(vectors):
                made = compare(vectors, some.dataset, GraphEmbedder(graph, way.spec, metric), seed=seed)
                errors[number, metric] = float(eer(made.distance, made.same))
    if not errors:
        raise problem or _useless(found.path)
    (folder / "tried.onnx").unlink()
    number, metric = min(errors, key=lambda tried: (errors[tried], tried[0], metrics.index(tried[1])))
    way = ways[number]
    guesses = [f"{way.layout}, pixels {way.words}"] if len(ways) > 1 else []
    guesses += [f"{metric} distance"] if len(metrics) > 1 else []
    others = sorted({round(error, 4) for error in errors.values()} - {round(errors[number, metric], 4)})
    against = f" (others: {', '.join(f'{error:.4f}' for error in others[:4])})" if others else ""
    least = errors[number, metric]
    note(
        "guessed-input",
        f"guessed by the equal error rate on {len(some.pixels)} images, {least:.4f}{against}:"
        f" {'; '.join(guesses)}",
    )
    noise = np.sqrt(max(least * (1 - least), 0.01) / len(some.pixels))
    near = [t for t in errors if t[0] != number and least < errors[t] < least + noise]
    if near:
        other = ways[min(near, key=errors.__getitem__)[0]]
        note(
            "ambiguous-input",
            f"the guess is not certain: {other.layout}, pixels {other.words} is as good on so few images."
            " Set layout, scale, mean and std to those of the encoder's training",
        )
    return way, metric


def _check(decoded: DecodedSet, origin: str) -> None:
    """Raise if no threshold can be fitted."""
    if not decoded.dataset.has_both_kinds:
        raise DataError(
            f"{origin}: A threshold needs same and different pairs: two classes, and two readable images"
            " of one of them"
        )


def _useless(path: Path) -> ModelError:
    return ModelError(
        f"{path}: The encoder returns the same vector for every image, or one that is not finite. Set layout,"
        " scale, mean and std to those of its training"
    )


def _is_constant(embeddings: Floats) -> bool:
    """Return True if embeddings are not finite, or the same for every image."""
    return not np.isfinite(embeddings).all() or not np.ptp(embeddings, axis=0).any()


def _write(
    folder: Path,
    path: Path,
    way: InputFormat,
    embeddings: Floats,
    decoded: DecodedSet,
    report: CalibrationReport,
    manifest: dict[str, Any],
) -> None:
    """Write a model folder around encoder.onnx."""
    from .. import __version__

    seed = manifest["recipe"]["seed"]
    classes = decoded.labelled.classes if decoded.labelled is not None else []
    recipe = {**manifest.pop("recipe"), "layout": way.layout, "pixels": way.words}
    recipe["file"] = {"name": path.name, "sha256": files.file_sha256(path)}
    written = Manifest(
        twinned=__version__,
        origin="wrapped",
        encoder=f"wrapped:{path.name}",
        spec=way.spec,
        embedding_size=embeddings.shape[1],
        normalized=bool(np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)),
        calibration=report.calibration,
        held_out={
            **decoded.fingerprint(),
            "classes": classes,
            **report.figures,
            **model_folder.harder_impostors(report.comparisons, recipe=recipe["recipe"], encoder=path.stem),
        },
        recipe=recipe,
        **manifest,
    )
    model_folder.write(
        folder,
        written,
        card=card(written),
        training={"seed": seed, "held_out_classes": classes, "held_out_images": sorted(decoded.hashes)},
    )
