"""What requests hold and what answers give, under the command line's JSON keys."""

from __future__ import annotations

import base64
import binascii
import unicodedata
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict

from .uploads import Upload


def _image(value: Any, info: ValidationInfo) -> Upload:
    if isinstance(value, Upload):
        return value
    if not isinstance(value, str):
        raise ValueError("expected an image: a file in multipart, or base64 in JSON")
    try:
        data = base64.b64decode("".join(value.split()), validate=True)  # base64 is often broken into lines
    except (binascii.Error, ValueError):
        raise ValueError(
            "expected an image as base64 (without data:...), or as a file in multipart"
        ) from None
    return Upload.called(info.field_name or "image", data)


def _references(value: Any, info: ValidationInfo) -> list[Upload]:
    if not isinstance(value, list):
        return [_image(value, info)]
    if not value:
        raise ValueError("holds no image; send one reference or more")
    images = [_image(one, info) for one in value]
    for place, image in enumerate(images):
        if image.name == info.field_name and len(images) > 1:
            image.name = f"{image.name}[{place}]"
    return images


def _label(text: str) -> str:
    if not text.strip():
        raise ValueError("a label is text that is not empty")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise ValueError("a label is one line of printable text")
    return text.strip()


_PICTURE: JsonDict = {"type": "string", "format": "byte", "description": "An image file, as base64."}
Picture = Annotated[Upload, PlainValidator(_image), WithJsonSchema(_PICTURE)]
References = Annotated[
    list[Upload],
    PlainValidator(_references),
    WithJsonSchema(
        {
            "anyOf": [_PICTURE, {"type": "array", "minItems": 1, "items": _PICTURE}],
            "description": "An image, or several references; in multipart the field comes several times.",
        }
    ),
]
# One line of printable text that is not blank, as far as a pattern can say it.
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0][^\x00-\x1f\x7f-\x9f]*$"
Label = Annotated[
    str,
    Field(min_length=1, max_length=200, json_schema_extra={"pattern": _PRINTABLE}),
    AfterValidator(_label),
]
Scalar = str | bool | int | float
Key = Annotated[str, Field(min_length=1)]
# What a gallery can keep as a key; checked there, where the command line meets it as well.
_KEYS: JsonDict = {"propertyNames": {"pattern": r'^[^"\\]+$'}}
Metadata = Annotated[dict[Key, Scalar], Field(json_schema_extra=_KEYS)]
Values = Scalar | Annotated[list[Scalar], Field(json_schema_extra={"minItems": 1})]
Threshold = Annotated[
    float | None, Field(default=None, allow_inf_nan=False, description="Instead of the model's own.")
]
Labels = Annotated[list[Label] | None, Field(default=None, description="Only these labels.")]
Where = Annotated[
    Annotated[dict[Key, Values], Field(json_schema_extra=_KEYS)] | None,
    Field(default=None, description="Only images with this metadata."),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


# What fields alone cannot say.
_AN_IMAGE: JsonDict = {"required": ["image"], "properties": {"image": {"type": "string"}}}
_IMAGES: JsonDict = {"required": ["images"], "properties": {"images": {"minItems": 1}}}
_AN_ID: JsonDict = {"required": ["id"], "properties": {"id": {"type": "string"}}}
_A_LABEL: JsonDict = {"required": ["label"], "properties": {"label": {"type": "string"}}}
_METADATA: JsonDict = {"required": ["metadata"], "properties": {"metadata": {"type": "object"}}}


class _Images(_Body):
    """One image or many."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_AN_IMAGE, _IMAGES]})

    image: Picture | None = None
    images: list[Picture] = Field(default=[], description="Instead of `image`, or further ones.")

    @model_validator(mode="after")
    def _at_least_one(self) -> _Images:
        if not self.all():
            raise ValueError("no image came; send `image`, or `images`")
        for place, image in enumerate(self.images):
            if image.name == "images":
                image.name = f"images[{place}]"
        return self

    def all(self) -> list[Upload]:
        """The images."""
        return [*([] if self.image is None else [self.image]), *self.images]


class VerifyRequest(_Body):
    """Two images, or references and an image."""

    a: References
    b: Picture
    threshold: Threshold


class EmbedRequest(_Images):
    """Images to embed."""


class ClassifyRequest(_Images):
    """Images, and for each class its examples."""

    support: dict[Label, Annotated[list[Picture], Field(min_length=1)]] = Field(
        min_length=1,
        description="For each class its example images; in multipart the field `support[CLASS]`.",
    )
    threshold: Threshold


class IdentifyRequest(_Images):
    """Images to name."""

    fpir: float = Field(default=0.01, gt=0, lt=1, description="Share of strangers that may be given a name.")
    nearest: int = Field(
        default=0, ge=0, le=100, description="So many nearest enrolled images are sent along."
    )
    label: Labels
    where: Where


class SearchRequest(_Body):
    """An image, or the id of one that is enrolled."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_AN_IMAGE, _AN_ID]})

    image: Picture | None = None
    id: str | None = Field(default=None, max_length=100, description="Search on from an enrolled image.")
    k: int = Field(default=5, ge=1, le=200)
    exact: bool = False
    label: Labels
    where: Where


class AddRequest(_Images):
    """Images to enrol, of one label."""

    leaves_out_unreadable: ClassVar[bool] = True

    label: Label | None = None
    metadata: Metadata = {}


class UpdateRequest(_Body):
    """What to change."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_A_LABEL, _METADATA]})

    label: Label | None = None
    metadata: Metadata | None = None


class RenameRequest(_Body):
    """A label's old and new name."""

    label: Label
    new: Label


class UndoRequest(_Body):
    """Which removal to take back."""

    undo: str = Field(max_length=100)


class Verdict(BaseModel):
    """Whether two images show the same thing; a relation only where the model tells relations apart."""

    same: bool
    probability: float
    distance: float
    threshold: float
    relation: str | None = None
    relation_probability: float | None = None


class Vector(BaseModel):
    """An embedding."""

    image: str
    vector: list[float]


class Prediction(BaseModel):
    """Which class an image shows; null is unknown."""

    image: str
    label: str | None
    probability: float
    distance: float


class Hit(BaseModel):
    """An enrolled image, and how far it is."""

    id: str
    image: str | None
    label: str | None
    distance: float


class Identification(BaseModel):
    """Who or what an image shows; null is unknown."""

    image: str
    label: str | None
    probability: float
    distance: float | None
    threshold: float
    nearest: list[Hit]


class Item(BaseModel):
    """An enrolled image."""

    id: str
    label: str | None
    image: str | None
    metadata: dict[str, Scalar]


class Items(BaseModel):
    """Some enrolled images; the next page begins at `after`."""

    count: int
    items: list[Item]
    after: str | None


class Labelled(BaseModel):
    """How many images each label has."""

    count: int
    labels: dict[str, int]


class Added(BaseModel):
    """What became of images that were sent; what is stored is on disk."""

    stored: int
    skipped: int
    unreadable: list[str]
    count: int
    ids: list[str | None]


class Updated(BaseModel):
    """How many images were changed."""

    updated: int


class Removed(BaseModel):
    """How many images were removed; `undo` brings them back for some minutes."""

    removed: int
    count: int
    undo: str


class Restored(BaseModel):
    """How many images were brought back."""

    restored: int
    count: int


class GalleryMap(BaseModel):
    """The gallery in two dimensions; `label` counts into `labels`, -1 is none; not `ready` while made."""

    method: str
    ready: bool
    count: int
    labels: list[str]
    ids: list[str]
    label: list[int]
    x: list[float]
    y: list[float]


class ProblemDetails(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class Health(BaseModel):
    """That the service answers."""

    status: str


class ModelFacts(BaseModel):
    """The model, its figures, the gallery and the service's limits."""

    name: str
    encoder: str
    image: dict[str, Any]
    embedding_size: int
    distance: str
    head: bool
    threshold: float
    calibration: dict[str, Any]
    classes: int
    data: dict[str, Any]
    held_out: dict[str, Any]
    recipe: dict[str, Any]
    notes: list[str]
    licence: str | None
    card: str
    gallery: dict[str, Any] | None
    read_only: bool
    limits: dict[str, Any]
