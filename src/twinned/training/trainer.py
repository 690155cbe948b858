"""`Trainer`: build a network, and fit it to data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ..data.augmentation import Augmentation
from ..data.decoded import DecodedSet
from ..data.preprocessing import ImageSpec
from ..data.splits import subsample
from ..errors import SettingError
from ..nn import encoders, heads
from ..nn.lda import fit_lda_projection
from ..nn.score_norm import CohortScoreNorm
from ..nn.siamese import SiameseNetwork
from ..utils.notes import muted, note
from . import distributed
from .callbacks import Callback, TrainingMonitor
from .checkpoint import run_identity
from .config import TrainConfig
from .frozen_stages import LDA_VIEWS, cache_features, freeze_parts, frozen_stages
from .inputs import CachedSet, InputSource, input_source
from .loop import train_network
from .objective import make_batches, make_objective
from .optimizers import create_optimizer
from .parts import OwnParts
from .schedule import Budget, make_schedule
from .state import TrainResult
from .validation import ValidationScore, batch_size, embed, make_evaluation, score, score_seconds
from .warm_start import WarmStart, load_if_fits

# Fewer images than this fraction of the projection's outputs do not show the directions of other classes.
_FEW_IMAGES = 0.5


@dataclass(frozen=True, eq=False)
class Trainer:
    """Build networks as the configuration describes, and fit them to data."""

    config: TrainConfig
    spec: ImageSpec  # with mean and standard deviation
    device: torch.device
    relations: Mapping[str, bool] = field(default_factory=dict)  # of a relation head; True for *same*
    warm_start: WarmStart | None = None  # initial weights; None for fresh or pretrained ones
    baseline: SiameseNetwork | None = None  # before training; None without weights to compare with
    parts: OwnParts = field(default_factory=OwnParts)
    callbacks: Sequence[Callback] = ()
    progress: bool = True

    @property
    def baseline_is_usable(self) -> bool:
        """True if the baseline can replace a trained network: it predicts the same relations, or none."""
        warm_start = self.warm_start
        return not self.relations or (warm_start is not None and warm_start.has_relations(self.relations))

    @property
    def augmentation(self) -> Augmentation:
        """Augmentation of training images."""
        own = self.parts.augment
        return Augmentation(**self.config.augment.model_dump()) if own is None else Augmentation(function=own)

    def build(self) -> SiameseNetwork:
        """Build the network before training; the same seed gives the same weights."""
        config, warm_start = self.config, self.warm_start
        torch.manual_seed(config.seed)
        encoder = self.parts.make_encoder(
            config, pretrained=config.encoder.weights is None and warm_start is None
        )
        if config.encoder.weights is not None:
            encoders.load_weights(encoder, config.encoder.weights)
        elif warm_start is not None:
            encoders.load_matching(encoder, warm_start.network.encoder.state_dict())
        head = heads.build(
            config.comparison.head,
            distance=config.comparison.distance,
            embedding_size=encoder.embedding_size,
            relations=list(self.relations.values()),
        )
        if warm_start is not None and warm_start.has_relations(self.relations):
            load_if_fits(head, warm_start.network.head.state_dict())
        network = SiameseNetwork(
            encoder, head, normalize=config.comparison.normalize, mean=self.spec.mean, std=self.spec.std
        )
        return network.to(self.device)

    def has_lda_projection(self, network: SiameseNetwork) -> bool:
        """Return True if the projection of a network is fitted in closed form."""
        return self.config.transfer.projection == "lda" and network.encoder.linear_projection is not None

    def freeze(self, network: SiameseNetwork) -> bool:
        """Freeze the parts of a network that stay frozen; return True if others are left to train."""
        return freeze_parts(
            network,
            frozen_stages(network.encoder, self.config.transfer.freeze),
            batchnorm=self.config.transfer.freeze_batchnorm,
            projection=self.has_lda_projection(network),
        )

    def source(self, data: DecodedSet) -> InputSource:
        return input_source(data, augment=self.augmentation, device=self.device, seed=self.config.seed)

    def score(self, network: SiameseNetwork, data: DecodedSet) -> ValidationScore:
        return score(network.to(self.device), data, relations=list(self.relations), seed=self.config.seed)

    def cache_features(
        self,
        train: DecodedSet,
        validation: DecodedSet | None = None,
        *,
        budget: Budget,
        record: Path | None = None,
    ) -> tuple[DecodedSet, DecodedSet | None]:
        """Check that there is something to train, and attach cached features of the frozen stages."""
        config, network = self.config, self.build()
        has_lda = self.has_lda_projection(network)
        if config.transfer.projection == "lda" and not (
            has_lda or encoders.is_pretrained(config.encoder.name)
        ):
            raise SettingError(
                f"projection=lda needs an encoder that ends in a linear layer; {config.encoder.name} does"
                ' not. Set `embedding_size=`, or `settings={"projection": "gradient"}`.'
            )
        if config.length.steps != 0 and not has_lda and not self.freeze(network):
            raise SettingError(
                f"freeze={config.transfer.freeze} freezes every layer of encoder {config.encoder.name}."
                " Freeze fewer stages, or add a layer with `embedding_size=`."
            )
        return cache_features(
            network,
            train,
            validation,
            config,
            augment=self.augmentation,
            budget=budget,
            record=record,
            progress=self.progress,
        )

    def fit(
        self,
        train: DecodedSet,
        validation: DecodedSet | None = None,
        *,
        budget: Budget = Budget(),  # noqa: B008 - immutable
        checkpoint: Path | None = None,
        title: str = "Training",
        steps: int | None = None,
        scored: DecodedSet | None = None,
        later_fits: int = 0,
        whole: DecodedSet | None = None,
    ) -> TrainResult[SiameseNetwork]:
        """Train a new network, and return the final state and the network with the best weights.

        With ``scored``, the data that the caller scores, it is a fold or a pilot run, without evaluations,
        callbacks and notes. ``later_fits`` folds follow, for which ``budget`` keeps time. ``whole`` has the
        data of all folds: the number of its images decides on the rotation of an LDA projection.
        """
        config, is_main = self.config, scored is None
        network, source = self.build(), self.source(train)
        start, has_lda = time.monotonic(), self.has_lda_projection(network)
        if has_lda:
            self._fit_projection(network, train, whole or train)
        projection_seconds = time.monotonic() - start
        batches = make_batches(train, config, list(self.relations))
        objective, extra = make_objective(
            network, config, batches, parts=self.parts, start_stage=source.start_stage
        )
        extra.to(self.device)
        optimizer = create_optimizer(network, extra, config, self.parts.optimizer)
        if has_lda and not self.freeze(network):
            if is_main and config.length.steps != 0:
                note(
                    "nothing-to-train",
                    "every stage is frozen and the projection is fitted in closed form, so steps, loss and"
                    ' learning rate have no effect (`settings={"projection": "gradient"}` trains it)',
                )
            steps = 0
        seconds = None
        if budget.deadline is not None:
            later = 2 * projection_seconds * later_fits
            if (held_out := scored or validation or (train if later_fits else None)) is not None:
                n_networks = 1 if self.baseline is None else 2
                later += (1 if is_main else 1 + later_fits) * score_seconds(network, held_out, n_networks)
            seconds = (budget.reserve(later).remaining() or 0.0) - projection_seconds
        epoch = len(source) / len(batches(0).index)
        rate, factor = optimizer.param_groups[0]["lr"], self.parts.schedule
        schedule = make_schedule(config, steps, seconds, epoch, rate, factor=factor, device=self.device)
        if has_lda and schedule.steps is None and seconds is not None:
            is_new = checkpoint is None or not checkpoint.exists()
            if distributed.broadcast_from_rank0(lambda: is_new and seconds < projection_seconds):
                schedule = replace(schedule, steps=0)
                note("no-time-to-train", "time allows for fitting the last layer only: set more minutes")
        evaluates = schedule.steps != 0
        evaluate = make_evaluation(train, validation, finite_only=not is_main) if evaluates else None
        monitor = TrainingMonitor(
            classes=frozenset(batches.drawable.tolist()),
            active=lambda: getattr(extra, "active", None),
            miner=config.mining.miner,
        )
        rows = distributed.rank_slice()
        with nullcontext() if is_main else muted(), source.read_ahead(batches, rows) as ready:
            result = train_network(
                network,
                batches=ready,
                load=lambda batch, step: source.batch(batch, step, rows),
                objective=objective,
                optimizer=optimizer,
                schedule=schedule,
                extra=extra,
                evaluate=evaluate,
                before_step=lambda network, step, total: self.freeze(network),
                callbacks=[monitor, *(self.callbacks if is_main else ())],
                checkpoint_file=checkpoint,
                run=run_identity(config, train, validation, self.warm_start),
                progress=title if self.progress else None,
            )
        if has_lda and result.state.total:
            self._fit_projection(result.network, train, whole or train)
        if config.comparison.cohort and config.length.steps != 0 and train.pairs is None:
            self._add_cohort(result.network, train)
        return result

    @torch.no_grad()
    def _fit_projection(self, network: SiameseNetwork, train: DecodedSet, whole: DecodedSet) -> None:
        """Fit the projection to the features of some views of the images, in closed form."""
        projection = network.encoder.linear_projection
        assert projection is not None
        network.encoder.eval()
        source, size = self.source(train), batch_size(network)
        features, index = [], []
        views = min(LDA_VIEWS, 1 + self.config.transfer.n_augmentations)
        if isinstance(train, CachedSet):
            views = min(views, 1 + train.features.n_augmentations)
        for number in range(views):
            for start in range(0, len(source), size):
                images = source.view(number, start, start + size)
                pooled = network.pooled_features(images, start_stage=source.start_stage)
                features.append(pooled.float().cpu())
                index.append(torch.arange(start, start + len(images)))
        image = torch.cat(index).numpy()
        genuine = ~train.images.forgery[image]
        weight, bias = fit_lda_projection(
            torch.cat(features)[torch.from_numpy(genuine)],
            torch.from_numpy(train.images.class_index[image][genuine]),
            size=projection.out_features,
            shrinkage=self.config.transfer.shrinkage,
            random_rotation=bool(np.sum(~whole.images.forgery) < _FEW_IMAGES * projection.out_features),
        )
        projection.weight.copy_(weight)
        projection.bias.copy_(bias)

    @torch.no_grad()
    def _add_cohort(self, network: SiameseNetwork, train: DecodedSet) -> None:
        """Add score normalization with a cohort of training images."""
        forgery = train.images.forgery
        genuine = train.subset(np.flatnonzero(~forgery)) if forgery.any() else train
        some = subsample(genuine, self.config.comparison.cohort, seed=self.config.seed)
        cohort = CohortScoreNorm.of(embed(network, some), torch.from_numpy(some.images.class_index))
        network.cohort = cohort.to(self.device)
