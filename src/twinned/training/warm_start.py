"""What there is before training: a model to start from and what comes along, or a pretrained encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ..data.decoded import DecodedSet, Say
from ..data.preprocessing import ImageSpec
from ..errors import ModelError, SettingError
from ..inference import model_folder
from ..inference.model import Model
from ..nn import encoders, heads
from ..nn.score_norm import CohortScoreNorm
from ..nn.siamese import SiameseNetwork
from .config import Settings


@dataclass(frozen=True, eq=False)
class WarmStart:
    """A model to start from.

    Args:
        model: Its folder.
        network: Its network, at the new image size and number of channels.
        whole: Whether all of its weights came along, so that it is of use as it is.
    """

    model: Model
    network: SiameseNetwork
    whole: bool

    @property
    def sha256(self) -> str:
        """SHA-256 of its weights."""
        return self.model.manifest.files["weights.safetensors"]

    def tells(self, relations: dict[str, bool]) -> bool:
        """Whether its head tells these relations apart, the same of them as *same*; or neither knows any."""
        head = self.network.head
        same = head.same.bool().tolist() if isinstance(head, heads.Relation) else []
        return list(relations) == self.model.manifest.relations and list(relations.values()) == same

    def saw(self, material: DecodedSet) -> bool:
        """Whether it was trained on some of these images or, at another size, classes of their names."""
        if self.model.spec.shape == material.pixels.shape[1:]:
            return not self.model.record.image_hashes.isdisjoint(material.hashes)
        classes = material.labelled.classes if material.labelled is not None else []
        return not set(self.model.manifest.classes).isdisjoint(classes)


def load_for_input(model: Model, theirs: Settings, plan: Settings, *, tell: Say) -> WarmStart:
    """A model's network, at the image size and number of channels that are wanted now.

    Args:
        model: Not a wrapped one: it has weights.
        theirs: The settings that it was trained with.
        plan: Those that are wanted now.
        tell: Called with what cannot come along.

    Raises:
        SettingError: If its encoder cannot look at images of that size.
        ModelError: If the weights are not those of its encoder.
    """
    state = load_file(model_folder.checked(model.folder, "weights.safetensors", model.manifest))
    encoder = encoders.build(
        theirs.encoder,
        image_size=(plan.height, plan.width),
        channels=plan.channels,
        embedding_size=theirs.embedding_size,
        dropout=theirs.dropout,
        pretrained=False,
        symmetric=theirs.symmetric,
    )
    fresh = encoders.carry_over(
        encoder, {name: value for name, value in state.items() if name.startswith("encoder.")}
    )
    wrong = [name for name in fresh if not name.startswith("dense.")]
    if wrong and (plan.height, plan.width) != (theirs.height, theirs.width):
        raise SettingError(
            f"encoder {theirs.encoder} has other layers for images of {plan.height}x{plan.width} than for"
            f" {theirs.height}x{theirs.width}, so what it learnt cannot be taken along: choose a size"
            " nearer to the model's with --image-size, or train anew"
        )
    if wrong:
        raise ModelError(
            f"{model.folder}: weights.safetensors does not hold the weights of encoder {theirs.encoder}:"
            f" {wrong[0]} is missing or of another shape"
        )
    if fresh:
        tell(
            f"the embedding layer does not fit images of {plan.height}x{plan.width} with {plan.channels}"
            " channels, so it starts anew"
        )
    same = state.get("head.same", torch.empty(0)).bool().tolist()
    head = heads.build(
        theirs.head, distance=theirs.distance, embedding_size=encoder.embedding_size, relations=same
    )
    of_head = {name.removeprefix("head."): v for name, v in state.items() if name.startswith("head.")}
    fits = {name: v.shape for name, v in of_head.items()} == {
        n: v.shape for n, v in head.state_dict().items()
    }
    if fits:
        head.load_state_dict(of_head)
    elif not fresh:
        tell(f"the head does not fit embeddings of {encoder.embedding_size} values, so it starts anew")
    mean, std = (_for_channels(values, plan.channels) for values in (model.spec.mean, model.spec.std))
    names = ("cohort.members", "cohort.usual")
    wide = state[names[0]].shape[1] if names[0] in state else None
    cohort = (
        CohortScoreNorm(*map(state.__getitem__, names))
        if not fresh and wide == encoder.embedding_size
        else None
    )
    network = SiameseNetwork(encoder, head, normalize=theirs.normalize, cohort=cohort, mean=mean, std=std)
    return WarmStart(model, network.eval(), whole=not fresh and fits)


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def weights_statistics(path: str, channels: int) -> dict[str, tuple[float, ...]] | None:
    """Return the mean and deviation of the pixels that weights in a file were trained with.

    Args:
        path: As for `encoders.load_weights`. The weights.safetensors of a model folder holds both; those
            written before it did lie beside a model.json that does.
        channels: 1 or 3, of the network that takes the weights.

    Returns:
        ``mean`` and ``std``, as an `ImageSpec` has them; None where they are not known.

    Raises:
        SettingError: If the file's are not one value a channel, with deviations above 0.
    """
    found: dict[str, tuple[float, ...]] = {}
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            if {"mean", "std"} <= names and any(name.startswith("encoder.") for name in names):
                found = {
                    name: tuple(round(v, 6) for v in file.get_tensor(name).flatten().tolist())
                    for name in ("mean", "std")
                }
    except (OSError, SafetensorError):
        return None  # `encoders.load_weights` says what is wrong with it
    if not found and Path(path).name == "weights.safetensors":
        try:
            spec = model_folder.read(Path(path).parent).spec
        except ModelError:
            return None
        found = {"mean": spec.mean, "std": spec.std}
    if not found:
        return None
    sizes = {len(values) for values in found.values()}
    if sizes not in ({1}, {3}) or not all(0 < v < float("inf") for v in found["std"]):
        raise SettingError(
            f"weights={path}: mean {found['mean']} and std {found['std']} are not one value for each of 1 or"
            " 3 channels, with each std above 0; save the state of a whole network again"
        )
    return {name: _for_channels(values, channels) for name, values in found.items()}


def pretrained_baseline(settings: Settings, spec: ImageSpec) -> SiameseNetwork | None:
    """A pretrained encoder as it is, by the cosine of its values; None for any other encoder."""
    if not encoders.is_pretrained(settings.encoder):
        return None
    encoder = encoders.build(
        settings.encoder,
        image_size=(spec.height, spec.width),
        channels=spec.channels,
        pretrained=settings.weights is None,
    )
    if settings.weights is not None:
        encoders.load_weights(encoder, settings.weights)
    mean, std = encoder.mean, encoder.std
    if settings.weights is not None and (stored := weights_statistics(settings.weights, spec.channels)):
        mean, std = stored["mean"], stored["std"]
    return SiameseNetwork(encoder, normalize=True, mean=mean, std=std)
