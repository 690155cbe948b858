"""A run of the loop over some of the data: the network, loss and optimiser that the settings name."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import encoders, heads
from .data import ClassBatches
from .data.augment import Augmentation
from .doctor import Doctor
from .errors import SettingError
from .feeds import Feed, Front, PixelFeed, whole
from .freezing import Freezing, frozen_stages, parameter_groups
from .images import ImageSpec
from .material import Material, Say, fingerprint, sample, thin, usable_classes
from .network import SiameseNetwork
from .objectives import all_distances, make_batches, make_objective
from .recipes import Settings
from .training import Outcome, Plan, Scores, Step, train_network
from .verification import Comparisons, compare_all, compare_pairs
from .verification import eer as equal_error_rate

FOLDS = 3
# A fold's run is this share of the main one's steps.
FOLD_SHARE = 0.5
_LOOK_TRAIN, _LOOK_HELD_OUT, _CALIBRATE = 400, 1000, 6000
# Shares of the time that is left: for every image to go through the frozen stages once, and for their views.
_FRONT_SHARE, _VIEWS_SHARE = 0.4, 0.3


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
        start: SiameseNetwork | None = None,
    ) -> None:
        self.settings, self.spec, self.device = settings, spec, device
        self.progress, self.on_step, self.tell = progress, on_step, tell
        self.relations = relations or {}
        self.start = start
        self.front: Front | None = None
        self.deadline: float | None = None  # by the monotonic clock, for the last run of the loop to end

    def build(self) -> SiameseNetwork:
        """The network to start from; without one, fresh or pretrained weights, the same for the same seed."""
        if self.start is not None:
            return copy.deepcopy(self.start).to(self.device)
        s = self.settings
        torch.manual_seed(s.seed)
        encoder = encoders.build(
            s.encoder,
            image_size=(self.spec.height, self.spec.width),
            channels=self.spec.channels,
            embedding_size=s.embedding_size,
            dropout=s.dropout,
            pretrained=s.weights is None,
        )
        if s.weights is not None:
            encoders.load_weights(encoder, s.weights)
        head = heads.build(
            s.head,
            distance=s.distance,
            embedding_size=encoder.embedding_size,
            relations=list(self.relations.values()),
        )
        network = SiameseNetwork(encoder, head, normalize=s.normalize, mean=self.spec.mean, std=self.spec.std)
        return network.to(self.device)

    def prepare(self, material: Material) -> Material:
        """Run all images through the stages that stay frozen, once; fewer images where time is too short.

        Nothing is done where no stage stays frozen, or where there is no room for what comes out.
        """
        s, network = self.settings, self.build()
        encoder = network.encoder
        stages = frozen_stages(encoder, s.freeze)
        last = len(encoder.stages()) - 1
        if not stages or s.thaw is not None or s.quarter_turns or not (encoder.sequential or stages == last):
            return material
        front = Front(network, stages, warp=self.warp, views=s.views, seed=s.seed)
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if left is not None:
            most = max(64, int(_FRONT_SHARE * left / front.seconds_an_image(material.pixels)))
            if most < len(material.pixels):
                self.tell(f"time allows for {most} of {len(material.pixels)} images, spread over the classes")
                material = sample(material, most, seed=s.seed)
        if front.run(
            material.pixels,
            material.hashes,
            seconds=None if left is None else _VIEWS_SHARE * left,
            progress=self.progress,
        ):
            self.front = front
        return material

    @property
    def warp(self) -> Augmentation:
        """The augmentation."""
        return Augmentation(**self.settings.augment.model_dump())

    def feed(self, material: Material) -> Feed:
        """Images as a network of this run takes them."""
        if self.front is not None:
            return self.front.feed(material.hashes)
        return PixelFeed(material.pixels, self.warp, device=self.device, seed=self.settings.seed)

    def tail(self, network: SiameseNetwork) -> SiameseNetwork:
        """The part of a network that learns, where its front is frozen; the whole network otherwise."""
        return network if self.front is None else self.front.tail(network)

    def whole(self, network: SiameseNetwork) -> SiameseNetwork:
        """The whole network of a part that has learnt."""
        return whole(network, mean=self.spec.mean, std=self.spec.std)

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
        """Train a network on some of the data, in a share of the time that is left."""
        s = self.settings
        network = self.tail(self.build())
        batches = make_batches(learn, s, list(self.relations) if s.head == "relation" else [])
        objective, extra = make_objective(network, s, batches)
        extra.to(self.device)
        feed = self.feed(learn)
        frozen = 0 if self.front is not None else frozen_stages(network.encoder, s.freeze)
        freezing = Freezing(frozen, s.thaw)
        if steps is None and s.epochs is not None:
            steps = max(1, round(s.epochs * len(feed) / len(batches(0).index)))
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
            freezing.watch(step)
            if self.on_step is not None:
                self.on_step(step)

        outcome = train_network(
            network,
            batches=batches,
            load=feed.batch,
            objective=freezing.around(objective),
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
            vectors = self.embed(network, material)
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
            self.embed(network, material).numpy(),
            material.images.labels,
            lambda a, b: all_distances(network, a, b, self.device),
            forgery=material.images.forgery,
            limit=2_000_000,
        )

    @torch.no_grad()
    def embed(self, network: SiameseNetwork, material: Material, *, most: int | None = None) -> Tensor:
        """Embed images, or the first few of them, with PyTorch: shape ``(n, d)``."""
        network.eval()
        feed = self.feed(material)
        count = len(feed) if most is None else min(most, len(feed))
        some = int(np.clip((1 << 22) // (self.spec.height * self.spec.width), 1, 256))
        return torch.cat(
            [network.embed(feed.plain(i, min(i + some, count))).cpu() for i in range(0, count, some)]
        )

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


def _optimizer(network: SiameseNetwork, extra: nn.Module, s: Settings) -> torch.optim.Optimizer:
    groups = parameter_groups(network, extra, weight_decay=s.weight_decay, layer_decay=s.layer_decay)
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
        if not torch.isfinite(run.embed(network, material, most=2)).all():
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
