"""Objective of training: the batches, and the loss of a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import losses
from ..data.decoded import DecodedSet
from ..data.samplers import Batch, ClassBatches, PairBatches
from ..errors import SettingError
from ..losses import miners
from ..losses.base import AnyLoss, has_proxies
from ..nn import heads
from ..nn.siamese import SiameseNetwork
from ..utils.registry import plain_name
from .config import TrainConfig
from .distributed import gather_embeddings
from .parts import OwnParts
from .state import Objective


def make_batches(
    data: DecodedSet, config: TrainConfig, relations: Sequence[str] = ()
) -> ClassBatches | PairBatches:
    """Create the batch sampler of class data, or of pair data with the relations to learn."""
    options = config.sampler.model_dump()
    classes, images = options.pop("classes_per_batch"), options.pop("images_per_class")
    if data.pairs is not None:
        return PairBatches(
            data.pairs, size=classes * images // 2, relations=list(relations), seed=config.seed
        )
    return ClassBatches(
        data.images.class_index,
        classes=classes,
        images=images,
        groups=data.images.groups,
        **options,
        forgery=data.images.forgery if data.images.forgery.any() else None,
        seed=config.seed,
    )


def make_objective(
    network: SiameseNetwork,
    config: TrainConfig,
    batches: ClassBatches | PairBatches,
    *,
    parts: OwnParts = OwnParts(),  # noqa: B008 - immutable
    start_stage: int = 0,
) -> tuple[Objective[SiameseNetwork], nn.Module]:
    """Create the objective, and the module with the parameters and the memory of the loss.

    The objective maps network, images and batch to the loss, a scalar, and the embeddings. With
    ``start_stage`` above 0, the first stage of the encoder to run, images are cached features.
    """

    def embed(net: SiameseNetwork, images: Tensor, batch: Batch) -> Tensor:
        return gather_embeddings(partial(net.embed, start_stage=start_stage), images, len(batch.index))

    def of_relations(net: SiameseNetwork, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        assert batch.pairs is not None
        assert batch.relation is not None
        assert isinstance(net.head, heads.Relation)
        z = embed(net, images, batch)
        given = (*batch.pairs[:2], batch.relation)
        left, right, relation = (torch.from_numpy(part).to(images.device) for part in given)
        return F.cross_entropy(net.head.logits(z[left], z[right]), relation), z

    if isinstance(network.head, heads.Relation):
        return of_relations, nn.Module()
    num_classes = batches.num_classes if isinstance(batches, ClassBatches) else None
    loss = _make_loss(parts.loss, config, num_classes, network.embedding_size)
    by_logit = getattr(loss, "input_kind", None) == "logit"

    def of_pairs(net: SiameseNetwork, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        assert batch.pairs is not None
        left, right, same = (torch.from_numpy(np.asarray(p)).to(images.device) for p in batch.pairs)
        z = embed(net, images, batch)
        value = net.head.logit(z[left], z[right]) if by_logit else net.head(z[left], z[right])  # type: ignore[operator]
        return loss(value, same), z

    if isinstance(batches, PairBatches):
        return of_pairs, loss if isinstance(loss, nn.Module) else nn.Module()
    measure = _all_logits(network) if by_logit else config.comparison.distance
    miner = parts.miner
    if miner is None and config.mining.miner is not None:
        miner = miners.create_miner(config.mining.miner)
    total: nn.Module = losses.embedding_loss(loss, distance=measure, miner=miner)
    if config.mining.memory:
        total = losses.CrossBatchMemory(total, network.embedding_size, size=config.mining.memory)

    def of_classes(net: SiameseNetwork, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        z = embed(net, images, batch)
        labels = torch.from_numpy(batch.labels).to(images.device)
        if has_proxies(loss):  # classes with one image have no proxy
            known = labels < batches.num_classes
            return total(z[known], labels[known]), z
        return total(z, labels), z

    return of_classes, total


def _make_loss(own: AnyLoss | None, config: TrainConfig, num_classes: int | None, size: int) -> AnyLoss:
    """Copy the loss of one's own, or create the one that the configuration names."""
    if own is None:
        options = config.loss.model_dump()
        return losses.create_loss(**options, num_classes=num_classes, embedding_size=size)
    known = getattr(own, "num_classes", None)
    # pytorch-metric-learning has 0 where a loss does not keep the number.
    if isinstance(known, int) and num_classes is not None and 0 < known < num_classes:
        raise SettingError(
            f"Loss {plain_name(own)} has vectors for {known} classes, and training has {num_classes} (rotated"
            f" and mirrored ones included). Create it with num_classes={num_classes}"
        )
    return copy.deepcopy(own)


def _all_logits(network: SiameseNetwork) -> Callable[..., Tensor]:
    """Return a function from embeddings to the head's logits of all pairs: ``(n, d), (m, d) -> (n, m)``."""

    def logits(a: Tensor, b: Tensor, *, pairwise: bool = True) -> Tensor:
        head = network.head
        assert not isinstance(head, (heads.Distance, heads.Relation))  # by a rule
        if not pairwise:
            return head.logit(a, b)
        n, m = len(a), len(b)
        flat = head.logit(a.repeat_interleave(m, dim=0), b.repeat(n, 1))
        return flat.view(n, m)

    return logits
