"""Adapt any module to `Encoder`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import SettingError
from ...utils.registry import plain_name
from .base import Encoder


class ModuleEncoder(Encoder):
    """Adapter of a module that maps images to vectors, with an optional linear layer to another size.

    The module is one stage: it is frozen as a whole or not at all.

    Args:
        module: Maps floats ``(n, channels, height, width)`` to ``(n, d)``. Its input has mean 0 and standard
            deviation 1 over the training images; or, if the module has attributes ``mean`` and ``std`` with
            one number for each channel, as for pretrained weights, it is normalized by these.
        image_size: Height and width of the input, in pixels.
        channels: 1 or 3.
        embedding_size: Size of the embedding, made by a linear layer; None for the module's output.

    Raises:
        SettingError: If the module rejects such images, or does not return one vector for each.

    Example:
        >>> module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
        >>> ModuleEncoder(module, image_size=(8, 8), channels=1).embedding_size
        16
    """

    has_maps = False

    def __init__(
        self,
        module: nn.Module,
        *,
        image_size: tuple[int, int],
        channels: int,
        embedding_size: int | None = None,
    ) -> None:
        super().__init__(image_size=image_size, channels=channels)
        self.module = module
        mean, std = (_per_channel(getattr(module, name, None)) for name in ("mean", "std"))
        if mean is not None and std is not None:
            self.mean, self.std = mean, std
        self._add_projection(self._measure(), embedding_size)

    def _measure(self) -> int:
        """Return the size of the module's output, measured on two random images."""
        name, shape = plain_name(self.module), (self.channels, *self.image_size)
        try:
            found = _evaluate(self.module, shape)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise SettingError(
                f"Encoder {name} does not accept images of shape (n, {', '.join(map(str, shape))}): {reason}."
                " Set image_size, or settings={'channels': 1 or 3}; in Model.from_network, set spec"
            ) from error
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 2:
            what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise SettingError(f"Encoder {name} returned {what} for 2 images. It must return vectors, (2, d)")
        return found.shape[1]

    def stages(self) -> list[nn.Module]:
        return [self.module, self.dense]

    def forward_features(self, x: Tensor, *, start_stage: int = 0) -> tuple[Tensor, Tensor]:
        """Return the output of the module twice, since it has no feature map: shape ``(n, n_features)``."""
        values: Tensor = self.module(x)
        return values, values


def as_encoder(
    module: Any, *, image_size: tuple[int, int], channels: int, embedding_size: int | None = None
) -> Encoder:
    """Return an `Encoder` unchanged, and adapt another module; arguments as for `ModuleEncoder`.

    Raises:
        SettingError: If it is not a module, or does not fit the input or the size.
    """
    if not isinstance(module, nn.Module):
        raise SettingError(f"An encoder must be a torch.nn.Module; got {type(module).__name__}")
    if not isinstance(module, Encoder):
        return ModuleEncoder(module, image_size=image_size, channels=channels, embedding_size=embedding_size)
    name, size = module.name or plain_name(module), module.embedding_size
    (height, width), planes = module.image_size, module.channels
    if (*image_size, channels) != (height, width, planes):
        raise SettingError(
            f"Encoder {name} takes images of {height}x{width} with {planes} channels; got {image_size[0]}x"
            f"{image_size[1]} with {channels}. Leave out the image size and channels, or spec."
        )
    if embedding_size not in (None, size):
        raise SettingError(
            f"Encoder {name} has embeddings of {size} values; got {embedding_size}. Leave it out"
        )
    return module


def can_rebuild(build: Callable[[], Encoder], encoder: Encoder) -> bool:
    """Return True if a function builds an encoder that computes the same with the same weights."""
    try:
        other = build()
        other.load_state_dict(encoder.state_dict())
    except (SettingError, RuntimeError, TypeError):
        return False
    shape = (encoder.channels, *encoder.image_size)
    a, b = (_evaluate(one, shape).cpu() for one in (encoder, other))
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5, rtol=1e-4)


def _evaluate(module: nn.Module, shape: tuple[int, ...]) -> Any:
    """Return the output for two random images of a shape, in evaluation mode."""
    was_training, device = module.training, next(module.parameters(), torch.empty(0)).device
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            return module.eval()(images.to(device))
    finally:
        module.train(was_training)


def _per_channel(values: Any) -> tuple[float, ...] | None:
    """Return numbers as a tuple; None for anything else, such as the method of a class."""
    try:
        return tuple(float(value) for value in values) or None
    except (TypeError, ValueError, RuntimeError):
        return None
