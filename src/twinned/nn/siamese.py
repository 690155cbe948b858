"""Siamese network: one encoder for both inputs, and a head that compares their embeddings."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoders.base import Encoder
from .heads import Distance, Head
from .score_norm import CohortScoreNorm


class Layer(NamedTuple):
    """Row of the summary of a network."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int


class SiameseNetwork(nn.Module):
    """Encoder applied to both inputs, and a head that maps two embeddings to a distance.

    Both branches are the same encoder object, so their weights are shared. The state contains mean and
    standard deviation of the pixels; a state without them can be loaded if the network was given both.

    Args:
        encoder: Maps floats ``(n, channels, height, width)`` to embeddings ``(n, d)``.
        head: Maps two embeddings to a distance; the cosine distance by default.
        normalize: Scale embeddings to length 1 (as FaceNet, and for every loss on the sphere).
        cohort: Score normalization with a cohort of training images, which appends one value to embeddings.
        mean: Mean of the pixels, scaled to [0, 1], one value per channel; 0 by default.
        std: Standard deviation of the pixels, one value per channel; 1 by default.

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
        self._has_statistics = mean is not None and std is not None
        self.register_buffer("mean", torch.tensor(mean or (0.0,) * channels).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std or (1.0,) * channels).view(-1, 1, 1))
        where = next(self.head.parameters(), torch.empty(0)).device
        # A head without a size is initialized by its first input.
        self.head(*torch.zeros(2, 1, encoder.embedding_size, device=where))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self._has_statistics:  # a state without them keeps the given values
            for name in ("mean", "std"):
                state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def statistics(self) -> dict[str, tuple[float, ...]]:
        """Mean and standard deviation of the pixels, by the names of `ImageSpec`."""
        named = {"mean": self.mean, "std": self.std}
        return {name: tuple(round(v, 6) for v in value.flatten().tolist()) for name, value in named.items()}

    @property
    def embedding_size(self) -> int:
        """Number of values of an embedding."""
        return self.encoder.embedding_size + (self.cohort is not None)

    def embed(self, images: Tensor, *, start_stage: int = 0) -> Tensor:
        """Embed images: shape ``(n, d)``, of length 1 if the network normalizes.

        Args:
            images: Floats in [0, 1], shape ``(n, channels, height, width)``; or, with ``start_stage`` above
                0, cached input of that stage of the encoder.
            start_stage: First stage of the encoder to run.
        """
        embedding: Tensor = self.encoder(self._normalized(images, start_stage), start_stage=start_stage)
        # Losses need the precision of float32 under autocast to bfloat16.
        return self.postprocess(embedding.to(torch.promote_types(embedding.dtype, torch.float32)))

    def pooled_features(self, images: Tensor, *, start_stage: int = 0) -> Tensor:
        """Return the input of the encoder's projection, shape ``(n, n_features)``; see `embed`."""
        return self.encoder.pooled_features(self._normalized(images, start_stage), start_stage=start_stage)

    def _normalized(self, images: Tensor, start_stage: int) -> Tensor:
        return images if start_stage else (images - self.mean) / self.std

    def postprocess(self, embedding: Tensor) -> Tensor:
        """Scale the encoder's output to length 1 and apply score normalization, if the network has them."""
        embedding = F.normalize(embedding) if self.normalize else embedding
        return embedding if self.cohort is None else self.cohort(embedding)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the distance of each pair of images: shape ``(n,)``, at least 0, lower is closer.

        Both inputs are floats in [0, 1], shape ``(n, channels, height, width)``.
        """
        distance: Tensor = self.head(self.embed(left), self.embed(right))
        return distance

    def layers(self) -> list[Layer]:
        """List the layers in the order of the forward pass.

        Output shapes are without the batch dimension. Parameters are counted once, in the first layer that
        uses them. A symmetric encoder is listed as one pass, although it embeds the mirror image too.
        """
        rows: list[Layer] = []
        counted: set[nn.Parameter] = set()

        def note(name: str, module: nn.Module, _: object, output: Any) -> None:
            fresh = set(module.parameters(recurse=False)) - counted
            counted.update(fresh)
            shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
            rows.append(Layer(name, type(module).__name__, shape, sum(p.numel() for p in fresh)))

        handles = [
            module.register_forward_hook(partial(note, name))
            for name, module in self.encoder.named_modules()
            if (not list(module.children()) or list(module.parameters(recurse=False)))
            and type(module).__name__ != "Identity"  # in PyTorch and in other libraries
        ]
        was_training, symmetric = self.training, self.encoder.symmetric
        self.eval()
        self.encoder.symmetric = False
        shape = 1, self.encoder.channels, *self.encoder.image_size
        try:
            with torch.no_grad():
                self.embed(torch.zeros(shape, device=self.mean.device))
        finally:
            self.encoder.symmetric = symmetric
            self.train(was_training)
            for handle in handles:
                handle.remove()
        head = sum(p.numel() for p in self.head.parameters())
        return [*rows, Layer("head", type(self.head).__name__, (), head)]

    def summary(self) -> str:
        """Return a table of layers, output shapes and parameters; shared parameters are counted once."""
        rows = [("layer", "kind", "output", "parameters")]
        for name, kind, output, parameters in self.layers():
            rows.append((name, kind, "x".join(map(str, output)) or "1", f"{parameters:,}"))
        a, b, c, d = (max(map(len, column)) for column in zip(*rows))
        first, *lines = (f"{r[0]:<{a}}  {r[1]:<{b}}  {r[2]:>{c}}  {r[3]:>{d}}" for r in rows)
        rule, total = "-" * len(first), sum(p.numel() for p in self.parameters())
        last = f"{total:,} parameters; both inputs go through the one encoder above"
        return "\n".join([first, rule, *lines, rule, last])
