"""Images and support sets as `Model` accepts them: one image or many, folders, mappings, data sets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ..data.datasets import ImageSet
from ..data.images import ImageSource, as_many
from ..data.readers import find_images, load_images
from .session import Floats

One: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image"
Many: TypeAlias = Iterable[ImageSource]
Images: TypeAlias = "ImageSource | Many"
Support: TypeAlias = "Mapping[str, ImageSource | Sequence[ImageSource]] | ImageSet | str | os.PathLike[str]"


def as_list(images: Images) -> tuple[Iterable[ImageSource], bool]:
    """Return images as an iterable of several, and True if one image was given."""
    if isinstance(images, (str, os.PathLike)) and os.path.isdir(images):
        return find_images(images), False
    many = as_many(images)
    return many, isinstance(many, list) and len(many) == 1 and many[0] is images


def as_sources(images: Images) -> Any:
    """Return one image unchanged, and several as a list."""
    many, one = as_list(images)
    return images if one else list(many)


def examples_of(support: Support) -> dict[str, Sequence[ImageSource]]:
    """Return the example images of each class."""
    if isinstance(support, (str, os.PathLike)):
        support = load_images(support)
    if isinstance(support, ImageSet):
        images = support.genuine()  # a forgery is not an example of its class
        return {name: list(images.with_classes([name]).images) for name in images.classes}
    return {label: as_many(given) for label, given in support.items()}


def distinct(references: Floats) -> Floats:
    """Return references without copies."""
    return references[np.sort(np.unique(references.round(4), axis=0, return_index=True)[1])]


def image_key(image: ImageSource) -> Any:
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else id(image)
