"""Wrap an ONNX encoder of any framework as a model, with a threshold and a probability."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np

from .. import distances
from ..data.datasets import ImageSet, PairSet
from ..data.decoded import DecodedSet
from ..data.preprocessing import ImageSpec, parse_image_size
from ..data.readers import Data
from ..data.splits import subsample
from ..errors import DataError, ModelError, SettingError
from ..evaluation.fitting import CalibrationReport, calibrate
from ..metrics.comparisons import compare
from ..metrics.roc import check_far, eer
from ..utils import files
from ..utils.notes import Note, collect, note
from . import model_folder
from .embedder import GraphEmbedder
from .input_options import InputOptions
from .inputs import calibration_data
from .model import Model
from .model_folder import Manifest
from .onnx_import import InputFormat, OnnxEncoder, build, open_onnx, shape_text
from .session import Floats, Graph, embed_pixels


class _Scaling(NamedTuple):
    """Scaling of pixels to a float encoder's input: ``(pixels / 255 - mean) / std``."""

    words: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


_BYTES = _Scaling("as bytes", (0.0,), (1 / 255,))
# Usual inputs of float encoders, most frequent first.
_USUAL = (
    _Scaling("by ImageNet's mean and deviation", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    _Scaling("from -1 to 1", (0.5,), (0.5,)),
    _Scaling("from 0 to 1", (0.0,), (1.0,)),
    _Scaling("from 0 to 255", (0.0,), (1 / 255,)),
)
_METRICS = ("cosine", "euclidean")  # that are tried
_LOOK_AT = 256  # number of images that guesses are checked on


def wrap(
    encoder: str | os.PathLike[str],
    data: Data,
    *,
    output: str | os.PathLike[str] | None = None,
    distance: str | None = None,
    far: float | None = None,
    licence: str | None = None,
    seed: int = 0,
    force: bool = False,
    progress: bool = True,
    **options: Unpack[InputOptions],
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
        distance: Name of the distance; by default cosine or Euclidean, whichever has the lower error.
        far: False accept rate to choose the threshold at; equal error by default.
        seed: Seed of samples and resampling.
        force: Replace ``output``.
        progress: Show progress bars.
        **options: The encoder's input, as options of `twinned.inference.input_options.InputOptions`:
            ``layout``, ``scale``, ``mean``, ``std``, ``image_size``, ``channels`` and ``fit``.

    Raises:
        ModelError: If the file is not such an encoder.
        SettingError: If a required option is missing, or one does not fit the file.
        DataError: If the images give no genuine or no impostor comparison.
    """
    if unknown := options.keys() - InputOptions.__annotations__.keys():
        raise TypeError(f"wrap() got an unexpected keyword argument {min(unknown)!r}")
    check_far(far)
    path = Path(encoder)
    found = open_onnx(path)
    formats = _formats(found, options)
    metrics = _METRICS if distance is None else (distance,)
    for metric in metrics:
        distances.get(metric)
    target = None if output is None else Path(output)
    with collect() as notes, tempfile.TemporaryDirectory(prefix="twinned-") as temporary:
        images = calibration_data(data)
        if target is not None:
            model_folder.check_output(target, force=force, data=[images.origin, path])
        decoded = decode_comparable(images, formats[0].spec, progress=progress)
        chosen, metric = _choose(found, formats, metrics, decoded, seed)
        folder = Path(temporary)
        build(found, chosen, folder / "encoder.onnx")
        embedder = GraphEmbedder(Graph(folder / "encoder.onnx", device="cpu"), chosen.spec, metric)
        write_calibrated(
            folder,
            embedder,
            decoded,
            notes,
            source=path.name,
            encoder=f"wrapped:{path.name}",
            recipe={
                "recipe": "wrap",
                "seed": seed,
                "layout": chosen.layout,
                "pixels": chosen.words,
                "file": {"name": path.name, "sha256": files.file_sha256(path)},
            },
            far=far,
            license=licence,
            seed=seed,
        )
        return placed(folder, target, force=force)


def placed(folder: Path, target: Path | None, *, force: bool = False) -> Model:
    """Copy a new model folder to its target, or to a temporary folder that is deleted with the model."""
    temporary = None
    if target is None:
        temporary = tempfile.TemporaryDirectory(prefix="twinned-")
        target = Path(temporary.name, "model")
    model_folder.copy(folder, target, force=force)
    return Model(target, temporary=temporary)


def decode_comparable(images: ImageSet | PairSet, spec: ImageSpec, *, progress: bool) -> DecodedSet:
    """Decode images or pairs for fitting a threshold; refuse those without same and different pairs."""
    decoded = DecodedSet.from_images(images, spec, progress=progress)
    if not decoded.dataset.has_both_kinds:
        raise DataError(
            f"{images.origin}: A threshold needs same and different pairs: two classes, and two readable"
            " images of one of them"
        )
    return decoded


def write_calibrated(
    folder: Path,
    embedder: GraphEmbedder,
    decoded: DecodedSet,
    notes: list[Note],
    *,
    source: str,
    encoder: str,
    recipe: dict[str, Any],
    far: float | None = None,
    license: str | None = None,
    seed: int = 0,
    record: dict[str, Any] | None = None,
) -> None:
    """Fit threshold and probability to the embeddings of images, and complete the folder of the graphs.

    ``source`` names the file or network in messages, ``encoder`` in model.json. The model keeps the
    ``notes``, which `collect` fills. ``record`` has more entries of training.json.
    """
    embeddings = embedder.embed_pixels(decoded.pixels)
    if _is_constant(embeddings):
        raise _useless(source)
    text = f"the encoder was trained elsewhere; {source} does not record whether on these classes too"
    note("trained-elsewhere", text)
    report = calibrate(embeddings, decoded.dataset, embedder, far=far, seed=seed)
    manifest = Manifest(
        origin="wrapped",
        encoder=encoder,
        spec=embedder.spec,
        embedding_size=embeddings.shape[1],
        normalized=bool(np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)),
        distance=embedder.distance,
        head=(folder / "head.onnx").is_file(),
        calibration=report.calibration,
        held_out=held_out(decoded, report, recipe="wrap", encoder=source.removesuffix(".onnx")),
        recipe=recipe,
        licence=license,
    ).with_notes(notes)
    training = {
        **(record or {}),
        "seed": seed,
        "held_out_classes": decoded.classes,
        "held_out_images": sorted(decoded.hashes),
    }
    model_folder.write(folder, manifest, training)


def held_out(
    decoded: DecodedSet, report: CalibrationReport, *, recipe: str, encoder: str, forged: bool = False
) -> dict[str, Any]:
    """Describe, for model.json, the images that the threshold is fitted on; see `harder_impostors`."""
    marks, pairs = decoded.pairs is None, report.comparisons
    harder = model_folder.harder_impostors(pairs, recipe=recipe, encoder=encoder, forged=forged, marked=marks)
    return {**decoded.fingerprint(), "classes": decoded.classes, **report.figures, **harder}


def _formats(found: OnnxEncoder, options: InputOptions) -> list[InputFormat]:
    """Return the input formats that the file and the options leave open."""
    formats, fit, given = [], options.get("fit") or "stretch", options.get("layout")
    shape, layouts = shape_text(found.shape), found.layouts()
    if not layouts:
        raise ModelError(f"{found.path}: The input is {shape}; 1 or 3 channels are expected")
    if given not in (None, *layouts):
        allowed = f"The layout of the input {shape} must be {' or '.join(layouts)}"
        raise SettingError(f"{found.path}: {allowed}; got {given!r}")
    scalings = _scalings(found, options)
    for layout in [given] if given else layouts:
        height, width, channels = _shape(found, layout, options)
        for scaling in scalings:
            if {len(scaling.mean), len(scaling.std)} <= {1, channels}:
                mean, std = (tuple(np.broadcast_to(values, channels).tolist()) for values in scaling[1:])
                spec = ImageSpec(height=height, width=width, channels=channels, fit=fit, mean=mean, std=std)
                formats.append(InputFormat(layout, spec, scaling.words))
            elif scaling not in _USUAL:
                raise SettingError(
                    f"mean and std need one value, or {channels} for the channels; got {scaling.words}"
                )
    return formats


def _scalings(found: OnnxEncoder, options: InputOptions) -> Sequence[_Scaling]:
    """Return the scaling that the options describe, or the usual ones."""
    given: dict[str, Any] = {name: options.get(name) for name in ("scale", "mean", "std")}
    given = {name: value for name, value in given.items() if value is not None}
    if found.kind == "uint8":
        if given:
            raise SettingError(f"{found.path}: The encoder takes uint8; scale, mean and std do not apply")
        return [_BYTES]
    if not given:
        return _USUAL
    shown = ", ".join(f"{name} {value}" for name, value in given.items())
    try:
        mean, std = (np.atleast_1d(np.array(given.get(k, v), float)) for k, v in (("mean", 0), ("std", 1)))
        scale = float(given.get("scale", 1.0 if mean.max() > 1 else 1 / 255))  # max of nothing: ValueError
    except (TypeError, ValueError):
        raise SettingError(f"scale must be a number, mean and std one or more; got {shown}") from None
    if not (std.size and np.isfinite([scale, *mean, *std]).all() and scale > 0 and (std > 0).all()):
        raise SettingError(f"scale and std must be above 0, and mean finite; got {shown}")
    words = f"as (pixels * {scale:.4g} - {mean.tolist()}) / {std.tolist()}"
    return [_Scaling(words, *(tuple((values / (255 * scale)).tolist()) for values in (mean, std)))]


def _shape(found: OnnxEncoder, layout: str, options: InputOptions) -> tuple[int, int, int]:
    """Return height, width and channels in a layout: the file's, or the given ones where they are free."""
    height, width, planes = found.size(layout)
    if (size := options.get("image_size")) is not None:
        given = parse_image_size(size)
        if any(own not in (None, asked) for own, asked in zip((height, width), given, strict=True)):
            raise SettingError(f"{found.path}: Images must be {height}x{width}; got {given[0]}x{given[1]}")
        height, width = given
    if height is None or width is None:
        raise SettingError(f"{found.path}: The input is {shape_text(found.shape)}. Set the image size")
    channels = options.get("channels")
    if channels is not None and planes not in (None, channels):
        raise SettingError(f"{found.path}: Images must have {planes} channels, {layout}; got {channels}")
    return height, width, planes or channels or 3


def _choose(
    found: OnnxEncoder, formats: list[InputFormat], metrics: Sequence[str], decoded: DecodedSet, seed: int
) -> tuple[InputFormat, str]:
    """Try the open choices on some of the images, and return the one with the lowest equal error rate."""
    if len(formats) == len(metrics) == 1:
        return formats[0], metrics[0]
    some = _some(decoded, seed)
    errors = _errors(found, formats, metrics, some, seed)
    number, metric = min(errors, key=errors.__getitem__)
    best, least = formats[number], errors[number, metric]
    guesses = [f"{best.layout}, pixels {best.words}"] if len(formats) > 1 else []
    guesses += [f"{metric} distance"] if len(metrics) > 1 else []
    others = sorted({round(error, 4) for error in errors.values()} - {round(least, 4)})
    against = f" (others: {', '.join(f'{error:.4f}' for error in others[:4])})" if others else ""
    text = f"guessed by the equal error rate on {len(some.pixels)} images, {least:.4f}{against}:"
    note("guessed-input", f"{text} {'; '.join(guesses)}")
    noise = np.sqrt(max(least * (1 - least), 0.01) / len(some.pixels))
    if near := [tried for tried in errors if tried[0] != number and least < errors[tried] < least + noise]:
        other = formats[min(near, key=errors.__getitem__)[0]]
        note(
            "ambiguous-input",
            f"the guess is not certain: {other.layout}, pixels {other.words} is as good on so few images."
            " Set layout, scale, mean and std to those of the encoder's training",
        )
    return best, metric


def choose_distance(graph: Graph, spec: ImageSpec, decoded: DecodedSet) -> str:
    """Return the distance, cosine or Euclidean, with the lower equal error rate on some of the images."""
    errors = _error_by_distance(graph, spec, _METRICS, _some(decoded, seed=0), seed=0)
    return min(errors, key=errors.__getitem__, default="cosine")


def _some(decoded: DecodedSet, seed: int) -> DecodedSet:
    """Return some of the images, at least two of a class."""
    some = subsample(decoded, _LOOK_AT, seed=seed, per_class=4)
    return decoded if some.labelled is not None and not some.labelled.usable_classes() else some


def _error_by_distance(
    graph: Graph, spec: ImageSpec, metrics: Sequence[str], some: DecodedSet, seed: int
) -> dict[str, float]:
    """Return the equal error rate with each distance; none for embeddings that are useless."""
    vectors = embed_pixels(some.pixels, graph)
    errors: dict[str, float] = {}
    for metric in () if _is_constant(vectors) else metrics:
        made = compare(vectors, some.dataset, GraphEmbedder(graph, spec, metric), seed=seed)
        errors[metric] = eer(made.distance, made.same)
    return errors


def _errors(
    found: OnnxEncoder, formats: list[InputFormat], metrics: Sequence[str], some: DecodedSet, seed: int
) -> dict[tuple[int, str], float]:
    """Return the equal error rate of each format, by its number, with each distance."""
    errors: dict[tuple[int, str], float] = {}
    problem: ModelError | None = None
    with tempfile.TemporaryDirectory(prefix="twinned-") as folder:
        path = Path(folder, "encoder.onnx")
        for number, tried in enumerate(formats):
            try:
                build(found, tried, path)
                by_distance = _error_by_distance(Graph(path, device="cpu"), tried.spec, metrics, some, seed)
                errors |= {(number, metric): error for metric, error in by_distance.items()}
            except ModelError as error:
                problem = error
    if not errors:
        raise problem or _useless(found.path)
    return errors


def _useless(source: str | Path) -> ModelError:
    return ModelError(
        f"{source}: The encoder returns the same vector for every image, or one that is not finite. Set"
        " layout, scale, mean and std to those of its training"
    )


def _is_constant(embeddings: Floats) -> bool:
    """Return True if embeddings are not finite, or the same for every image."""
    return not np.isfinite(embeddings).all() or not np.ptp(embeddings, axis=0).any()
