"""Schemas of requests and responses, with the command line's JSON keys."""

from __future__ import annotations

import base64
import contextlib
import inspect
import unicodedata
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic.config import JsonDict

from ..data.faces import quality
from ..evaluation import calibration
from ..gallery import results as gallery
from ..gallery.store import Record
from . import embedding_map
from .uploads import Upload


def _image(value: Any) -> Upload:
    if isinstance(value, Upload):
        return value
    with contextlib.suppress(ValueError):
        if isinstance(value, str):  # base64 is often broken into lines
            return Upload(base64.b64decode("".join(value.split()), validate=True))
    raise ValueError("expected an image as base64 (without data:...), or as a file in multipart")


def _references(value: Any) -> list[Upload]:
    if value == []:
        raise ValueError("holds no image. Send at least one reference")
    return [_image(one) for one in (value if isinstance(value, list) else [value])]


def _label(text: str) -> str:
    if not text.strip() or any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise ValueError("a label must be one line of printable text, not empty")
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
# One line of printable text that is not blank, approximated by a pattern.
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0][^\x00-\x1f\x7f-\x9f]*$"
Label = Annotated[
    str,
    Field(min_length=1, max_length=200, json_schema_extra={"pattern": _PRINTABLE}),
    AfterValidator(_label),
]
Scalar = str | bool | int | float
Key = Annotated[str, Field(min_length=1)]
# Keys that a gallery can store. The gallery itself checks them, also for the command line.
_KEYS: JsonDict = {"propertyNames": {"pattern": r'^[^"\\]+$'}}
Metadata = Annotated[dict[Key, Scalar], Field(json_schema_extra=_KEYS)]
Values = Scalar | Annotated[list[Scalar], Field(json_schema_extra={"minItems": 1})]
Threshold = Annotated[
    float | None,
    Field(default=None, allow_inf_nan=False, description="Threshold to use instead of the model's."),
]
Labels = Annotated[list[Label] | None, Field(default=None, description="Labels to consider; all by default.")]
Where = Annotated[
    Annotated[dict[Key, Values], Field(json_schema_extra=_KEYS)] | None,
    Field(default=None, description="Metadata to require of the enrolled images."),
]


_HANDLING = "the largest face of an image, or the whole image; by default as the model was trained."
Faces = Annotated[Literal["largest", "none"] | None, Field(default=None, description=f"Use {_HANDLING}")]
AllFaces = Annotated[
    Literal["largest", "all", "none"] | None,
    Field(default=None, description=f"Answer for every face with its box, or use {_HANDLING}"),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


# Requirements that span several fields.
_AN_IMAGE: JsonDict = {"required": ["image"], "properties": {"image": {"type": "string"}}}
_IMAGES: JsonDict = {"required": ["images"], "properties": {"images": {"minItems": 1}}}
_AN_ID: JsonDict = {"required": ["id"], "properties": {"id": {"type": "string"}}}
_A_LABEL: JsonDict = {"required": ["label"], "properties": {"label": {"type": "string"}}}
_METADATA: JsonDict = {"required": ["metadata"], "properties": {"metadata": {"type": "object"}}}


class _Images(_Body):
    """Body with one image or many."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_AN_IMAGE, _IMAGES]})

    image: Picture | None = None
    images: list[Picture] = Field(default=[], description="Instead of `image`, or more images.")

    @model_validator(mode="after")
    def _at_least_one(self) -> _Images:
        if not self.all():
            raise ValueError("The request has no image. Send `image` or `images`")
        return self

    def all(self) -> list[Upload]:
        """Return all images."""
        return [*([] if self.image is None else [self.image]), *self.images]


class VerifyRequest(_Body):
    """Two images, or references and an image."""

    a: References
    b: Picture
    threshold: Threshold
    faces: Faces


class ExplainRequest(_Body):
    """Two images to explain."""

    a: Picture
    b: Picture
    faces: Faces


class FacesRequest(_Body):
    """Photograph in which to find faces."""

    image: Picture
    min_face: int | None = Field(
        default=None, ge=10, description="Size of the smallest faces in pixels; 40 by default."
    )


class EmbedRequest(_Images):
    """Images to embed."""

    faces: Faces


class ClassifyRequest(_Images):
    """Images to classify, and examples of each class."""

    support: dict[Label, Annotated[list[Picture], Field(min_length=1)]] = Field(
        min_length=1, description="Example images of each class; in multipart the field `support[CLASS]`."
    )
    threshold: Threshold
    faces: AllFaces


class IdentifyRequest(_Images):
    """Images to identify."""

    fpir: float = Field(
        default=0.01, gt=0, lt=1, description="Fraction of unknown probes that may be given a label."
    )
    nearest: int = Field(
        default=0, ge=0, le=100, description="Number of nearest enrolled images to return in `hits`."
    )
    label: Labels
    where: Where
    faces: AllFaces


class SearchRequest(_Body):
    """Query of a search: an image, or the id of an enrolled image."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_AN_IMAGE, _AN_ID]})

    image: Picture | None = None
    id: str | None = Field(
        default=None, max_length=100, description="Id of an enrolled image to use as the query."
    )
    k: int = Field(default=5, ge=1, le=200)
    exact: bool = False
    label: Labels
    where: Where
    faces: Faces


class AddRequest(_Images):
    """Images to enroll under one label."""

    leaves_out_unreadable: ClassVar[bool] = True

    label: Label | None = None
    metadata: Metadata = {}
    faces: Faces


class UpdateRequest(_Body):
    """Changes of one enrolled image."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_A_LABEL, _METADATA]})

    label: Label | None = None
    metadata: Metadata | None = None


class RenameRequest(_Body):
    """Old and new name of a label."""

    label: Label
    new: Label


class UndoRequest(_Body):
    """Removal to undo."""

    undo: str = Field(max_length=100)


def _answer(name: str, summary: str, /, **fields: Any) -> type[BaseModel]:
    """Make the schema of a response from the types of its fields."""
    required: dict[str, Any] = {field: (hint, ...) for field, hint in fields.items()}
    return create_model(name, __doc__=summary, **required)


def _schema_of(result: type, *, name: str = "", without: str = "", **types: Any) -> type[BaseModel]:
    """Derive the schema of a response from the fields, types and defaults of a named tuple or dataclass.

    ``without`` names a field that the response lacks; ``types`` are further fields, or have another JSON.
    """
    hints = {field: hint for field, hint in get_type_hints(result).items() if field != without}
    defaults = getattr(result, "_field_defaults", vars(result))  # those of a dataclass are attributes
    fields: dict[str, Any] = {
        field: (hint, defaults.get(field, ...)) for field, hint in (hints | types).items()
    }
    summary = (inspect.getdoc(result) or "").partition("\n")[0]
    return create_model(name or result.__name__, __doc__=summary, **fields)


def list_of(schema: type[BaseModel]) -> Any:
    """Return the schema of a list."""
    return list.__class_getitem__(schema)


Nearest = _answer(
    "Nearest",
    "Closest label, within the threshold or not.",
    label=str,
    probability=float,
    distance=float | None,
)
Verdict = _schema_of(calibration.Verdict, verdict=str)
Prediction = _schema_of(calibration.Prediction, nearest=Nearest, threshold=float | None)
Hit = _schema_of(gallery.Hit, without="metadata")
Identification = _schema_of(
    gallery.Identification, distance=float | None, nearest=Nearest | None, hits=list_of(Hit)
)
Item = _schema_of(Record, name="Item")
Items = _schema_of(gallery.Page, name="Items", items=list_of(Item))
Quality = _schema_of(quality.Quality)
FoundFace = _answer(
    "FoundFace",
    "Face: left, top, right and bottom in pixels of the upright image, and the aligned face, base64 PNG.",
    box=tuple[int, int, int, int],
    score=float,
    quality=Quality,
    crop=str,
)
FoundFaces = _answer(
    "FoundFaces",
    "Faces of a photograph, the largest first.",
    image=str,
    width=int,
    height=int,
    faces=list_of(FoundFace),
)
ExplainedImage = _answer(
    "ExplainedImage",
    "Image after preprocessing, as base64 PNG, and the contribution of each region: rows of columns.",
    png=str,
    width=int,
    height=int,
    share=list[list[float]],
)
Match = _answer(
    "Match",
    "Matching regions: row and column in either image.",
    left=tuple[int, int],
    right=tuple[int, int],
    match=float,
)
Explanation = _answer(
    "Explanation",
    "Explanation of a comparison; `text` describes the strength of its evidence.",
    method=str,
    distance=float,
    threshold=float | None,
    weak=bool,
    text=str,
    images=list_of(ExplainedImage),
    links=list_of(Match),
)
Vector = _answer("Vector", "Embedding of one image.", image=str, vector=list[float])
Labelled = _answer("Labelled", "Number of images of each label.", count=int, labels=dict[str, int])
Made = _answer(
    "Made",
    "Gallery of the service; a temporary one is deleted when the service stops.",
    count=int,
    temporary=bool,
)
Added = _schema_of(gallery.Added, unreadable=list[str], count=int)
Updated = _answer("Updated", "Number of images that were changed.", updated=int)
Removed = _answer(
    "Removed",
    "Number of removed images; the key in `undo` restores them for ten minutes.",
    removed=int,
    count=int,
    undo=str,
)
Restored = _answer("Restored", "Number of restored images.", restored=int, count=int)
GalleryMap = _schema_of(embedding_map.GalleryMap)
ProblemDetails = _answer("ProblemDetails", "Error (RFC 9457).", type=str, title=str, status=int, detail=str)
Health = _answer("Health", "State of the service.", status=str)
ModelFacts = _answer(
    "ModelFacts",
    "Model, its metrics, gallery, and limits of the service.",
    name=str,
    encoder=str,
    image=dict[str, Any],
    embedding_size=int,
    distance=str,
    head=bool,
    threshold=float | None,
    calibration=dict[str, Any] | None,
    classes=int,
    data=dict[str, Any],
    held_out=dict[str, Any],
    recipe=dict[str, Any],
    notes=list[str],
    licence=str | None,
    card=str,
    advice=list[str],
    gallery=dict[str, Any] | None,
    read_only=bool,
    limits=dict[str, Any],
)
