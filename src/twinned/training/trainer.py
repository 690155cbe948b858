"""A run of the loop over some of the data: the network, loss and optimiser that the settings name."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.augmentation import Augmentation
from ..data.decoded import DecodedSet, Say
from ..data.preprocessing import ImageSpec
from ..data.samplers import ClassBatches
from ..data.splits import enrollment_size, subsample
from ..errors import SettingError
from ..metrics.roc import eer as equal_error_rate
from ..nn import encoders, heads
from ..nn.lda import fit_lda_projection
from ..nn.score_norm import CohortScoreNorm
from ..nn.siamese import SiameseNetwork
from ..utils.files import write_text
from . import distributed
from .callbacks import TrainingMonitor
from .config import Settings
from .feature_cache import (
    FeatureCache,
    InputSource,
    PixelSource,
    whole,
)
from .freezing import Freezing, frozen_stages
from .loop import train_network
from .objective import make_batches, make_objective, make_optimizer
from .state import (
    Schedule,
    Scores,
    Step,
    TrainResult,
)
from .validation import ValidationScore, compare, judge
from .warm_start import WarmStart

# A fold's run is this share of the main one's steps.
FOLD_SHARE = 0.5
_EACH = 4  # images of a class, where time allows for some of the images alone
_LOOK_TRAIN, _LOOK_HELD_OUT, _CALIBRATE = 400, 1000, 6000
# Shares of the time that is left: for every image to go through the frozen stages once, and for their views.
_FRONT_SHARE, _VIEWS_SHARE = 0.4, 0.3
# Views of each image that an embedding layer is solved from.
_SOLVE_VIEWS = 4
# Fewer images than this share of the layer's outputs do not show in which directions others are spread.
_FEW = 0.5


class Trainer:
    """The settings of one call of `train`, and the runs of the loop that they lead to.

    Args:
        settings: All of them.
        spec: The input, with mean and deviation.
        device: Where to train.
        progress: Show bars.
        on_step: Called after each step.
        tell: Called with each sentence that a user should read.
        relations: For a relation head: of each relation, whether its pairs are *same*.
        parent: The model whose weights are carried over; without one they are fresh or pretrained.
        untouched: What there was before anything is learnt, where that is of any use.
    """

    def __init__(
        self,
        settings: Settings,
        spec: ImageSpec,
        device: torch.device,
        progress: bool,
        on_step: Callable[[Step], None] | None,
        tell: Say,
        relations: dict[str, bool] | None = None,
        parent: WarmStart | None = None,
        baseline: SiameseNetwork | None = None,
    ) -> None:
        self.settings, self.spec, self.device = settings, spec, device
        self.progress, self.on_step, self.tell = progress, on_step, tell
        self.relations = relations or {}
        self.parent, self.baseline = parent, baseline
        self.front: FeatureCache | None = None
        self.deadline: float | None = None  # by the monotonic clock, for the last run of the loop to end
        self.few: bool | None = None  # images to solve a layer from; as for the first, so for its folds

    @property
    def baseline_is_usable(self) -> bool:
        """Whether the untouched encoder answers what is asked: it tells only the relations that it learnt."""
        return not self.relations or (self.parent is not None and self.parent.tells(self.relations))

    def solves(self, network: SiameseNetwork) -> bool:
        """Check whether the last layer of a network is fitted to the images, which takes no steps."""
        return self.settings.layer == "solved" and network.encoder.linear is not None

    def build(self) -> SiameseNetwork:
        """The network before training; whatever is fresh in it is the same for the same seed."""
        s, parent = self.settings, self.parent
        torch.manual_seed(s.seed)
        encoder = encoders.build(
            s.encoder,
            image_size=(self.spec.height, self.spec.width),
            channels=self.spec.channels,
            embedding_size=s.embedding_size,
            dropout=s.dropout,
            pretrained=s.weights is None and parent is None,
            symmetric=s.symmetric,
        )
        if s.weights is not None:
            encoders.load_weights(encoder, s.weights)
        elif parent is not None:
            encoders.carry_over(encoder, parent.network.encoder.state_dict())
        head = heads.build(
            s.head,
            distance=s.distance,
            embedding_size=encoder.embedding_size,
            relations=list(self.relations.values()),
        )
        if parent is not None and parent.tells(self.relations) and _fits(head, parent.network.head):
            head.load_state_dict(parent.network.head.state_dict())
        network = SiameseNetwork(encoder, head, normalize=s.normalize, mean=self.spec.mean, std=self.spec.std)
        return network.to(self.device)

    def prepare(
        self, material: DecodedSet, other: DecodedSet | None = None, *, note: Path | None = None
    ) -> tuple[DecodedSet, DecodedSet | None]:
        """Run all images through the stages that stay frozen, once; fewer images where time is too short.

        Nothing is done where no stage stays frozen, or where there is no room for what comes out.

        Args:
            material: What is learnt from.
            other: Images that the threshold is chosen on, where they are others.
            note: Where it is kept how many images and views there was time for, so that a run that is resumed
                goes on with as many.

        Returns:
            Both, or as much of them as there is time for.

        Raises:
            SettingError: If nothing is left that learns.
        """
        s, network = self.settings, self.build()
        encoder = network.encoder
        stages = frozen_stages(encoder, s.freeze)
        last = len(encoder.stages()) - 1
        solved = s.layer == "solved" and encoder.linear is not None
        if s.layer == "solved" and not solved and not encoders.is_pretrained(s.encoder):
            raise SettingError(
                f"layer=solved: encoder {s.encoder} has no linear layer last; give it one with"
                " --embedding-size, where it takes one, or leave it at layer=learned"
            )
        learns = Freezing(stages, s.thaw, norms=s.norms, solved=solved).learns(network)
        if s.steps != 0 and not learns and (s.thaw is not None or not solved):
            raise SettingError(
                f"freeze={s.freeze} leaves nothing to learn{'' if s.thaw is None else ' at first'} in encoder"
                f" {s.encoder}, which has no layer behind its stages that learns: freeze fewer of them, or"
                " give it one with --embedding-size"
            )
        if not stages or s.thaw is not None or (stages < last and not encoder.splits(stages)):
            return material, other
        if (s.quarter_turns or s.mirrors) and material.pairs is None:  # which the kept maps are not
            self.tell(
                "images turned and mirrored are classes of their own, so they go through the frozen stages at"
                " each step; with --set quarter_turns=false --set mirrors=false each goes through them once"
            )
            return material, other
        views = min(s.views, _SOLVE_VIEWS - 1) if stages == last and s.layer == "solved" else s.views
        front = FeatureCache(network, stages, warp=self.warp, views=views, seed=s.seed)
        before: dict[str, int] = distributed.broadcast_from_rank0(
            lambda: json.loads(note.read_text()) if note is not None and note.exists() else {}
        )
        left = None if self.deadline is None or before else self.deadline - time.monotonic()
        if left is not None:
            time_for = int(_FRONT_SHARE * left / front.seconds_an_image(material.pixels))
            before["images"] = max(64, distributed.broadcast_from_rank0(lambda: time_for))
        front.views = before.get("views", front.views)
        parts = [part for part in (material, other) if part is not None]
        images = sum(len(part.pixels) for part in parts)
        if (most := before.get("images", images)) < images:
            share = most / images
            parts = [
                subsample(p, max(32, int(share * len(p.pixels))), seed=s.seed, per_class=_EACH) for p in parts
            ]
        if not front.run(
            np.concatenate([part.pixels for part in parts]) if len(parts) > 1 else parts[0].pixels,
            [name for part in parts for name in part.hashes],
            seconds=None if left is None else _VIEWS_SHARE * left,
            progress=self.progress,
        ):
            return material, other
        self.front = front
        if most < images:
            self.tell(f"time allows for {sum(len(p.pixels) for p in parts)} of {images} images")
        if note is not None and distributed.rank() == 0:
            note.parent.mkdir(parents=True, exist_ok=True)
            write_text(note, json.dumps({"images": most, "views": front.maps.shape[1] - 1}))
        return parts[0], parts[1] if other is not None else None

    @torch.no_grad()
    def solve(self, network: SiameseNetwork, learn: DecodedSet) -> None:
        """Solve the embedding layer of a network, where it has one that is to be solved."""
        layer, encoder = network.encoder.linear, network.encoder.eval()
        if self.settings.layer != "solved" or layer is None:
            return
        feed, some = self.feed(learn), self._batch
        values, places = [], []
        for number in range(1 + min(_SOLVE_VIEWS - 1, self.settings.views)):
            for start in range(0, len(feed), some):
                images = feed.view(number, start, start + some)
                if images is None:
                    break
                values.append(encoder.values((images - network.mean) / network.std).float().cpu())
                places.append(torch.arange(start, start + len(images)))
        if self.few is None:
            self.few = int(np.sum(~learn.images.forgery)) < _FEW * layer.out_features
        place = torch.cat(places).numpy()
        genuine = ~learn.images.forgery[place]
        weight, bias = fit_lda_projection(
            torch.cat(values)[torch.from_numpy(genuine)],
            torch.from_numpy(learn.images.class_index[place][genuine]),
            size=layer.out_features,
            shrink=self.settings.shrink,
            mixed=self.few,
        )
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)

    @torch.no_grad()
    def gather(self, network: SiameseNetwork, learn: DecodedSet) -> None:
        """Give a network its cohort, some of the images that it learnt from, where it is to have one."""
        s = self.settings
        if not s.cohort or s.steps == 0:
            return
        forgery = learn.images.forgery
        genuine = learn.subset(np.flatnonzero(~forgery)) if forgery.any() else learn
        some = subsample(genuine, s.cohort, seed=s.seed)
        members = self.embed(network, some)
        network.cohort = CohortScoreNorm.of(members, torch.from_numpy(some.images.class_index)).to(
            self.device
        )

    @property
    def _batch(self) -> int:
        """Images that are embedded at once."""
        return int(np.clip((1 << 22) // (self.spec.height * self.spec.width), 1, 256))

    @property
    def warp(self) -> Augmentation:
        """The augmentation."""
        return Augmentation(**self.settings.augment.model_dump())

    def feed(self, material: DecodedSet) -> InputSource:
        """Images as a network of this run takes them."""
        if self.front is not None:
            return self.front.feed(material.hashes)
        return PixelSource(material.pixels, self.warp, device=self.device, seed=self.settings.seed)

    def tail(self, network: SiameseNetwork) -> SiameseNetwork:
        """The part of a network that learns, where its front is frozen; the whole network otherwise."""
        return network if self.front is None else self.front.tail(network)

    def whole(self, network: SiameseNetwork) -> SiameseNetwork:
        """The whole network of a part that has learnt."""
        return whole(network, mean=self.spec.mean, std=self.spec.std)

    def train(
        self,
        learn: DecodedSet,
        held_out: DecodedSet | None,
        checkpoint: Path | None,
        *,
        title: str,
        steps: int | None = None,
        judged: DecodedSet | None = None,
        folds: int = 0,
    ) -> TrainResult[SiameseNetwork]:
        """Train a network on some of the data, in its share of the time that is left.

        Args:
            learn: What it learns from.
            held_out: What it is looked at with on the way.
            checkpoint: Where the run is saved.
            title: What the bar says.
            steps: Instead of the settings'.
            judged: What the network of a fold is judged on afterwards; ``held_out`` by default.
            folds: How many runs of folds are to come after this one.
        """
        s = self.settings
        network = self.tail(self.build())
        began = time.monotonic()
        self.solve(network, learn)
        solving = time.monotonic() - began
        solved = self.solves(network)
        batches = make_batches(learn, s, list(self.relations) if s.head == "relation" else [])
        objective, extra = make_objective(network, s, batches)
        extra.to(self.device)
        feed = self.feed(learn)
        frozen = 0 if self.front is not None else frozen_stages(network.encoder, s.freeze)
        freezing = Freezing(frozen, s.thaw, norms=s.norms, solved=solved)
        if solved and s.thaw is None and not freezing.learns(network):
            if judged is None and s.steps != 0:
                self.tell(
                    "every stage is frozen and the embedding layer solved, so nothing is left to learn step"
                    " by step: steps, loss and rates play no part (--set layer=learned has it learnt)"
                )
            steps = 0
        epoch = epoch_steps = len(feed) / len(batches(0).index)
        if steps is None and s.epochs is not None:
            steps = max(1, whole_steps := round(s.epochs * epoch))
            # The last step ends the last epoch, unless a single step shows more images than asked for.
            epoch_steps = steps / s.epochs if whole_steps else epoch
        elif steps is None:
            steps = s.steps
        left: float | None = None
        if self.deadline is not None:
            later = judged or held_out or (learn if folds else None)  # which they judge part by part
            judging = 0.0 if later is None else self._seconds_to_judge(network, later)
            after = judging * (1 if judged is None else 1 + folds) + 2 * solving * folds
            share = 1 / (1 + (FOLD_SHARE if judged is None else 1) * folds)
            left = share * (self.deadline - time.monotonic() - after) - solving
            anew = checkpoint is None or not checkpoint.exists()
            if solved and steps is None and distributed.broadcast_from_rank0(lambda: anew and left < solving):
                steps = 0
                self.tell("there is time for the embedding layer to be solved, and for no training beyond")
        plan = Schedule(
            steps=steps,
            seconds=None if left is None else max(0.5, left),
            most=None if s.enough is None else max(1, round(s.enough * epoch)),
            **s.model_dump(
                include={"learning_rate", "warmup", "decay_from", "epoch_decay", "average", "evaluations"}
                | {"patience", "clip", "seed", "checkpoint_seconds"}
            ),
            per_epoch=max(1, round(epoch)),
            epoch_steps=epoch_steps,
            momentum=None if s.momentum_from is None else (s.momentum_from, s.momentum),
            bfloat16=False if steps == 0 else {"auto": None, "float32": False, "bfloat16": True}[s.precision],
        )
        doctor = TrainingMonitor(
            self.tell if title == "Training" else lambda sentence: None,
            classes=frozenset(batches.drawable.tolist())
            if isinstance(batches, ClassBatches)
            else frozenset(),
            active=lambda: getattr(extra, "active", None),
            miner=s.miner,
        )

        def watch(step: Step) -> None:
            doctor.watch(step)
            if self.on_step is not None:
                self.on_step(step)

        outcome = train_network(
            network,
            batches=batches,
            load=lambda batch, step: feed.batch(batch, step, distributed.rank_slice()),
            objective=objective,
            optimizer=make_optimizer(
                network, extra, s, skipped=0 if self.front is None else self.front.stages
            ),
            plan=plan,
            extra=extra,
            evaluate=None if steps == 0 else _evaluator(self, learn, held_out, looked_at=judged is None),
            before_step=freezing.apply if frozen or solved or s.norms == "kept" else None,
            on_step=watch,
            checkpoint_file=checkpoint,
            run=json.dumps(
                s.model_dump(mode="json")
                | {"data": learn.sha256(), "held_out": None if held_out is None else held_out.sha256()}
                | ({} if self.parent is None else {"model": self.parent.sha256})
            ),
            progress=self.progress,
            title=title,
        )
        doctor.finish(outcome.state.stopped)
        if outcome.state.total:
            self.solve(outcome.network, learn)
        self.gather(outcome.network, learn)
        return outcome

    def _seconds_to_judge(self, network: SiameseNetwork, material: DecodedSet) -> float:
        """About how long it takes to embed images held out, for each network and once more for galleries."""
        few = min(64, len(material.pixels))
        self.embed(network, material, most=few)  # the first also loads code
        began = time.monotonic()
        self.embed(network, material, most=few)
        each = (time.monotonic() - began) / few
        networks = 1 if self.baseline is None else 2
        return each * (networks * min(len(material.pixels), _CALIBRATE) + enrollment_size(material))

    def judge(self, network: SiameseNetwork, material: DecodedSet) -> ValidationScore:
        """What a network makes of images that it was not trained on."""
        some = subsample(material, _CALIBRATE, whole_classes=True)
        vectors = self.embed(network, some)
        return judge(
            network,
            some,
            vectors,
            relations=list(self.relations),
            device=self.device,
            seed=self.settings.seed,
        )

    @torch.no_grad()
    def embed(self, network: SiameseNetwork, material: DecodedSet, *, most: int | None = None) -> Tensor:
        """Embed images, or the first few of them, with PyTorch: shape ``(n, d)``."""
        network.eval()
        feed = self.feed(material)
        count = len(feed) if most is None else min(most, len(feed))
        return torch.cat(
            [
                network.embed(feed.plain(i, min(i + self._batch, count))).cpu()
                for i in range(0, count, self._batch)
            ]
        )


def _fits(head: nn.Module, other: nn.Module) -> bool:
    """Whether a head can take another one's weights."""
    mine, theirs = head.state_dict(), other.state_dict()
    return (
        type(head) is type(other)
        and mine.keys() == theirs.keys()
        and all(mine[name].shape == theirs[name].shape for name in mine)
    )


def _evaluator(
    run: Trainer, learn: DecodedSet, held_out: DecodedSet | None, *, looked_at: bool
) -> Callable[[SiameseNetwork], Scores]:
    """Pair accuracy on some of the training classes and on held-out ones, both at equal error.

    Of a run that nobody looks at, such as a fold's, whether its embeddings are finite and no more.
    """
    seen = subsample(learn, _LOOK_TRAIN, whole_classes=True)
    unseen = None if held_out is None else subsample(held_out, _LOOK_HELD_OUT, whole_classes=True)

    def error(network: SiameseNetwork, material: DecodedSet | None) -> float:
        if material is None or not looked_at:
            return math.nan
        found = compare(network, material, run.embed(network, material), run.device)
        if found.same.all() or not found.same.any():
            return math.nan
        return float(equal_error_rate(found.distance, found.same))

    def evaluate(network: SiameseNetwork) -> Scores:
        if not torch.isfinite(run.embed(network, seen, most=2)).all():
            return Scores(math.nan, math.nan, math.inf)
        eer = error(network, unseen)
        return Scores(1 - error(network, seen), 1 - eer, eer)

    return evaluate
