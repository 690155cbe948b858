"""Compare two models on the same images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import SettingError
from ..evaluation import protocols
from ..evaluation.comparison import Comparison, compare_evaluations

if TYPE_CHECKING:
    from ..data.datasets import ImageSet, PairSet
    from .model import Model


def compare(
    model_a: Model,
    model_b: Model,
    images: ImageSet | PairSet | str | os.PathLike[str],
    *,
    protocol: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Compare two models on the same images: the difference in equal error rate and in recall at 1.

    Each difference is B minus A, with a 95 % interval and a p-value from a paired bootstrap: both models are
    measured on the same resampled classes. The thresholds of the models are not used.

    Args:
        model_a: Model A.
        model_b: Model B. Encoder, input and distance may be others than those of A.
        images: Labeled images or pairs that neither model was trained on, or their path.
        protocol: Protocol of `Model.evaluate` that makes comparisons: ``classes``, ``pairs`` or ``lfw``.
        seed: Seed of the resampling. The same seed gives the same result.
        progress: Show progress bars.

    Returns:
        The differences; ``print`` shows them, and ``to_dict()`` returns JSON values.

    Raises:
        DataError: If the data do not fit the protocol.
        SettingError: If the protocol is unknown, or a model is something else.
    """
    if wrong := [one for one in (model_a, model_b) if not hasattr(one, "_facts")]:
        raise SettingError(f"compare takes two models; got {wrong[0]!r}. Load a model with `twinned.load`")
    a, b = (
        protocols.evaluate(model, images, model._facts(), protocol=protocol, seed=seed, progress=progress)
        for model in (model_a, model_b)
    )
    return compare_evaluations(a, b, seed=seed)
