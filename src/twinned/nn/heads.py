"""Heads compute the distance of two embeddings.

``head(a, b)`` returns a distance of shape ``(n,)``, at least 0, lower is closer. A plain head is one of the
four distances. A learned head has a score in [0, 1] and the distance 1 - score. `PairCrossEntropy` trains it
through its ``logit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .. import distances
from ..errors import SettingError


class Distance(nn.Module):
    """Plain distance, without parameters.

    Args:
        name: Distance: ``euclidean``, ``squared_euclidean``, ``manhattan`` or ``cosine``.
    """

    learned = False

    def __init__(self, name: str = "cosine") -> None:
        super().__init__()
        distances.get(name)
        self.name = name

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the distances of pairs: ``(n, d), (n, d) -> (n,)``."""
        distance: Tensor = distances.get(self.name)(a, b)
        return distance


class _Logistic(nn.Module):
    """Learned head whose score is the sigmoid of its logit."""

    learned = True

    def logit(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the log odds of *same*: ``(n, d), (n, d) -> (n,)``."""
        raise NotImplementedError

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the learned P(same), in [0, 1], HIGHER is closer: ``(n, d), (n, d) -> (n,)``."""
        return torch.sigmoid(self.logit(a, b))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the distances of pairs, 1 - score, in [0, 1]: ``(n, d), (n, d) -> (n,)``."""
        return 1 - self.score(a, b)


class WeightedL1(_Logistic):
    """Sigmoid of a weighted sum of ``|a - b|``, the head of Koch 2015.

    Args:
        embedding_size: Values in an embedding; None reads it from the first input.

    References:
        Koch et al. 2015, section 3.1: ``p = sigmoid(sum_j alpha_j |h1_j - h2_j|)``. Weights are
        initialized from N(0, 0.2), the bias from N(0.5, 0.01).
    """

    name = "cosine"  # distance by which a search finds candidates, before the head sorts them

    def __init__(self, embedding_size: int | None = None) -> None:
        super().__init__()
        self.weight = nn.LazyLinear(1) if embedding_size is None else nn.Linear(embedding_size, 1)
        if embedding_size is not None:
            self._initialize()

    def _initialize(self) -> None:
        nn.init.normal_(self.weight.weight, 0.0, 0.2)
        nn.init.normal_(self.weight.bias, 0.5, 0.01)

    def logit(self, a: Tensor, b: Tensor) -> Tensor:
        if isinstance(self.weight, nn.LazyLinear):
            self.weight(a - b)
            self._initialize()
        logit: Tensor = self.weight((a - b).abs())[:, 0]
        return logit


class SigmoidDistance(_Logistic):
    """Sigmoid of a distance with a learned scale and shift.

    Args:
        name: Distance; see `Distance`.
    """

    def __init__(self, name: str = "euclidean") -> None:
        super().__init__()
        distances.get(name)
        self.name = name
        self.scale = nn.Parameter(torch.tensor(-1.0))
        self.shift = nn.Parameter(torch.tensor(1.0))

    def logit(self, a: Tensor, b: Tensor) -> Tensor:
        logit: Tensor = self.scale * distances.get(self.name)(a, b) + self.shift
        return logit


def deck(
    compare: Literal["difference", "euclidean"] = "difference", *, embedding_size: int = 128
) -> WeightedL1 | SigmoidDistance:
    """Build a head of the slide deck: a dense layer with one output and a sigmoid.

    Initial weights are those of Keras: Glorot uniform, bias 0. The one weight of the Euclidean distance is
    drawn from [-1.73, 1.73]; where it is positive, a large distance means *same* at first.

    Args:
        compare: Input of the dense layer: ``difference`` for ``|a - b|`` (slide 1), ``euclidean`` for the
            Euclidean distance (slides 10 and 11); another value raises a `SettingError`.
        embedding_size: Values in an embedding.
    """
    if compare == "difference":
        difference = WeightedL1(embedding_size)
        nn.init.xavier_uniform_(difference.weight.weight)
        nn.init.zeros_(difference.weight.bias)
        return difference
    if compare == "euclidean":
        distance = SigmoidDistance("euclidean")
        nn.init.uniform_(distance.scale, -(3**0.5), 3**0.5)
        nn.init.zeros_(distance.shift)
        return distance
    raise SettingError(f"compare {compare!r} is not known; choose difference or euclidean")


class Relation(nn.Module):
    """Softmax over the relations that two images can have.

    The inputs are ``|a - b|`` and ``a * b``, so the result does not depend on the order of a pair. The score,
    P(same), is the total probability of the relations whose pairs are *same*.

    Args:
        same: For each relation, True if its pairs are *same*; fewer than two raise a `SettingError`.
        embedding_size: Values in an embedding.
        hidden: Units of the hidden layer.
        concatenate: Use ``a`` and ``b`` as inputs instead, as slide 13 of the deck, for relations that depend
            on the order of a pair.

    Example:
        >>> head = Relation([True, False, False], embedding_size=4)
        >>> a, b = torch.rand(2, 5, 4)
        >>> head.probabilities(a, b).shape
        torch.Size([5, 3])
    """

    learned = True
    name = "cosine"  # distance by which a search finds candidates, before the head sorts them
    same: Tensor

    def __init__(
        self, same: Sequence[bool], embedding_size: int, *, hidden: int = 64, concatenate: bool = False
    ) -> None:
        super().__init__()
        self.concatenate = concatenate
        if len(same) < 2:
            raise SettingError(f"the relation head needs at least two relations; got {len(same)}")
        self.register_buffer("same", torch.tensor(same, dtype=torch.float32))
        first, last = nn.Linear(2 * embedding_size, hidden), nn.Linear(hidden, len(same))
        self.layers = nn.Sequential(first, nn.ReLU(), last)

    def logits(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the input of the softmax: ``(n, d), (n, d) -> (n, relations)``."""
        inputs = [a, b] if self.concatenate else [(a - b).abs(), a * b]
        logits: Tensor = self.layers(torch.cat(inputs, dim=1))
        return logits

    def probabilities(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the probabilities of the relations: ``(n, d), (n, d) -> (n, relations)``; rows sum to 1."""
        return torch.softmax(self.logits(a, b), dim=1)

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the learned P(same), in [0, 1], HIGHER is closer: ``(n, d), (n, d) -> (n,)``."""
        return self.probabilities(a, b) @ self.same

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the distances of pairs, 1 - score, in [0, 1]: ``(n, d), (n, d) -> (n,)``."""
        return self.probabilities(a, b) @ (1 - self.same)


Head = Distance | WeightedL1 | SigmoidDistance | Relation
HEADS = ("distance", "weighted-l1", "sigmoid-distance", "relation")


def create_head(name: str, *, distance: str, embedding_size: int, relations: Sequence[bool] = ()) -> Head:
    """Create a head by name; an unknown one raises a `SettingError`.

    Args:
        name: One of ``HEADS``.
        distance: Distance of the heads ``distance`` and ``sigmoid-distance``.
        embedding_size: Values in an embedding.
        relations: For the relation head: for each relation, True if its pairs are *same*.
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


build = create_head  # name of version 0.1
