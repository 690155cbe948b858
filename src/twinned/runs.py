"""A run of the loop over some of the data: the network, loss and optimiser that the settings name."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from . import distances, encoders, heads, losses, miners
from .data import Batch, ClassBatches, PairBatches
from .data.augment import Augmentation
from .doctor import Doctor
from .errors import SettingError
from .images import ImageSpec, Pixels
from .material import Material, Say, fingerprint, thin, usable_classes
from .network import SiameseNetwork
from .recipes import Settings
from .training import Objective, Outcome, Plan, Scores, Step, train_network
from .verification import Comparisons, compare_all, compare_pairs
from .verification import eer as equal_error_rate

FOLDS = 3
# A fold's run is this share of the main one's steps.
FOLD_SHARE = 0.5
_LOOK_TRAIN, _LOOK_HELD_OUT, _CALIBRATE = 400, 1000, 6000


class Run:
    """The settings of one call of `train`, and the runs of the loop that they lead to."""

    def __init__(
        self,
        settings: Settings,
        spec: ImageSpec,
        device: torch.device,
        progress: bool,
        on_step: Callable[[Step], None] | None,
        tell: Say,
        relations: dict[str, bool] | None = None,
    ) -> None:
        self.settings, self.spec, self.device = settings, spec, device
        self.progress, self.on_step, self.tell = progress, on_step, tell
        self.relations = relations or {}
        self.deadline: float | None = None  # by the monotonic clock, for the last run of the loop to end

    def build(self) -> SiameseNetwork:
        """A network with fresh weights, the same ones for the same seed."""
        s = self.settings
        torch.manual_seed(s.seed)
        encoder = encoders.build(
            s.encoder,
            image_size=(self.spec.height, self.spec.width),
            channels=self.spec.channels,
            embedding_size=s.embedding_size,
            dropout=s.dropout,
        )
        head = heads.build(
            s.head,
            distance=s.distance,
            embedding_size=encoder.embedding_size,
            relations=list(self.relations.values()),
        )
        network = SiameseNetwork(encoder, head, normalize=s.normalize, mean=self.spec.mean, std=self.spec.std)
        return network.to(self.device)

    def train(
        self,
        learn: Material,
        held_out: Material | None,
        checkpoint: Path | None,
        *,
        title: str,
        steps: int | None = None,
        share: float = 1.0,
    ) -> Outcome[SiameseNetwork]:
        """Train a fresh network on some of the data, in a share of the time that is left."""
        s = self.settings
        network = self.build()
        batches = _batches(learn, s, list(self.relations) if s.head == "relation" else [])
        objective, extra = _objective(network, s, batches)
        extra.to(self.device)
        warp = Augmentation(**s.augment.model_dump())
        pixels = torch.from_numpy(np.asarray(learn.pixels))

        def load(batch: Batch, step: int) -> Tensor:
            turns = None if batch.turns is None else torch.from_numpy(batch.turns)
            chosen = pixels[torch.from_numpy(batch.index)]
            return warp(chosen, turns=turns, seed=s.seed * 1_000_003 + step).to(self.device)

        if steps is None and s.epochs is not None:
            steps = max(1, round(s.epochs * len(pixels) / len(batches(0).index)))
        plan = Plan(
            steps=steps if steps is not None else s.steps,
            seconds=None if self.deadline is None else max(0.5, share * (self.deadline - time.monotonic())),
            **s.model_dump(
                include={"learning_rate", "warmup", "decay_from", "average", "evaluations"}
                | {"patience", "clip", "seed", "checkpoint_seconds"}
            ),
            bfloat16={"auto": None, "float32": False, "bfloat16": True}[s.precision],
        )
        doctor = Doctor(
            self.tell if title == "Training" else lambda sentence: None,
            classes=frozenset(batches.drawable.tolist())
            if isinstance(batches, ClassBatches)
            else frozenset(),
            active=lambda: getattr(extra, "active", None),
        )

        def watch(step: Step) -> None:
            doctor.watch(step)
            if self.on_step is not None:
                self.on_step(step)

        outcome = train_network(
            network,
            batches=batches,
            load=load,
            objective=objective,
            optimizer=_optimizer(network, extra, s),
            plan=plan,
            extra=extra,
            evaluate=_evaluator(learn, held_out, self),
            on_step=watch,
            checkpoint_file=checkpoint,
            run=json.dumps(
                s.model_dump(mode="json")
                | {"data": fingerprint(learn)["sha256"]}
                | {"held_out": None if held_out is None else fingerprint(held_out)["sha256"]}
            ),
            progress=self.progress,
            title=title,
        )
        doctor.finish()
        return outcome

    def compare(self, network: SiameseNetwork, material: Material) -> Comparisons:
        """Every comparison of some images, or of the pairs of a list."""
        if material.pairs is not None:
            vectors = self.embed(network, material.pixels)
            left, right = vectors[material.pairs.left], vectors[material.pairs.right]
            with torch.no_grad():
                distance = network.head(left.to(self.device), right.to(self.device)).cpu().numpy()
            # Without classes, images that pairs connect are the unit that is resampled.
            part = material.pairs.components()
            return compare_pairs(
                distance,
                material.pairs.same,
                left=part[material.pairs.left],
                right=part[material.pairs.right],
            )
        material = thin(material, _CALIBRATE)
        return compare_all(
            self.embed(network, material.pixels).numpy(),
            material.images.labels,
            lambda a, b: _all_distances(network, a, b, self.device),
            forgery=material.images.forgery,
            limit=2_000_000,
        )

    @torch.no_grad()
    def embed(self, network: SiameseNetwork, pixels: Pixels) -> Tensor:
        """Embed decoded images with PyTorch: ``(n, height, width, channels) -> (n, d)``."""
        network.eval()
        plain = Augmentation()
        chunks = [
            network.embed(
                plain(torch.from_numpy(np.ascontiguousarray(pixels[i : i + 256]))).to(self.device)
            ).cpu()
            for i in range(0, len(pixels), 256)
        ]
        return torch.cat(chunks)

    def cross_fit(
        self, learn: Material, main: Outcome[SiameseNetwork], work: Path | None, tell: Say
    ) -> tuple[Comparisons, bool]:
        """Comparisons of classes that a network did not see, by training one more network for each fold.

        Returns:
            The comparisons, and whether they are of unseen classes (not with fewer than 4).
        """
        labels = learn.images.labels
        usable = usable_classes(learn.images)
        folds = fold_count(learn)
        if not folds:
            return self.compare(main.network, learn), False
        tell(
            f"{len(usable)} classes are too few to hold some out:"
            f" the threshold comes from {folds} folds of them"
        )
        order = np.random.default_rng(self.settings.seed).permutation(usable)
        parts = []
        steps = max(1, round((main.state.total or 1) * FOLD_SHARE))
        for fold, classes in enumerate(np.array_split(order, folds)):
            out = np.isin(labels, classes)
            inside, outside = learn.part(np.flatnonzero(~out)), learn.part(np.flatnonzero(out))
            file = work and work / f"fold{fold + 1}.safetensors"
            title = f"Threshold {fold + 1}/{folds}"
            share = 1 / (folds - fold)
            network = self.train(inside, None, file, title=title, steps=steps, share=share).network
            parts.append(self.compare(network, outside))
        return Comparisons.concatenate(parts), True


def fold_count(learn: Material) -> int:
    """How many folds cross-fitting takes: each needs two classes; 0 with fewer than 4."""
    usable = len(usable_classes(learn.images))
    return min(FOLDS, usable // 2) if usable >= 4 else 0


def _batches(learn: Material, s: Settings, relations: list[str]) -> ClassBatches | PairBatches:
    if learn.pairs is not None:
        size = s.classes_per_batch * s.images_per_class // 2
        return PairBatches(learn.pairs, size=size, relations=relations, seed=s.seed)
    return ClassBatches(
        learn.images.class_index,
        classes=s.classes_per_batch,
        images=s.images_per_class,
        groups=learn.images.groups,
        within_group=s.within_group,
        quarter_turns=s.quarter_turns,
        forgery=learn.images.forgery if learn.images.forgery.any() else None,
        seed=s.seed,
    )


def _objective(
    network: SiameseNetwork, s: Settings, batches: ClassBatches | PairBatches
) -> tuple[Objective[SiameseNetwork], nn.Module]:
    """From a batch to its loss; and the loss, where it has weights or a memory of its own."""
    if isinstance(network.head, heads.Relation):
        return _of_relations, nn.Module()
    num_classes = len(batches.members) * batches.turns if isinstance(batches, ClassBatches) else None
    loss = losses.get(
        s.loss,
        margin=s.margin,
        temperature=s.temperature,
        num_classes=num_classes,
        embedding_size=network.embedding_size,
    )
    by_logit = getattr(loss, "wants", None) == "logit"

    def of_pairs(net: SiameseNetwork, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        if batch.pairs is None:
            raise SettingError(f"loss {s.loss} learns from pairs here, and the batch has none")
        left, right, same = (torch.from_numpy(np.asarray(p)).to(images.device) for p in batch.pairs)
        z = net.embed(images)
        value = net.head.logit(z[left], z[right]) if by_logit else net.head(z[left], z[right])  # type: ignore[operator]
        return loss(value, same), z

    if isinstance(batches, PairBatches):
        return of_pairs, loss
    measure = _all_logits(network) if by_logit else s.distance
    whole = losses.embedding_loss(
        loss, distance=measure, miner=miners.get(s.miner) if s.miner is not None else None
    )
    total = losses.CrossBatchMemory(whole, network.embedding_size, size=s.memory) if s.memory else whole

    def of_classes(net: SiameseNetwork, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        z = net.embed(images)
        return total(z, torch.from_numpy(batch.labels).to(images.device)), z

    return of_classes, total


def _of_relations(net: SiameseNetwork, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Cross-entropy of the relations."""
    if batch.pairs is None or batch.relation is None or not isinstance(net.head, heads.Relation):
        raise SettingError("the relation head learns from a pair list with a column relation")
    z = net.embed(images)
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


@torch.no_grad()
def _all_distances(
    network: SiameseNetwork, a: NDArray[Any], b: NDArray[Any], device: torch.device
) -> NDArray[Any]:
    if isinstance(network.head, heads.Distance):
        plain: NDArray[Any] = distances.get(network.head.name)(a, b, all_pairs=True)
        return plain
    left, right = torch.from_numpy(a).to(device), torch.from_numpy(b).to(device)
    rows = [network.head(row.expand(len(right), -1), right) for row in left]
    found: NDArray[Any] = torch.stack(rows).cpu().numpy()
    return found


def _optimizer(network: SiameseNetwork, extra: nn.Module, s: Settings) -> torch.optim.Optimizer:
    """Weights decay; biases and batch norm do not."""
    parameters = [*network.parameters(), *extra.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": s.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if s.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=s.learning_rate, momentum=s.momentum, nesterov=s.momentum > 0)
    return torch.optim.AdamW(groups, lr=s.learning_rate)


def _evaluator(learn: Material, held_out: Material | None, run: Run) -> Callable[[SiameseNetwork], Scores]:
    """Pair accuracy on some of the training classes and on held-out ones, both at equal error."""
    seen = thin(learn, _LOOK_TRAIN)
    unseen = thin(held_out, _LOOK_HELD_OUT) if held_out is not None else None

    def error(network: SiameseNetwork, material: Material | None) -> float:
        if material is None:
            return math.nan
        if not torch.isfinite(run.embed(network, material.pixels[:2])).all():
            return math.inf
        found = run.compare(network, material)
        if found.same.all() or not found.same.any():
            return math.nan
        return float(equal_error_rate(found.distance, found.same))

    def evaluate(network: SiameseNetwork) -> Scores:
        eer, trained = error(network, unseen), error(network, seen)
        if math.isinf(trained):
            return Scores(math.nan, math.nan, math.inf)
        return Scores(1 - trained, 1 - eer, eer)

    return evaluate


def training_device(name: str) -> str:
    offered = ["cpu"]
    if torch.cuda.is_available():
        offered.insert(0, "cuda")
    if torch.backends.mps.is_available():
        offered.insert(0, "mps")
    if name == "auto":
        return offered[0]
    if name not in offered:
        raise SettingError(
            f"device {name!r} cannot be used for training here; choose auto or {', '.join(offered)}"
        )
    return name
