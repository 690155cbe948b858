"""Recipes: presets of `TrainConfig` by name, and the choice of one from the images.

auto         chooses glyph, face, signature or photo; photographs of people start from the model face
glyph        characters, symbols, icons: small images, few colors, many classes
face         photographs of faces, aligned where the extra faces is installed
signature    handwriting: ink is separated from the paper; genuine and forged signatures
photo        color photographs: an encoder pretrained on ImageNet, adapted to your images
photo-small  color photographs: a small encoder, trained from random weights
deck         the slide deck's first network, with the loss and optimizer of its slides 10 and 11
koch2015, facenet, chopra2005    the three papers of the slide deck
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.datasets import ImageSet, PairSet
from ..data.faces.photographs import MIN_FACE, share_with_faces
from ..data.images import ImageSource, open_image
from ..data.splits import subsample
from ..errors import DataError, ImageError, SettingError
from ..utils.notes import Note
from .config import (
    AdamW,
    Augment,
    Comparison,
    EncoderConfig,
    Input,
    Length,
    Loss,
    Mining,
    Muon,
    Sampler,
    ScheduleConfig,
    TrainConfig,
)

RECIPES: dict[str, TrainConfig] = {
    "glyph": TrainConfig(
        recipe="glyph",
        input=Input(height=35, width=35, channels=1),
        encoder=EncoderConfig(name="conv4_wide"),
        loss=Loss(name="supcon", temperature=0.03),
        sampler=Sampler(rotate_classes=True, flip_classes=True, same_group_fraction=0.5),
        augment=Augment(rotation=10, shear=0.3, scale=0.2, shift=0.06, elastic=0.04),
        optimizer=Muon(learning_rate=0.01, proxy_lr_scale=3),
        length=Length(minutes=2),
    ),
    "face": TrainConfig(
        recipe="face",
        input=Input(height=96, width=96, channels=1),
        encoder=EncoderConfig(name="conv4_wide", dropout=0.2, symmetric=True),
        comparison=Comparison(cohort=512),
        loss=Loss(name="supcon", temperature=0.03),
        sampler=Sampler(classes_per_batch=32, images_per_class=4),
        augment=Augment(
            rotation=12,
            shear=0.1,
            scale=0.2,
            shift=0.08,
            elastic=0.05,
            flip=True,
            brightness=0.15,
            contrast=0.3,
            erase=0.5,
        ),
        optimizer=Muon(learning_rate=0.02, proxy_lr_scale=1.5),
        length=Length(minutes=3),
    ),
    "signature": TrainConfig(
        recipe="signature",
        input=Input(height=64, width=128, channels=1, ink="binary"),
        encoder=EncoderConfig(name="conv4_wide"),
        loss=Loss(name="supcon", temperature=0.03),
        sampler=Sampler(classes_per_batch=16, images_per_class=6),
        augment=Augment(rotation=6, shear=0.1, scale=0.12, shift=0.04, elastic=0.02, erase=0.4),
        length=Length(minutes=3),
    ),
    "photo-small": TrainConfig(
        recipe="photo-small",
        sampler=Sampler(classes_per_batch=24, images_per_class=4),
        augment=Augment(
            rotation=10,
            scale=0.25,
            shift=0.1,
            flip=True,
            erase=0.3,
            brightness=0.2,
            contrast=0.4,
            saturation=0.5,
        ),
        length=Length(minutes=3),
    ),
    # Slides 1, 6, 10 and 11 of the slide deck. Each batch is compared in all pairs; the slides list theirs.
    "deck": TrainConfig(
        recipe="deck",
        input=Input(height=28, width=28, channels=1),
        encoder=EncoderConfig(name="deck"),
        comparison=Comparison(normalize=False, head="weighted-l1"),
        loss=Loss(name="cross-entropy"),
        sampler=Sampler(classes_per_batch=16, images_per_class=4),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0),
        schedule=ScheduleConfig(warmup=0, decay_start=1, ema_decay=0),
        length=Length(minutes=2),
    ),
    # Koch, Zemel & Salakhutdinov 2015. The paper does not publish its learning rates; rate and batch shape
    # were chosen on held-out alphabets of the background set.
    "koch2015": TrainConfig(
        recipe="koch2015",
        input=Input(height=105, width=105, channels=1),
        encoder=EncoderConfig(name="koch2015"),
        comparison=Comparison(normalize=False, head="weighted-l1"),
        loss=Loss(name="cross-entropy"),
        sampler=Sampler(classes_per_batch=16, images_per_class=4, same_group_fraction=0.5),
        augment=Augment(rotation=10, shear=0.3, scale=0.2, shift=2 / 105, probability=0.5),
        optimizer=AdamW(learning_rate=4e-4),
        schedule=ScheduleConfig(warmup=100),
        length=Length(minutes=30),
    ),
    # Schroff, Kalenichenko & Philbin 2015: triplet loss on squared distances of unit vectors, semi-hard.
    "facenet": TrainConfig(
        recipe="facenet",
        encoder=EncoderConfig(embedding_size=128),
        comparison=Comparison(distance="squared_euclidean"),
        loss=Loss(name="triplet", margin=0.2),
        mining=Mining(miner="semi-hard"),
        sampler=Sampler(classes_per_batch=24, images_per_class=6),
        augment=Augment(flip=True, shift=0.03),
        length=Length(minutes=5),
    ),
    # Chopra, Hadsell & LeCun 2005: L1 distance and an exponential loss for impostors.
    "chopra2005": TrainConfig(
        recipe="chopra2005",
        input=Input(height=56, width=46, channels=1),
        encoder=EncoderConfig(name="chopra2005"),
        comparison=Comparison(normalize=False, distance="manhattan"),
        loss=Loss(name="chopra"),
        sampler=Sampler(classes_per_batch=20, images_per_class=4),
        augment=Augment(shift=0.04, flip=True),
        optimizer=AdamW(learning_rate=1e-3),
        length=Length(minutes=3),
    ),
}

# Usual learning rate of each optimizer, for converting a recipe's rate to another optimizer.
RATES = {"adamw": 0.003, "muon": 0.01, "sgd": 0.003}

# Defaults of a pretrained encoder: its first stages are frozen, the others change little.
PRETRAINED: dict[str, Any] = {
    "encoder.embedding_size": 256,
    "encoder.dropout": 0.0,
    "transfer.projection": "lda",
    "transfer.freeze_batchnorm": True,
    "sampler.rotate_classes": False,
    "sampler.flip_classes": False,
    "sampler.classes_per_batch": 8,
    "sampler.images_per_class": 4,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 3e-4,
    "optimizer.proxy_lr_scale": 10.0,
    "optimizer.weight_decay": 0.01,
    "schedule.warmup": 20,
    "schedule.decay_start": 0.0,
    "schedule.ema_decay": 0.95,
    "schedule.evaluations": 3,
    "length.max_epochs": 8,
}
# Number of frozen stages; all of them for other pretrained encoders.
FREEZE = {"efficientnet_lite0": "6", "efficientnet_lite0_photo": "6"}

_photo = PRETRAINED | {
    "encoder.name": "efficientnet_lite0_photo",
    "encoder.symmetric": True,
    "input.height": 224,
    "input.width": 224,
    "augment.erase": 0,
    "augment.flip": False,  # mirrored writing is not the same writing
    "transfer.freeze": FREEZE["efficientnet_lite0_photo"],
    "transfer.shrinkage": 3,
    "transfer.n_augmentations": 3,
}
RECIPES["photo"] = RECIPES["photo-small"].merge(_photo).model_copy(update={"recipe": "photo"})


def get(name: str) -> TrainConfig:
    """Return a recipe by name.

    Raises:
        SettingError: If there is no such recipe; the message lists the names.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise SettingError(f"Unknown recipe {name!r}. Choose one of auto, {', '.join(RECIPES)}") from None


_SAMPLE = 48  # images
# Photographs of people: the share of images with a face, and its size relative to the longer side. In other
# photographs, such as those of clothes, faces are smaller or rarer.
PEOPLE, _FACE = 0.8, 0.25


def choose(data: ImageSet | PairSet, *, seed: int = 0, faces: bool = True) -> tuple[TrainConfig, Note]:
    """Choose a recipe, with an input size that fits the images, and return it with the reason.

    It depends on the size, color and roles of a sample of the images, and on the faces in them, where
    ``faces`` is set and the extra is installed.
    """
    width, height, in_color, two_toned = _measure(data.images, seed)
    size = f"{width:g}x{height:g} (median width x height)"
    name, changes = "photo", dict[str, Any]()
    if isinstance(data, ImageSet) and data.forgery.any():
        name, reason = "signature", "some images are marked as forgeries"
    elif in_color:
        reason = f"color images, {size}"
    elif two_toned > 0.9 and width >= 1.6 * height and min(width, height) > 48:
        name, reason = "signature", f"dark on light and wide, {size}"
    elif two_toned > 0.9:
        side = int(np.clip(round(max(width, height)), 16, 35))
        name, reason, changes = "glyph", f"two tones, {size}", {"height": side, "width": side}
    elif max(width, height) < 32:
        name, reason, changes = "glyph", f"small and gray, {size}", {"height": 32, "width": 32}
    else:
        name, reason = "face", f"gray photographs, {size}"
    if faces and name in ("photo", "face") and min(width, height) >= MIN_FACE:
        few = subsample(data, _SAMPLE, seed=seed) if isinstance(data, ImageSet) else data  # of many classes
        share = share_with_faces(few.images, part=_FACE, least=PEOPLE, seed=seed) or 0.0
        if share >= PEOPLE:
            name, changes = "face", {"faces": "largest"}
            reason = (
                f"{share:.0%} of some images show a large face, which is found and aligned"
                f' (`settings={{"faces": "none"}}` turns this off); {size}'
            )
    return get(name).merge(changes), Note("recipe-chosen", f"recipe {name}: {reason}")


def _measure(images: Sequence[ImageSource], seed: int) -> tuple[float, float, bool, float]:
    """Return median width and height, whether most images have color, and the share of extreme pixels."""
    order = np.random.default_rng(seed).permutation(len(images))[: 4 * _SAMPLE]
    sizes: list[tuple[int, int]] = []
    colorful: list[bool] = []
    tones: list[float] = []
    error: ImageError | None = None
    for place in order:
        try:
            image = open_image(images[int(place)])
        except ImageError as found:
            error = found
            continue
        sizes.append(image.size)
        values = np.asarray(image.convert("RGB").resize((64, 64))).astype(np.int16)
        colorful.append(bool((values.max(axis=2) - values.min(axis=2)).mean() > 6))
        # Dark strokes on a plain background: most pixels are near the darkest or the lightest level.
        gray = values.mean(axis=2)
        low, high = np.percentile(gray, [1, 99])
        spread = max(float(high - low), 1.0)
        tones.append(float(((gray - low < 0.25 * spread) | (high - gray < 0.25 * spread)).mean()))
        if len(sizes) == _SAMPLE:
            break
    if not sizes:
        raise DataError(f"None of {len(order)} sampled images can be read; the first error: {error}")
    width, height = np.median(np.array(sizes), axis=0)
    return float(width), float(height), float(np.mean(colorful)) > 0.5, float(np.median(tones))
