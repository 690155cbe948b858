"""Somebody else's encoder as a model: with a threshold, a probability and all that a model can do."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import distances
from ..data.datasets import ImageSet, PairSet
from ..data.decoded import DecodedSet, Say
from ..data.preprocessing import ImageSpec, parse_image_size
from ..data.readers import as_dataset
from ..data.splits import subsample
from ..errors import DataError, ModelError, SettingError
from ..evaluation.calibration import Calibration, fit_calibration, held_out_figures
from ..evaluation.reference_sets import ReferenceSet, reference_sets
from ..evaluation.threshold_warnings import threshold_warnings
from ..metrics.comparisons import Comparisons, compare_all, compare_pairs
from ..metrics.roc import eer
from ..utils import files
from ..utils.notes import collect
from . import model_folder
from .model import Model
from .model_folder import Manifest
from .onnx_import import (
    InputFormat,
    OnnxEncoder,
    build,
    layouts_of,
    open_onnx,
    require_layout,
    size_of,
)
from .session import Floats, Graph, embed_pixels

# What float encoders are fed, by how often one meets it: pixels times a scale, minus a mean, by a deviation.
_FED: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "by ImageNet's mean and deviation": (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "from -1 to 1": (1 / 255, (0.5,), (0.5,)),
    "from 0 to 1": (1 / 255, (0.0,), (1.0,)),
    "from 0 to 255": (1.0, (0.0,), (1.0,)),
}
_LOOK_AT = 256  # images that guesses are checked on


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
    say: Say | None = None,
) -> Model:
    """Make a model of any ONNX encoder, whatever framework it comes from.

    What is not said is guessed from the file, and where that leaves a choice, each is tried on some of the
    images and the one with the lowest equal error rate taken and said.

    Args:
        encoder: The ONNX file: one input, an image, and one output, a vector.
        data: Images or pairs that the threshold is fitted on, or where they are.
        output: The model folder to write; without it the model lies in a temporary folder until saved.
        layout: ``nchw`` (PyTorch) or ``nhwc`` (TensorFlow, Keras, JAX).
        scale: Pixels, 0 to 255, are multiplied by it; then ``mean`` is taken off, and they are divided by
            ``std``. Where only the latter are given it is 1/255, or 1 with a mean above 1.
        mean: One value, or one a channel; 0 where only others are given.
        std: One value, or one a channel; 1 where only others are given.
        image_size: Height and width, where the file leaves them free.
        channels: 1 or 3, where the file leaves them free.
        fit: How an image of another shape is brought to that size; see `ImageSpec`.
        distance: By which embeddings are compared; cosine or Euclidean by default, as the images say.
        far: False accept rate to choose the threshold at; equal error by default.
        licence: Of the encoder, for the model card.
        seed: Of samples and resampling.
        force: Replace ``output``.
        progress: Show bars.
        say: Called with each sentence that a user should read.

    Raises:
        ModelError: If the file is no such encoder; says what it is instead.
        SettingError: If something must be said that was not, or does not fit the file.
        DataError: If the images give no genuine or no impostor comparison.
    """
    notes: list[str] = []

    def tell(sentence: str) -> None:
        notes.append(sentence)
        if say is not None:
            say(sentence)

    if far is not None and not 0 < far < 1:
        raise SettingError(f"a false accept rate lies between 0 and 1, such as 0.01; got {far}")
    path = Path(encoder)
    found = open_onnx(path)
    ways = _ways(found, layout, scale, mean, std, image_size, channels, fit)
    metrics = ("cosine", "euclidean") if distance is None else (distance,)
    for metric in metrics:
        distances.get(metric)
    images = as_dataset(data)
    if isinstance(images, ImageSet):
        images, said = images.calibration_subset()
        for sentence in said:
            tell(sentence)
    target = None if output is None else Path(output)
    if target is not None:
        model_folder.refuse_target(target, force=force, data=[images.origin, path])
    with collect() as found_notes:
        material = DecodedSet.from_images(images, ways[0].spec, progress=progress)
    for found_note in found_notes:
        tell(found_note.text)
    _check(material, images.origin)
    with tempfile.TemporaryDirectory(prefix="twinned-") as name:
        folder = Path(name)
        way, metric = _choose(found, ways, metrics, material, folder, seed, tell)
        build(found, way, folder / "encoder.onnx")
        vectors = embed_pixels(material.pixels, Graph(folder / "encoder.onnx", device="cpu"))
        _refuse_useless(vectors, path)
        comparisons = _compare(vectors, material, metric, seed)
        sets = [] if material.pairs is not None else _sets(vectors, material, metric, seed)
        calibration = fit_calibration(comparisons, sets=sets, far=far, seed=seed)
        tell(f"the encoder was trained elsewhere; whether on these classes too, {path.name} does not say")
        for doubt in threshold_warnings(calibration, comparisons):
            tell(f"doctor: {doubt}")
        _write(folder, path, way, metric, vectors, material, comparisons, calibration, licence, seed, notes)
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
    """Every way to feed an encoder that its file and the user leave open."""
    require_layout(layout)
    layouts = layouts_of(found)
    shown = ", ".join("?" if size is None else str(size) for size in found.shape)
    if not layouts:
        raise ModelError(f"{found.path}: its input is ({shown}); an image has 1 or 3 channels, first or last")
    if layout is not None:
        if layout not in layouts:
            raise SettingError(
                f"{found.path}: its input is ({shown}), which is {' or '.join(layouts)}; got layout {layout}"
            )
        layouts = [layout]
    given = None if image_size is None else parse_image_size(image_size)
    if found.kind == "uint8":
        if any(value is not None for value in (scale, mean, std)):
            raise SettingError(f"{found.path}: takes uint8, so scale, mean and std have no place")
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
                f"scale is a number, mean and std are one or more; got scale {scale!r}, mean {mean!r},"
                f" std {std!r}"
            ) from None
        if not (np.isfinite([times, *below, *by]).all() and times > 0 and (by > 0).all()):
            said = {"scale": scale, "mean": mean, "std": std}
            got = ", ".join(f"{name} {value}" for name, value in said.items() if value is not None)
            raise SettingError(f"scale and std are above 0, and mean is finite; got {got}")
        words = f"as (pixels * {times:.4g} - {below.tolist()}) / {by.tolist()}"
        fed = {words: (times, tuple(below.tolist()), tuple(by.tolist()))}
    else:
        fed = _FED
    ways = []
    for name in layouts:
        height, width, planes = size_of(found, name)
        if given is not None and any(f not in (None, g) for f, g in zip((height, width), given, strict=True)):
            raise SettingError(f"{found.path}: takes images of {height}x{width}; got {given[0]}x{given[1]}")
        height, width = given or (height, width)
        if height is None or width is None:
            raise SettingError(f"{found.path}: its input is ({shown}), so say its size with --image-size HxW")
        if channels is not None and planes not in (None, channels):
            raise SettingError(f"{found.path}: takes {planes} channels, {name}; got {channels}")
        planes = planes or channels or 3
        for words, (times, below_, by_) in fed.items():
            if not {len(below_), len(by_)} <= {1, planes}:
                if fed is _FED:
                    continue
                raise SettingError(f"mean and std have one value, or one a channel ({planes}); got {words}")
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
    """The input in a model's terms: pixels are divided by 255 first, whatever the encoder is fed."""
    of_255 = 255 * times
    values: dict[str, Any] = {"height": height, "width": width, "channels": channels, "fit": fit}
    for name, given in (("mean", mean), ("std", std)):
        values[name] = tuple(float(v) for v in np.broadcast_to(np.array(given) / of_255, channels))
    return ImageSpec(**values)


def _choose(
    found: OnnxEncoder,
    ways: list[InputFormat],
    metrics: Sequence[str],
    material: DecodedSet,
    folder: Path,
    seed: int,
    tell: Say,
) -> tuple[InputFormat, str]:
    """Try what is left open on some of the images, and take what tells them apart best."""
    if len(ways) == len(metrics) == 1:
        return ways[0], metrics[0]
    some = subsample(material, _LOOK_AT, seed=seed, per_class=4)
    if some.labelled is not None and not some.labelled.usable_classes():
        some = material
    errors: dict[tuple[int, str], float] = {}
    problem: ModelError | None = None
    for number, way in enumerate(ways):
        try:
            build(found, way, folder / "tried.onnx")
            vectors = embed_pixels(some.pixels, Graph(folder / "tried.onnx", device="cpu"))
        except ModelError as error:
            problem = error
            continue
        for metric in metrics:
            if np.isfinite(vectors).all() and np.ptp(vectors, axis=0).any():
                apart = _compare(vectors, some, metric, seed)
                errors[number, metric] = float(eer(apart.distance, apart.same))
    if not errors:
        raise problem or _useless(found.path)
    (folder / "tried.onnx").unlink()
    number, metric = min(errors, key=lambda tried: (errors[tried], tried[0], metrics.index(tried[1])))
    way = ways[number]
    said = [f"{way.layout}, pixels {way.words}"] if len(ways) > 1 else []
    said += [f"{metric} distance"] if len(metrics) > 1 else []
    others = sorted({round(error, 4) for error in errors.values()} - {round(errors[number, metric], 4)})
    against = f" (others: {', '.join(f'{error:.4f}' for error in others[:4])})" if others else ""
    least = errors[number, metric]
    tell(
        f"guessed by the equal error rate on {len(some.pixels)} images, {least:.4f}{against}:"
        f" {'; '.join(said)}"
    )
    noise = np.sqrt(max(least * (1 - least), 0.01) / len(some.pixels))
    near = [t for t in errors if t[0] != number and least < errors[t] < least + noise]
    if near:
        other = ways[min(near, key=errors.__getitem__)[0]]
        tell(
            f"that is a close call: {other.layout}, pixels {other.words} is as good on so few images. Say"
            " what the encoder was trained with: --layout, --scale, --mean, --std"
        )
    return way, metric


def _compare(vectors: Floats, material: DecodedSet, metric: str, seed: int) -> Comparisons:
    """Every comparison of the images, or the pairs of a list."""
    apart = distances.get(metric)
    if material.pairs is not None:
        part = material.pairs.identity_groups()
        left, right = material.pairs.left, material.pairs.right
        return compare_pairs(
            apart(vectors[left], vectors[right]), material.pairs.same, left=part[left], right=part[right]
        )
    forgery = material.images.forgery
    return compare_all(
        vectors,
        material.images.labels,
        lambda a, b: apart(a, b, all_pairs=True),
        forgery=forgery if forgery.any() else None,
        seed=seed,
    )


def _sets(vectors: Floats, material: DecodedSet, metric: str, seed: int) -> list[ReferenceSet]:
    """References and probes drawn from the images."""
    apart = partial(distances.get(metric), all_pairs=True)
    some = material.images
    return reference_sets(vectors, some.labels, apart, forgery=some.forgery, seed=seed)


def _check(material: DecodedSet, origin: str) -> None:
    """Make sure that a threshold can be fitted."""
    if not material.dataset.has_both_kinds:
        raise DataError(
            f"{origin}: a threshold needs same and different pairs: two classes, and two readable images"
            " of one of them"
        )


def _useless(path: Path) -> ModelError:
    return ModelError(
        f"{path}: gives one and the same vector, or none that is finite, for every image: say --layout,"
        " --scale, --mean and --std as the encoder was trained with"
    )


def _refuse_useless(vectors: Floats, path: Path) -> None:
    if not np.isfinite(vectors).all() or not np.ptp(vectors, axis=0).any():
        raise _useless(path)


def _write(
    folder: Path,
    path: Path,
    way: InputFormat,
    metric: str,
    vectors: Floats,
    material: DecodedSet,
    comparisons: Comparisons,
    calibration: Calibration,
    licence: str | None,
    seed: int,
    notes: list[str],
) -> None:
    """Fill a model folder."""
    from .. import __version__

    classes = material.labelled.classes if material.labelled is not None else []
    told: dict[str, Any] = {"recipe": "wrap", "seed": seed, "layout": way.layout, "pixels": way.words}
    told["file"] = {"name": path.name, "sha256": files.file_sha256(path)}
    chose = {"seed": seed, "held_out_classes": classes, "held_out_images": sorted(material.hashes)}
    files.write_text(folder / "training.json", json.dumps(chose, indent=1) + "\n")
    model_folder.write(
        folder,
        Manifest(
            twinned=__version__,
            encoder=f"wrapped:{path.name}",
            spec=way.spec,
            embedding_size=vectors.shape[1],
            normalized=bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)),
            distance=metric,
            calibration=calibration,
            held_out={
                **material.fingerprint(),
                "classes": classes,
                **held_out_figures(calibration, comparisons),
                **model_folder.harder_impostors(comparisons, recipe=told["recipe"], encoder=path.stem),
            },
            recipe=told,
            notes=notes,
            licence=licence,
        ),
    )
