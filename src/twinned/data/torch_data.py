"""PyTorch's view of a data set: a ``Dataset`` of its images, and a sampler of batches by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch.utils.data import BatchSampler, Dataset

from ..errors import DataError, SettingError
from .arrays import as_array
from .datasets import ImageSet
from .images import open_image
from .samplers import ClassBatches


class ImageDataset(Dataset[tuple[Any, int]]):
    """PyTorch ``Dataset`` of labeled images, decoded when an item is read.

    An item is the image, upright in mode L or RGB, after the transform, and the index of its class in
    ``classes``. It works with any number of workers of a ``DataLoader``.

    Args:
        images: Labeled images.
        transform: Function of a Pillow image, such as a torchvision transform. Worker processes that are
            spawned need one that can be pickled, so no lambda. None for the Pillow image itself.

    Attributes:
        classes: Distinct labels, sorted.
        targets: Index of the class of each image, shape ``(n,)``.
    """

    def __init__(self, images: ImageSet, transform: Callable[[Any], Any] | None = None) -> None:
        self.images, self.transform = images, transform
        self.classes, self.targets = images.classes, images.class_index

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image and the index of its class.

        Raises:
            ImageError: If the image cannot be read; names the file and the reason.
        """
        image = open_image(self.images.images[index])
        return image if self.transform is None else self.transform(image), int(self.targets[index])

    def __repr__(self) -> str:
        return f"ImageDataset({len(self)} images, {len(self.classes)} classes, {self.images.origin})"


class ClassSampler(BatchSampler):
    """Sampler of P classes with K images each, as the ``batch_sampler`` of a ``DataLoader``.

    Each class is drawn at most once per epoch; an incomplete last batch is dropped. These are the batches of
    `ClassBatches`, which `twinned.train` uses. Classes with a single image are left out.

    Args:
        labels: Class of each image, shape ``(n,)``.
        classes: P, the number of classes per batch.
        images: K, the number of images per class. Images of smaller classes are repeated.
        seed: Random seed. A batch depends only on the seed, the epoch and its position.

    Raises:
        DataError: If fewer than ``classes`` classes have two images.
        SettingError: If ``classes`` or ``images`` is below 2.

    Example:
        >>> sampler = ClassSampler(["a", "a", "a", "b", "b", "c", "c"], classes=2, images=2)
        >>> len(sampler), [len(batch) for batch in sampler]
        (1, [4])
    """

    def __init__(self, labels: ArrayLike, classes: int, images: int, seed: int = 0) -> None:
        if min(classes, images) < 2:
            raise SettingError(f"a batch needs at least 2 classes of 2 images; got {classes} of {images}")
        array = as_array(labels)
        _, place, count = np.unique(
            np.asarray(labels) if array is None else array, return_inverse=True, return_counts=True
        )
        if (usable := int((count > 1).sum())) < classes:
            raise DataError(f"a batch of {classes} classes needs as many with two images; got {usable}")
        self._index = np.flatnonzero((count > 1)[place])
        self._batches = ClassBatches(place[self._index], classes=classes, images=images, seed=seed)
        self.epoch = 0
        super().__init__(range(len(place)), classes * images, drop_last=True)

    def __len__(self) -> int:
        return self._batches.per_epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, of the next iteration; each iteration continues with the next one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * len(self)
        self.epoch += 1
        for step in range(first, first + len(self)):
            yield self._index[self._batches(step).index].tolist()
