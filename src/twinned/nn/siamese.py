"""The Siamese network: one encoder, shared by construction, applied to both inputs, and a head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoders.convnets import Encoder
from .heads import Distance, Head
from .score_norm import CohortScoreNorm


class Layer(NamedTuple):
    """One row of a network's summary."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int


class SiameseNetwork(nn.Module):
    """One encoder applied to both inputs, then a head that says how far apart they are.

    There is one encoder object, so the branches cannot drift apart: weights are shared by construction.
    The state holds mean and deviation besides the weights, so a network that loads it gives equal embeddings.
    A state without them fits a network that was given both.

    Args:
        encoder: Floats ``(n, channels, height, width)`` to embeddings ``(n, d)``.
        head: From two embeddings to a distance; by default the cosine distance.
        normalize: Scale embeddings to length 1 (FaceNet, and every loss on a sphere).
        cohort: Compares embeddings with some of the training images, which adds a value to them.
        mean: Taken off the pixels, which are in [0, 1], one value a channel.
        std: The pixels are divided by it after that, one value a channel.

    Example:
        >>> from twinned.nn.encoders.papers import Koch2015
        >>> from twinned.nn.heads import WeightedL1
        >>> network = SiameseNetwork(Koch2015(), head=WeightedL1())
        >>> sum(p.numel() for p in network.parameters())
        38951745
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: Encoder,
        head: Head | None = None,
        *,
        normalize: bool = False,
        cohort: CohortScoreNorm | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head if head is not None else Distance("cosine")
        self.normalize = normalize
        self.cohort = cohort
        channels = encoder.channels
        self._fed = mean is not None and std is not None
        self.register_buffer("mean", torch.tensor(mean or (0.0,) * channels).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std or (1.0,) * channels).view(-1, 1, 1))
        where = next(self.head.parameters(), torch.empty(0)).device
        # A head without a size takes it from here.
        self.head(*torch.zeros(2, 1, encoder.embedding_size, device=where))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self._fed:  # a state without them leaves those that were given
            for name in ("mean", "std"):
                state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def statistics(self) -> dict[str, tuple[float, ...]]:
        """Mean and deviation of the pixels, as an `ImageSpec` has them."""
        named = {"mean": self.mean, "std": self.std}
        return {name: tuple(round(v, 6) for v in value.flatten().tolist()) for name, value in named.items()}

    @property
    def embedding_size(self) -> int:
        """Values of an embedding."""
        return self.encoder.embedding_size + (self.cohort is not None)

    def embed(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: Floats in [0, 1], shape ``(n, channels, height, width)``.

        Returns:
            Shape ``(n, d)``; of length 1 where the network normalises.
        """
        embedding: Tensor = self.encoder((images - self.mean) / self.std)
        # The loss needs the digits of float32 where the network runs in half precision.
        return self.finished(embedding.to(torch.promote_types(embedding.dtype, torch.float32)))

    def finished(self, embedding: Tensor) -> Tensor:
        """What the encoder gives as it is handed out: scaled to length 1, and compared with the cohort."""
        embedding = F.normalize(embedding) if self.normalize else embedding
        return embedding if self.cohort is None else self.cohort(embedding)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """How far apart the images of each pair are.

        Args:
            left: Floats in [0, 1], shape ``(n, channels, height, width)``.
            right: The same shape.

        Returns:
            Distances, shape ``(n,)``, at least 0, lower is closer.
        """
        distance: Tensor = self.head(self.embed(left), self.embed(right))
        return distance

    def layers(self) -> list[Layer]:
        """List the layers that an image goes through, in order.

        Each row has the layer's output shape without the batch, and its parameters. Parameters are counted
        once, in the row of the first call that uses them. A symmetric encoder is listed as one pass, although
        it embeds the mirror image too.
        """
        rows: list[Layer] = []
        counted: set[nn.Parameter] = set()

        def note(name: str) -> Callable[[nn.Module, object, Tensor], None]:
            def hook(module: nn.Module, _: object, output: Tensor) -> None:
                fresh = set(module.parameters(recurse=False)) - counted
                counted.update(fresh)
                count = sum(p.numel() for p in fresh)
                rows.append(Layer(name, type(module).__name__, tuple(output.shape[1:]), count))

            return hook

        leaves = [
            (name, m)
            for name, m in self.encoder.named_modules()
            if (not list(m.children()) or list(m.parameters(recurse=False)))
            and type(m).__name__ != "Identity"  # torch's, and those of other libraries
        ]
        handles = [m.register_forward_hook(note(name)) for name, m in leaves]
        was_training, symmetric = self.training, self.encoder.symmetric
        self.eval()
        self.encoder.symmetric = False
        try:
            with torch.no_grad():
                zeros = torch.zeros(
                    1, self.encoder.channels, *self.encoder.image_size, device=self.mean.device
                )
                self.embed(zeros)
        finally:
            self.encoder.symmetric = symmetric
            self.train(was_training)
            for handle in handles:
                handle.remove()
        head = sum(p.numel() for p in self.head.parameters())
        return [*rows, Layer("head", type(self.head).__name__, (), head)]

    def summary(self) -> str:
        """The layers, output shapes and parameters as a table, the shared ones counted once."""
        rows = [
            (row.name, row.kind, "x".join(map(str, row.output)) or "1", f"{row.parameters:,}")
            for row in self.layers()
        ]
        rows.insert(0, ("layer", "kind", "output", "parameters"))
        width = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{r[0]:<{width[0]}}  {r[1]:<{width[1]}}  {r[2]:>{width[2]}}  {r[3]:>{width[3]}}" for r in rows
        ]
        total = sum(p.numel() for p in self.parameters())
        lines.insert(1, "-" * len(lines[0]))
        lines.append("-" * len(lines[0]))
        lines.append(f"{total:,} parameters; both inputs go through the one encoder above")
        return "\n".join(lines)
