"""Freezing of the first stages of an encoder.

A frozen stage gets no gradient and no weight decay, and its batch norms use their stored statistics. Batch
norms of the other stages update theirs, unless these are frozen too: the few images of a batch estimate them
less well than the images that a pretrained encoder was trained on.
"""

from __future__ import annotations

from torch import nn

from ..errors import SettingError
from ..nn.encoders.base import Encoder
from ..nn.siamese import SiameseNetwork


def frozen_stages(encoder: Encoder, freeze: str) -> int:
    """Return the number of stages to freeze, counted from the input.

    Args:
        encoder: Encoder; its last stage, the projection, is never counted.
        freeze: ``none``, ``all``, or a number.

    Raises:
        SettingError: If ``freeze`` is something else, or larger than the number of stages.
    """
    limit = len(encoder.stages()) - 1
    if freeze in ("none", "all"):
        return limit if freeze == "all" else 0
    if freeze.isdecimal() and int(freeze) <= limit:
        return int(freeze)
    raise SettingError(
        f"freeze must be none, all, or a number of stages, at most {limit}; got {freeze!r}. Choose one."
    )


class Freezing:
    """Frozen parts of a network.

    Args:
        n_stages: Number of frozen stages, counted from the input.
        batchnorm: Freeze the statistics of every batch norm in the encoder.
        projection: Freeze the last stage, the projection, which was fitted in closed form.
    """

    def __init__(self, n_stages: int, *, batchnorm: bool = False, projection: bool = False) -> None:
        self.n_stages, self.batchnorm, self.projection = n_stages, batchnorm, projection

    def apply(self, network: SiameseNetwork) -> None:
        """Freeze these parts of a network in training mode, and unfreeze the others."""
        stages = network.encoder.stages()
        first, last = self.n_stages, len(stages) - self.projection
        # A parameter outside of all stages belongs to the first.
        stage_of = dict.fromkeys(network.encoder.parameters(), 0)
        for number, stage in enumerate(stages):
            stage_of.update(dict.fromkeys(stage.parameters(), number))
        for parameter in network.parameters():
            stage_index = stage_of.get(parameter)
            parameter.requires_grad_(stage_index is None or first <= stage_index < last)
        for number, module in enumerate(stages):
            module.train(number >= first)
        if self.batchnorm:
            for module in network.encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def has_trainable(self, network: SiameseNetwork) -> bool:
        """Freeze these parts of a network, and return True if any of its parameters remains trainable."""
        self.apply(network)
        return any(parameter.requires_grad for parameter in network.parameters())
