"""Heads: two embeddings in, how far apart they are out.

A head's ``forward(a, b)`` gives a distance of shape ``(n,)``, at least 0, lower is closer. A plain head
is one of the four distances. A learned head has a score in [0, 1], and its distance is 1 - score; its
``logit`` is what the pair cross-entropy is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import distances
from ..errors import SettingError


class Distance(nn.Module):
    """A plain distance, with nothing to learn.

    Args:
        name: ``euclidean``, ``squared_euclidean``, ``manhattan`` or ``cosine``.
    """

    learned = False

    def __init__(self, name: str = "cosine") -> None:
        super().__init__()
        distances.get(name)
        self.name = name

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of pairs: ``(n, d), (n, d) -> (n,)``."""
        distance: Tensor = distances.get(self.name)(a, b)
        return distance


class WeightedL1(nn.Module):
    """Sigmoid of a weighted sum of ``|a - b|``, the head of Koch 2015.

    Args:
        embedding_size: Values of an embedding; None to take it from the first input.

    References:
        Koch et al. 2015, section 3.1: ``p = sigmoid(sum_j alpha_j |h1_j - h2_j|)``. Weights start as
        N(0, 0.2), the bias as N(0.5, 0.01).
    """

    learned = True
    name = "cosine"  # by which a search finds candidates, before the head re-orders them

    def __init__(self, embedding_size: int | None = None) -> None:
        super().__init__()
        self.weight = nn.LazyLinear(1) if embedding_size is None else nn.Linear(embedding_size, 1)
        if embedding_size is not None:
            self._start()

    def _start(self) -> None:
        nn.init.normal_(self.weight.weight, 0.0, 0.2)
        nn.init.normal_(self.weight.bias, 0.5, 0.01)

    def logit(self, a: Tensor, b: Tensor) -> Tensor:
        """Log odds of *same*: ``(n, d), (n, d) -> (n,)``."""
        if isinstance(self.weight, nn.LazyLinear):
            self.weight(a - b)
            self._start()
        logit: Tensor = self.weight((a - b).abs())[:, 0]
        return logit

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """Learned P(same), in [0, 1], HIGHER is closer: ``(n, d), (n, d) -> (n,)``."""
        return torch.sigmoid(self.logit(a, b))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of pairs, 1 - score, in [0, 1]: ``(n, d), (n, d) -> (n,)``."""
        return 1 - self.score(a, b)


class SigmoidDistance(nn.Module):
    """Sigmoid of a distance with a learned scale and shift: one input, two numbers to learn.

    Args:
        name: The distance underneath.
    """

    learned = True

    def __init__(self, name: str = "euclidean") -> None:
        super().__init__()
        distances.get(name)
        self.name = name
        self.scale = nn.Parameter(torch.tensor(-1.0))
        self.shift = nn.Parameter(torch.tensor(1.0))

    def logit(self, a: Tensor, b: Tensor) -> Tensor:
        """Log odds of *same*: ``(n, d), (n, d) -> (n,)``."""
        logit: Tensor = self.scale * distances.get(self.name)(a, b) + self.shift
        return logit

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """Learned P(same), in [0, 1], HIGHER is closer: ``(n, d), (n, d) -> (n,)``."""
        return torch.sigmoid(self.logit(a, b))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of pairs, 1 - score, in [0, 1]: ``(n, d), (n, d) -> (n,)``."""
        return 1 - self.score(a, b)


class Relation(nn.Module):
    """Softmax over the relations that two images can have.

    It looks at ``|a - b|`` and ``a * b``, so both orders of a pair give one answer; slide 13 of the deck
    concatenates ``a`` and ``b``. Its score, P(same), is that of the relations whose pairs count as same,
    taken together.

    Args:
        same: For each relation, whether its pairs are *same*; at least two relations.
        embedding_size: Values of an embedding.
        hidden: Units of the layer in between.

    Raises:
        SettingError: If there are fewer than two relations.

    Example:
        >>> head = Relation([True, False, False], embedding_size=4)
        >>> a, b = torch.rand(2, 5, 4)
        >>> head.probabilities(a, b).shape
        torch.Size([5, 3])
    """

    learned = True
    name = "cosine"  # by which a search finds candidates, before the head re-orders them
    same: Tensor

    def __init__(self, same: Sequence[bool], embedding_size: int, *, hidden: int = 64) -> None:
        super().__init__()
        if len(same) < 2:
            raise SettingError(f"the relation head tells two relations or more apart; got {len(same)}")
        self.register_buffer("same", torch.tensor(same, dtype=torch.float32))
        self.layers = nn.Sequential(
            nn.Linear(2 * embedding_size, hidden), nn.ReLU(), nn.Linear(hidden, len(same))
        )

    def logits(self, a: Tensor, b: Tensor) -> Tensor:
        """Before the softmax: ``(n, d), (n, d) -> (n, relations)``."""
        logits: Tensor = self.layers(torch.cat([(a - b).abs(), a * b], dim=1))
        return logits

    def probabilities(self, a: Tensor, b: Tensor) -> Tensor:
        """Of each relation, summing to 1: ``(n, d), (n, d) -> (n, relations)``."""
        return torch.softmax(self.logits(a, b), dim=1)

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """Learned P(same), in [0, 1], HIGHER is closer: ``(n, d), (n, d) -> (n,)``."""
        return self.probabilities(a, b) @ self.same

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of pairs, 1 - score, in [0, 1]: ``(n, d), (n, d) -> (n,)``."""
        return self.probabilities(a, b) @ (1 - self.same)


Head = Distance | WeightedL1 | SigmoidDistance | Relation
HEADS = ("distance", "weighted-l1", "sigmoid-distance", "relation")


def build(name: str, *, distance: str, embedding_size: int, relations: Sequence[bool] = ()) -> Head:
    """Make a head by name: one of ``HEADS``.

    Args:
        name: One of ``HEADS``.
        distance: Of the heads that have one underneath.
        embedding_size: Values of an embedding.
        relations: For the relation head: of each relation, whether its pairs are *same*.

    Raises:
        SettingError: If the name is not known.
    """
    if name == "distance":
        return Distance(distance)
    if name == "weighted-l1":
        return WeightedL1(embedding_size)
    if name == "sigmoid-distance":
        return SigmoidDistance(distance)
    if name == "relation":
        return Relation(relations, embedding_size)
    raise SettingError(f"head {name!r} is not known; choose one of {', '.join(HEADS)}")
