"""Convert between networks in PyTorch and models: `Model.from_network`, `Model.to_torch`, model ``photo``."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.datasets import ImageSet, PairSet
from ..data.images import open_image
from ..data.preprocessing import ImageSpec
from ..errors import ModelError, SettingError
from ..inference import model_folder
from ..inference.embedder import GraphEmbedder
from ..inference.inputs import calibration_data
from ..inference.model import Model
from ..inference.model_folder import Manifest
from ..inference.ready_made import READY_MADE
from ..inference.session import Graph
from ..inference.wrap import choose_distance, decode_comparable, placed, write_calibrated
from ..metrics.roc import check_far
from ..nn import heads, onnx_export
from ..nn.encoders import Encoder, as_encoder
from ..nn.siamese import SiameseNetwork
from ..utils.notes import collect
from ..utils.registry import plain_name
from . import recipes
from .config import Comparison, EncoderConfig, Input, Length, TrainConfig
from .parts import OwnParts, first_channels, named_encoder
from .save import write_weights
from .warm_start import load_for_input

_LOOK_AT = 16  # images whose sizes are compared, where a network does not determine that of its input


def from_network(
    network: nn.Module,
    calibration_images: ImageSet | PairSet | str | os.PathLike[str],
    *,
    spec: ImageSpec | None = None,
    far: float | None = None,
    output: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Model:
    """Make a model from a network; see `Model.from_network`."""
    check_far(far)
    if not isinstance(network, nn.Module):
        raise SettingError(f"A network must be a torch.nn.Module; got {type(network).__name__}")
    network = getattr(network, "_orig_mod", network)  # of torch.compile
    name, target = plain_name(network), None if output is None else Path(output)
    with collect() as notes, tempfile.TemporaryDirectory(prefix="twinned-") as temporary:
        images = calibration_data(calibration_images)
        if target is not None:
            model_folder.check_output(target, data=[images.origin], option=None)
        siamese, spec = _siamese(copy.deepcopy(network).cpu().eval(), spec, images)
        decoded = decode_comparable(images, spec, progress=progress)
        folder = Path(temporary)
        has_head = _export(siamese, spec, folder, name)
        graph = Graph(folder / "encoder.onnx", device="cpu")
        if not isinstance(network, SiameseNetwork):
            siamese.head = heads.Distance(choose_distance(graph, spec, decoded))
        config = named_encoder(siamese.encoder, _config(siamese, spec))
        head = Graph(folder / "head.onnx", device="cpu") if has_head else None
        write_calibrated(
            folder,
            GraphEmbedder(graph, spec, siamese.head.name, head=head),
            decoded,
            notes,
            source=name,
            encoder=config.encoder.name,
            recipe=config.model_dump(mode="json"),
            far=far,
            license=siamese.encoder.license,
            record={"layers": siamese.layers()},
        )
        return placed(folder, target)


def to_torch(model: Model) -> SiameseNetwork:
    """Rebuild the network of a model; see `Model.to_torch`."""
    found = load_for_input(model)
    if not found.complete:
        raise ModelError(
            f"{model.folder}: weights.safetensors does not fit the network that model.json describes"
            f" ({'; '.join(note.text for note in found.notes)}). Register the encoder that it was made from"
        )
    return found.network


def write_photo(folder: Path, encoder: str) -> None:
    """Write a new model folder of a pretrained encoder without training, and without a threshold."""
    changes = {"encoder.name": encoder, "encoder.embedding_size": None, "encoder.symmetric": False}
    config = recipes.get("photo").merge(changes | {"transfer.freeze": recipes.FREEZE[encoder]})
    built = OwnParts().make_encoder(config)
    spec = ImageSpec(**config.input.model_dump(), mean=built.mean or (), std=built.std or ())
    network = SiameseNetwork(built, normalize=True, mean=spec.mean, std=spec.std).eval()
    folder.mkdir()
    _export(network, spec, folder, encoder)
    ready_made = READY_MADE["photo"]
    manifest = Manifest(
        origin="wrapped",
        encoder=encoder,
        spec=spec,
        embedding_size=network.embedding_size,
        normalized=network.normalize,
        distance=network.head.name,
        calibration=None,
        data={"description": ready_made.training_data},
        recipe=config.model_dump(mode="json"),
        licence=built.license,
    )
    model_folder.write(folder, manifest, {"layers": network.layers()})


def _siamese(
    network: nn.Module, spec: ImageSpec | None, images: ImageSet | PairSet
) -> tuple[SiameseNetwork, ImageSpec]:
    """Return the network as a `SiameseNetwork`, and its input."""
    if isinstance(network, SiameseNetwork):
        if isinstance(network.head, heads.Relation):
            raise SettingError("A network with a relation head has no names of relations; use twinned.train")
        found = spec or _spec_of(network.encoder)
        as_encoder(network.encoder, image_size=found.shape[:2], channels=found.channels)
        return network, found.model_copy(update=network.statistics)
    if spec is None:
        spec = _spec_of(network) if isinstance(network, Encoder) else _guess_spec(network, images)
    encoder = as_encoder(network, image_size=spec.shape[:2], channels=spec.channels)
    if spec.mean == (0.0,) * spec.channels and spec.std == (1.0,) * spec.channels and encoder.mean:
        spec = spec.model_copy(update={"mean": encoder.mean, "std": encoder.std})
    return SiameseNetwork(encoder, mean=spec.mean, std=spec.std).eval(), spec


def _spec_of(encoder: Encoder) -> ImageSpec:
    height, width = encoder.image_size
    return ImageSpec(height=height, width=width, channels=encoder.channels)


def _guess_spec(network: nn.Module, images: ImageSet | PairSet) -> ImageSpec:
    """Return the size that some images share, with the channels of the first convolution or of these."""
    some = [open_image(image) for image in images.images[:_LOOK_AT]]
    sizes = sorted({image.size for image in some})
    if len(sizes) != 1:
        listed = " and ".join(f"{height}x{width}" for width, height in sizes[:2])
        raise SettingError(
            f"The images have different sizes, such as {listed}, so the input of the network is not known."
            " Set spec=ImageSpec(height=..., width=..., channels=...)"
        )
    ((width, height),) = sizes
    channels = first_channels(network) or max(len(image.getbands()) for image in some)
    return ImageSpec(height=height, width=width, channels=channels)


def _export(network: SiameseNetwork, spec: ImageSpec, folder: Path, name: str) -> bool:
    """Write the graphs and the weights; return True if there is a head.onnx."""
    try:
        onnx_export.export_encoder(network, spec, folder / "encoder.onnx")
    except (RuntimeError, TypeError, ValueError, torch.onnx.OnnxExporterError) as error:
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        reason = (str(first).strip().splitlines() or [type(first).__name__])[0]
        raise onnx_export.ExportError(f"{name} cannot be exported to ONNX: {reason}") from error
    return write_weights(network, folder)


def _config(network: SiameseNetwork, spec: ImageSpec) -> TrainConfig:
    """Return a configuration that describes a network, for `Model.to_torch` and fine-tuning."""
    named: dict[Any, str] = {heads.WeightedL1: "weighted-l1", heads.SigmoidDistance: "sigmoid-distance"}
    inner: dict[str, Any] = spec.model_dump(exclude={"mean", "std"})
    return TrainConfig(
        recipe="network",
        input=Input(**inner),
        encoder=EncoderConfig(name="conv4", symmetric=network.encoder.symmetric),
        comparison=Comparison(
            head=named.get(type(network.head), "distance"),
            distance=network.head.name,
            normalize=network.normalize,
        ),
        length=Length(steps=0),
    )
