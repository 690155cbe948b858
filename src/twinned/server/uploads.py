"""Request bodies: receive within limits, parse multipart or JSON, check image headers before decoding."""

from __future__ import annotations

import asyncio
import io
import json
import reprlib
import unicodedata
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, TypeVar

from fastapi import Request
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from ..errors import ImageError
from .limits import Limits
from .problems import Problem, overloaded

Body = TypeVar("Body", bound=BaseModel)

# Formats that browsers and phones send. Fewer decoders mean a smaller attack surface.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
_MAX_PARTS = 1000
_NAME_CHARACTERS = 100


class Upload(bytes):
    """Image file from a request."""

    name: str = ""  # in errors and responses; without a file name, its place in the request
    refused: ImageError | None = None  # error found in its header

    @classmethod
    def called(cls, name: str, data: bytes) -> Upload:
        """Make an upload, named by the last part of its file name without unprintable characters."""
        upload = cls(data)
        last = name.replace("\\", "/").rpartition("/")[2]
        printable = "".join(c for c in last if unicodedata.category(c)[0] != "C")
        upload.name = printable[:_NAME_CHARACTERS].strip()
        return upload


class Intake:
    """Receiver of bodies, with limits for each body and for all together; at least one body fits."""

    def __init__(self, limits: Limits, *, share: float = 1.0) -> None:
        self._limits = limits
        self._most_held = max(int(share * limits.bodies_bytes), min(limits.body_bytes, limits.bodies_bytes))
        self._held = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """Receive a request's body; it counts against the limit until the response is made."""
        most, seconds = self._limits.body_bytes, self._limits.read_seconds
        for encoding in request.headers.getlist("content-encoding"):
            if encoding.strip().lower() not in ("", "identity"):
                raise Problem(
                    415,
                    f"The Content-Encoding {encoding[:100]!r} is not supported. Send the body uncompressed",
                    {"Accept-Encoding": "identity"},
                )
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > most:
            raise _too_large(most)
        chunks: list[bytes] = []
        size = 0
        try:
            try:
                async with asyncio.timeout(seconds):
                    async for chunk in request.stream():
                        size += len(chunk)
                        self._held += len(chunk)
                        chunks.append(chunk)
                        if size > most:
                            raise _too_large(most)
                        if self._held > self._most_held:
                            raise overloaded("The service is receiving too many uploads")
            except TimeoutError:
                raise Problem(
                    408,
                    f"The request did not arrive within {seconds:g} seconds. Send it again, with smaller "
                    "images if the connection is slow",
                ) from None
            except ClientDisconnect:
                raise Problem(400, "The connection ended before the request was complete") from None
            yield b"".join(chunks)
        finally:
            self._held -= size


def _too_large(most: int) -> Problem:
    return Problem(413, f"The request has more than {most:,} bytes. Send fewer or smaller images")


def check_query(request: Request) -> None:
    """Check that the route has each query parameter, and that none is repeated."""
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        shown = name[:100] if name.isprintable() else repr(name[:100])
        if name not in known:
            expected = f"Supported: {', '.join(known)}" if known else "This address supports none"
            raise Problem(422, f"{shown}: unknown query parameter. {expected}")
        if len(request.query_params.getlist(name)) > 1:
            raise Problem(422, f"{shown}: was given twice. Give it once")


def read(kind: type[Body], content_type: str, body: bytes, limits: Limits) -> Body:
    """Parse and validate a request; an invalid image is an error unless the schema skips such images."""
    media, options = parse_options_header(content_type)
    if media == b"multipart/form-data":
        values = _from_parts(kind, _parts(body, options.get(b"boundary", b"")))
    elif media == b"application/json":
        values = _from_json(body)
    else:
        raise Problem(
            415, f"The content type {content_type[:100]!r} is not supported. Send multipart/form-data or JSON"
        )
    try:
        found = kind.model_validate(values)
    except ValidationError as error:
        raise Problem(422, sentence(error.errors(include_url=False), kind.model_fields)) from None
    images = images_of(found)
    if len(images) > limits.images:
        raise Problem(413, f"The request has {len(images)} images. Send at most {limits.images}")
    for upload in images:
        try:
            check(upload, limits)
        except ImageError as error:
            if not getattr(kind, "leaves_out_unreadable", False):
                raise
            upload.refused = error
    return found


def check(upload: Upload, limits: Limits) -> None:
    """Check an image's format and size in its header, before memory for its pixels is allocated."""
    if not upload:
        raise ImageError(upload.name, "is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(upload), formats=FORMATS) as image:
            width, height = image.size
    except UnidentifiedImageError:
        raise ImageError(upload.name, "is not a supported image, or is damaged") from None
    except Image.DecompressionBombError:
        raise ImageError(upload.name, f"has more pixels than the limit of {limits.pixels:,}") from None
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        raise ImageError(upload.name, f"is damaged or truncated ({error})") from None
    if width * height > limits.pixels:
        raise ImageError(upload.name, f"is {width}x{height}; the limit is {limits.pixels:,} pixels")


def sentence(errors: Sequence[Any], fields: Iterable[str] = ()) -> str:
    """Describe the first of pydantic's errors; an unknown field explains most, so it takes precedence."""
    error = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    steps = error["loc"]
    if len(steps) > 1 and steps[0] in ("body", "query", "path"):  # where FastAPI found the field
        steps = steps[1:]
    where = ".".join(str(step) for step in steps if step != "[key]")
    given, names = reprlib.repr(error["input"]), ", ".join(fields)
    text = {
        "missing": "is missing. Send it with the request",
        "extra_forbidden": f"unknown field. Supported: {names}",
        "model_type": f"{given} is not an object with the fields {names}",
        "string_too_short": "is empty. Send text",
    }.get(error["type"], error["msg"].removeprefix("Value error, "))
    if text.startswith("Input should be "):
        text = f"{given} is not {text.removeprefix('Input should be ').partition(', ')[0]}"
    return f"{where[:200]}: {text}" if where else text


def _from_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(422, f"The body is not valid JSON ({error})") from None


def _from_parts(kind: type[BaseModel], parts: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Convert multipart parts to the values of a JSON body; ``support[anna]`` is an item of ``support``."""
    lists, objects, files = shapes(kind)
    values: dict[str, Any] = {}
    for field, value in parts:
        name, bracket, key = field.partition("[")
        if isinstance(value, Upload) and name in kind.model_fields and name not in files:
            raise Problem(422, f"{field[:100]}: is a file. Send text, or use a field for images")
        if bracket and name in objects and key.endswith("]"):
            inside = values.setdefault(name, {})
            if not isinstance(inside, dict):
                raise Problem(422, f"{name}: was given both as JSON and as separate fields. Use one of them")
            inside.setdefault(key[:-1], []).append(value)
        elif field in lists:
            values.setdefault(field, []).append(value)
        elif field in values:
            raise Problem(422, f"{field[:100]}: was given twice. Give it once")
        elif field in objects and isinstance(value, str):
            values[field] = _from_json(value.encode())
        else:
            values[field] = value
    return values


@cache
def shapes(kind: type[BaseModel]) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the fields that are lists, those that are objects, and those that hold images."""
    fields = kind.model_json_schema()["properties"]

    def of_type(wanted: str) -> frozenset[str]:
        return frozenset(
            name
            for name, field in fields.items()
            if any(choice.get("type") == wanted for choice in field.get("anyOf", [field]))
        )

    images = frozenset(name for name, field in fields.items() if "'byte'" in str(field))
    return of_type("array"), of_type("object"), images


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[str, Any]]:
    """Yield each part's field with its text, or its file as an `Upload`."""
    if not boundary:
        raise Problem(422, "The multipart body has no boundary. Name it in the header Content-Type")
    parts: list[tuple[dict[bytes, bytes], list[bytes]]] = []
    name, value = bytearray(), bytearray()  # of the header that is being read

    def begin() -> None:
        if len(parts) == _MAX_PARTS:
            raise Problem(413, f"The request has more than {_MAX_PARTS:,} parts. Send fewer")
        parts.append(({}, []))

    def end_header() -> None:
        parts[-1][0][bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_part_data": lambda data, start, end: parts[-1][1].append(data[start:end]),
                "on_header_field": lambda data, start, end: name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: value.extend(data[start:end]),
                "on_header_end": end_header,
            },
        )
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError) as error:
        raise Problem(422, f"The multipart body is damaged ({error})") from None
    for header, content in parts:
        _, options = parse_options_header(header.get(b"content-disposition", b""))
        field = options.get(b"name", b"").decode("utf-8", "replace")
        data = b"".join(content)
        if b"filename" in options:
            yield field, Upload.called(options[b"filename"].decode("utf-8", "replace"), data)
        elif header.get(b"content-type", b"").startswith((b"image/", b"application/octet-stream")):
            yield field, Upload(data)
        else:
            try:
                yield field, data.decode()
            except UnicodeDecodeError:
                raise Problem(422, f"{field[:100]}: is neither a file nor UTF-8 text") from None


def images_of(value: Any, place: str = "") -> list[Upload]:
    """Return the images of a request, or of a value in it; those without a name get their place as name."""
    if isinstance(value, Upload):
        value.name = value.name or place
        return [value]
    if isinstance(value, BaseModel):
        items = [(name, one) for name, one in value]
    elif isinstance(value, (dict, list)):
        keys = value if isinstance(value, dict) else range(len(value))
        items = [(f"{place}[{key}]", value[key]) for key in keys]
    else:
        return []
    return [image for name, one in items for image in images_of(one, name)]
