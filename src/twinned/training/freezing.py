"""Which stages of an encoder learn, when, and how fast: freezing, unfreezing by schedule, smaller rates.

A frozen stage is left alone altogether: no gradient, no weight decay, and its batch norms go on using the
statistics they came with. A stage that learns moves its batch norms' statistics too, unless these are kept:
the few images of a batch know less of the world than those that the encoder has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..errors import SettingError
from ..nn.encoders.convnets import Encoder
from ..nn.siamese import SiameseNetwork
from .optimizers import MOST


def frozen_stages(encoder: Encoder, freeze: str) -> int:
    """How many of an encoder's stages stay frozen, counted from the input.

    Args:
        encoder: Its last stage, the embedding layer, always learns.
        freeze: ``none``, ``all``, or a number.

    Raises:
        SettingError: If it is none of these, or there are not so many stages.
    """
    most = len(encoder.stages()) - 1
    if freeze in ("none", "all"):
        return most if freeze == "all" else 0
    if freeze.isdecimal() and int(freeze) <= most:
        return int(freeze)
    raise SettingError(
        f"freeze is none, all, or how many stages from the input stay frozen, at most {most}; got {freeze!r}"
    )


class Freezing:
    """Keeps the first stages of a network's encoder frozen while it learns.

    Args:
        frozen: Stages that are frozen at the start.
        thaw: Share of the steps after which they begin to learn one by one, the last first, spread evenly
            over the rest of the run; None where they stay frozen.
        norms: ``moving`` where the statistics of the batch norms in stages that learn move, or ``kept``.
        solved: Whether the last stage, the embedding layer, is left alone too, because it is solved.
    """

    def __init__(
        self, frozen: int, thaw: float | None = None, *, norms: str = "moving", solved: bool = False
    ) -> None:
        self.start, self.thaw = frozen, thaw
        self.norms, self.solved = norms, solved

    def frozen(self, step: int, total: int | None) -> int:
        """How many stages are frozen in a step; before the number of steps is known, as many as at first."""
        if self.thaw is None or not total or step / total < self.thaw:
            return self.start
        return max(0, self.start - 1 - int(self.start * (step / total - self.thaw) / (1 - self.thaw)))

    def apply(self, network: SiameseNetwork, step: int = 0, total: int | None = None) -> None:
        """Before a step: freeze a network's first stages, and let the others learn."""
        stage, stages, now = stage_of(network), network.encoder.stages(), self.frozen(step, total)
        end = len(stages) - 1 if self.solved else len(stages)
        for parameter in network.parameters():
            parameter.requires_grad_(parameter not in stage or now <= stage[parameter] < end)
        for number, module in enumerate(stages):
            module.train(number >= now)
        if self.norms == "kept":
            for module in network.encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def learns(self, network: SiameseNetwork) -> bool:
        """Whether any of a network's weights learn in the first step."""
        self.apply(network)
        return any(parameter.requires_grad for parameter in network.parameters())


def stage_of(network: SiameseNetwork) -> dict[nn.Parameter, int]:
    """The stage of each of the encoder's parameters; one that belongs to no stage counts to the first."""
    found = dict.fromkeys(network.encoder.parameters(), 0)
    for number, stage in enumerate(network.encoder.stages()):
        found.update(dict.fromkeys(stage.parameters(), number))
    return found


def parameter_groups(
    network: SiameseNetwork,
    extra: nn.Module,
    *,
    weight_decay: float,
    layer_decay: float,
    proxy_rate: float,
    stage_decay: Sequence[float] = (),
    skipped: int = 0,
) -> list[dict[str, Any]]:
    """An optimiser's groups: weights decay, biases and batch norm do not; earlier stages learn more slowly.

    The encoder's matrices are marked as ``orthogonal``, which only
    `twinned.training.optimizers.Muon` looks at.

    Args:
        network: Its head and its embedding layer learn at the full rate.
        extra: A loss that may have weights, its proxies.
        weight_decay: Of the weights.
        layer_decay: The rate of a stage as a share of the next one's; 1 for one rate.
        proxy_rate: The rate of proxies as a multiple of the network's: each moves only by the few images that
            it meets.
        stage_decay: The weight decay of each stage and then of the head, instead of one for all (Koch 2015
            penalises each layer by itself).
        skipped: How many stages of the encoder stand before those of this network, and learn nothing.

    Raises:
        SettingError: If ``stage_decay`` has another number of values.
    """
    stage = stage_of(network)
    stages = len(network.encoder.stages())
    if stage_decay and len(stage_decay) != (values := skipped + stages + 1):
        raise SettingError(
            f"stage_decay has a value for each of the encoder's {values - 1} stages and one for the head,"
            f" {values} in all; got {len(stage_decay)}"
        )
    last = max(stage.values(), default=0)
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        number = stage.get(parameter, stages)
        decay = stage_decay[skipped + number] if stage_decay else weight_decay
        scale = layer_decay ** max(0, last - number)
        matrix = parameter.ndim > 1
        moved = matrix and parameter in stage and min(parameter.flatten(1).shape) <= MOST
        groups.setdefault((scale, decay if matrix else 0.0, moved), []).append(parameter)
    for parameter in extra.parameters():
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((proxy_rate, decay, False), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "scale": scale, "orthogonal": moved}
        for (scale, decay, moved), parameters in groups.items()
    ]
