"""Images and support sets as `Model` accepts them: one image or many, folders, mappings, data sets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from PIL import Image

from ..data.images import ImageSource, as_many, source_name
from ..data.preprocessing import Box, ImageSpec, read_faces
from ..utils.notes import note

if TYPE_CHECKING:
    from ..data.datasets import ImageSet, PairSet
    from ..data.readers import Data

One: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image"
Many: TypeAlias = Iterable[ImageSource]
Images: TypeAlias = "ImageSource | Many | ImageSet"
Support: TypeAlias = "Mapping[str, ImageSource | Sequence[ImageSource]] | ImageSet | str | os.PathLike[str]"


def as_list(images: Images) -> tuple[Iterable[ImageSource], bool]:
    """Return images as an iterable of several, and True if one image was given."""
    from ..data.readers import images_of

    many = images_of(images)
    return many, isinstance(many, list) and len(many) == 1 and many[0] is images


def examples_of(support: Support) -> dict[str, Sequence[ImageSource]]:
    """Return the example images of each class."""
    from ..data.datasets import ImageSet
    from ..data.readers import load_images

    if not isinstance(support, (ImageSet, Mapping)):
        support = load_images(support)
    if isinstance(support, ImageSet):
        images = support.genuine()  # a forgery is not an example of its class
        return {name: list(images.with_classes([name]).images) for name in images.classes}
    return {label: as_many(given) for label, given in support.items()}


class Query(NamedTuple):
    """Image to classify: its name, the box of the face that was cut out of it, and the image."""

    name: str
    box: Box | None
    image: ImageSource


def queries_of(images: Iterable[ImageSource], spec: ImageSpec) -> tuple[list[Query], ImageSpec]:
    """Return the images, or each of their faces where ``spec.faces`` is ``all``, and how to read them."""
    if spec.faces != "all":
        return [Query(source_name(image), None, image) for image in images], spec
    found = [Query(source_name(image), *face) for image in images for face in read_faces(image, spec)]
    return found, spec.with_faces("none")


def calibration_data(data: Data) -> ImageSet | PairSet:
    """Return the images or pairs for choosing a threshold; a note counts those that ``split`` leaves out."""
    from ..data.datasets import ImageSet
    from ..data.readers import as_dataset

    found = as_dataset(data)
    if isinstance(found, ImageSet):
        found, texts = found.calibration_subset()
        for text in texts:
            note("split-column", text)
    return found
