"""The training doctor: notices what goes wrong, says so once, in one line with the remedy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .state import Step

_LOOK_EVERY = 10  # steps
# Embeddings whose spread is below this share of their length are taken to have collapsed to one point.
_COLLAPSED = 0.02
_IDLE_LOOKS = 5  # looks in a row at which nothing in the batch cost anything


class TrainingMonitor:
    """Watches a run of the loop; `watch` is its callback.

    Args:
        tell: Called with each finding, once.
        classes: The labels that batches may draw; none where the data are pairs.
        active: The fraction of the last batch's pairs or triplets that cost anything, or None where the loss
            does not say.
        miner: Which of them are chosen; None for all.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        *,
        classes: frozenset[int],
        active: Callable[[], Tensor | None],
        miner: str | None = None,
    ) -> None:
        self.tell, self.classes, self.active, self.miner = tell, classes, active, miner
        self._said: set[str] = set()
        self._undrawn = set(classes)
        self._idle = 0
        self._whole = False  # a resumed run is not seen from its start

    def watch(self, step: Step) -> None:
        """Look at a step; most are passed over, to cost nothing."""
        if self._undrawn:
            self._undrawn.difference_update(step.batch.labels.tolist())
        self._whole = self._whole or step.step == 1
        if step.step % _LOOK_EVERY:
            return
        if step.embeddings is not None and len(step.embeddings) > 1:
            self._look_at_embeddings(step.embeddings.detach(), step.step)
        active = self.active()
        self._idle = self._idle + 1 if active is not None and float(active) == 0 else 0
        if self._idle >= _IDLE_LOOKS:
            harder = "" if self.miner == "batch-hard" else ", or mine the hardest (--set miner=batch-hard)"
            self._say(
                "idle",
                "no pair or triplet has cost anything since step"
                f" {step.step - _LOOK_EVERY * (self._idle - 1)}: nothing more is learnt. Use a larger"
                f" --margin{harder}",
            )

    def finish(self, stopped: str | None) -> None:
        """Say what only the whole run shows; ``stopped`` is why it ended early, where it did."""
        if stopped is not None:
            early = f"training stopped early: {stopped}; the best weights so far are kept"
            if "not finite" in stopped:
                self._say("not finite", f"{early}. Use a smaller --learning-rate")
                return
            self.tell(early)
        if self._whole and self._undrawn:
            self._say(
                "undrawn",
                f"{len(self._undrawn)} of {len(self.classes)} classes (turns counted) were never drawn:"
                " train for more steps, or with more classes a batch (--set classes_per_batch=N)",
            )

    def _look_at_embeddings(self, embeddings: Tensor, step: int) -> None:
        spread = embeddings.std(dim=0).norm()
        length = embeddings.norm(dim=1).mean()
        if not torch.isfinite(length) or spread > _COLLAPSED * length:
            return
        self._say(
            "collapsed",
            f"the embeddings have collapsed to one point (step {step}): every two images look the same. Use a"
            " smaller --learning-rate, or the loss supcon, or with triplets the miner semi-hard",
        )

    def _say(self, kind: str, sentence: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self.tell(f"doctor: {sentence}")
