"""What a run learns from and how: its batches, from a batch to its loss, and its optimiser, by the settings.

The images of a batch may be shared out among processes; the loss is that of the whole batch in each of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import losses
from ..data.decoded import DecodedSet
from ..data.samplers import Batch, ClassBatches, PairBatches
from ..errors import SettingError
from ..losses import miners
from ..nn import heads
from ..nn.siamese import SiameseNetwork
from .config import Settings
from .distributed import gather_embeddings
from .freezing import parameter_groups
from .optimizers import Muon
from .state import Objective


def make_batches(learn: DecodedSet, s: Settings, relations: list[str]) -> ClassBatches | PairBatches:
    if learn.pairs is not None:
        size = s.classes_per_batch * s.images_per_class // 2
        return PairBatches(learn.pairs, size=size, relations=relations, seed=s.seed)
    return ClassBatches(
        learn.images.class_index,
        classes=s.classes_per_batch,
        images=s.images_per_class,
        groups=learn.images.groups,
        same_group_fraction=s.within_group,
        rotate_classes=s.quarter_turns,
        flip_classes=s.mirrors,
        forgery=learn.images.forgery if learn.images.forgery.any() else None,
        seed=s.seed,
    )


def make_objective(
    network: SiameseNetwork, s: Settings, batches: ClassBatches | PairBatches
) -> tuple[Objective[SiameseNetwork], nn.Module]:
    """From a batch to its loss; and the loss, where it has weights or a memory of its own."""
    num_classes = batches.num_classes if isinstance(batches, ClassBatches) else None
    loss = losses.get(
        s.loss,
        margin=s.margin,
        temperature=s.temperature,
        scale=s.scale,
        bound=s.bound,
        num_classes=num_classes,
        embedding_size=network.embedding_size,
    )
    if isinstance(network.head, heads.Relation):
        return _of_relations, nn.Module()
    by_logit = getattr(loss, "wants", None) == "logit"

    def of_pairs(net: SiameseNetwork, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        if batch.pairs is None:
            raise SettingError(f"loss {s.loss} learns from pairs here, and the batch has none")
        left, right, same = (torch.from_numpy(np.asarray(p)).to(images.device) for p in batch.pairs)
        z = gather_embeddings(net.embed, images, len(batch.index))
        value = net.head.logit(z[left], z[right]) if by_logit else net.head(z[left], z[right])  # type: ignore[operator]
        return loss(value, same), z

    if isinstance(batches, PairBatches):
        return of_pairs, loss
    measure = _all_logits(network) if by_logit else s.distance
    whole = losses.embedding_loss(
        loss, distance=measure, miner=miners.get(s.miner) if s.miner is not None else None
    )
    total = losses.CrossBatchMemory(whole, network.embedding_size, size=s.memory) if s.memory else whole

    proxied = isinstance(loss, (losses.ArcFaceLoss, losses.ProxyAnchorLoss))

    def of_classes(net: SiameseNetwork, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        z = gather_embeddings(net.embed, images, len(batch.index))
        labels = torch.from_numpy(batch.labels).to(images.device)
        if proxied:  # there is no proxy for what is nobody's positive
            known = labels < batches.num_classes
            return total(z[known], labels[known]), z
        return total(z, labels), z

    return of_classes, total


def make_optimizer(
    network: SiameseNetwork, extra: nn.Module, s: Settings, *, skipped: int = 0
) -> torch.optim.Optimizer:
    """Over the network's parameters and those of the loss; ``skipped`` stages stand before the network's."""
    groups = parameter_groups(
        network,
        extra,
        weight_decay=s.weight_decay,
        layer_decay=s.layer_decay,
        proxy_rate=s.proxy_rate,
        stage_decay=s.stage_decay,
        skipped=skipped,
    )
    if s.optimizer == "sgd":
        nesterov = s.momentum > 0 and s.momentum_from is None
        return torch.optim.SGD(groups, lr=s.learning_rate, momentum=s.momentum, nesterov=nesterov)
    if s.optimizer == "muon":
        return Muon(groups, lr=s.learning_rate)
    return torch.optim.AdamW(groups, lr=s.learning_rate, fused=True)


def _of_relations(net: SiameseNetwork, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Cross-entropy of the relations."""
    if batch.pairs is None or batch.relation is None or not isinstance(net.head, heads.Relation):
        raise SettingError("the relation head learns from a pair list with a column relation")
    z = gather_embeddings(net.embed, images, len(batch.index))
    left, right, relation = (
        torch.from_numpy(part).to(images.device) for part in (*batch.pairs[:2], batch.relation)
    )
    return F.cross_entropy(net.head.logits(z[left], z[right]), relation), z


def _all_logits(network: SiameseNetwork) -> Callable[..., Tensor]:
    """The head's logits for all pairs: ``(n, d), (m, d) -> (n, m)``."""

    def logits(a: Tensor, b: Tensor, *, all_pairs: bool = True) -> Tensor:
        head = network.head
        if isinstance(head, (heads.Distance, heads.Relation)):
            raise SettingError("the cross-entropy loss needs a learned head: weighted-l1 or sigmoid-distance")
        if not all_pairs:
            return head.logit(a, b)
        n, m = len(a), len(b)
        flat = head.logit(a.repeat_interleave(m, dim=0), b.repeat(n, 1))
        return flat.view(n, m)

    return logits
