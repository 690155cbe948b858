"""Advice: what the figures of a model mean in use, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import many

if TYPE_CHECKING:
    from .calibration import FittedThreshold
    from .verification import VerificationResult

_CALIBRATE = "twinned calibrate MODEL DATA -o NEW"
_FEW_CLASSES = 20
_UNKNOWN = 0.3  # false negative identification rate
_UNFIT = 2.0  # ratio of a measured rate to the expected one above which the threshold should be fitted again


def judgement(
    eer: float, interval: tuple[float, float] | None = None, *, can_train_longer: bool = True
) -> str:
    """Return what an equal error rate means in use, and advice where it is high."""
    if eer < 0.001 and interval and interval[1] > 0.01:
        return (
            f"{'Good' if interval[1] <= 0.03 else 'Usable'}: no wrong answers on few images, so up to 1 of"
            f" {round(1 / interval[1]):,} may be wrong. Measure the model on more images"
        )
    if eer < 0.001:
        return "Very good: fewer than 1 of 1,000 answers are wrong"
    wrong = f"about 1 of {round(1 / eer):,} answers is wrong"
    more = f"more images{' or for longer' * can_train_longer}"
    if eer <= 0.03:
        return f"Good: {wrong}"
    if eer <= 0.1:
        return f"Usable: {wrong}. Training on {more} would help"
    wrong = wrong if eer < 0.4 else "the answers are nearly guesses"
    return f"Weak: {wrong}. Train on {more}, or run twinned check"


def on_model(fit: FittedThreshold | None, *, unseen: bool | None) -> list[str]:
    """Return sentences on a model by the figures of its threshold, the most important first.

    ``unseen`` is True if the threshold was chosen on classes that were not used in training, None if unknown.
    """
    if fit is None:
        return [
            "This model has no threshold: it searches, but does not decide what is the same",
            f"Choose one from your images, with a folder for each class: {_CALIBRATE}",
        ]
    found = [judgement(fit.eer, fit.eer_ci)]
    if unseen is False:
        text = "The threshold was chosen on classes used in training, so the figures are too optimistic"
        found.append(f"{text}. Fit it to other images: {_CALIBRATE}")
    elif not fit.supported or fit.n_classes < _FEW_CLASSES:
        text = f"The threshold rests on only {many(fit.n_classes, 'class')}"
        found.append(f"{text}. Fit it to more images: {_CALIBRATE}")
    text = "Measure the model on your own images, since the figures are valid for images like those measured"
    return [*found, f"{text}: twinned evaluate MODEL IMAGES --report report.html"]


def on_evaluation(
    v: VerificationResult, fit: FittedThreshold, *, seen: int, open_set: Mapping[str, float] | None = None
) -> list[str]:
    """Return sentences on an evaluation at a stored threshold, the most important first.

    ``seen`` is the number of images used in training. ``open_set`` has the figures ``fnir`` and ``target``.
    """
    found = [] if v.eer is None else [judgement(v.eer, v.eer_ci)]
    if seen:
        found.append(f"Evaluate on other images: {seen:,} of these were used in training")
    if v.far is not None and v.frr is not None and v.eer is not None:
        wanted = max(v.eer if fit.far is None else fit.far, 30 / max(v.n_impostor, 1))
        strict = fit.far is None and v.frr > _UNFIT * max(v.eer, 30 / max(v.n_genuine, 1))
        if (lenient := v.far > _UNFIT * wanted) or strict:
            text = f"The stored threshold is too {'lenient' if lenient else 'strict'} for these images"
            found.append(f"{text}. Fit it to such images: {_CALIBRATE}")
    if open_set is not None and open_set["fnir"] > _UNKNOWN:
        found.append(
            f"In a gallery, {open_set['fnir']:.0%} of the images of enrolled classes are unknown if at most"
            f" {open_set['target']:g} of the others may get a label. Allow more of these (setting fpir), or"
            " enroll more images of each class"
        )
    if v.n_classes < _FEW_CLASSES:
        found.append(f"Evaluate on more classes: with {v.n_classes:,}, the figures are uncertain")
    if v.far or v.frr:
        found.append(
            "Look at the most confident errors below: wrong labels and bad images are common causes. To find"
            " such images: twinned check DATA"
        )
    return found
