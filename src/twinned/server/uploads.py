"""Requests: their bodies received within limits, read as multipart or JSON, their images checked unopened."""

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

# What browsers and phones send; the fewer decoders a stranger can reach, the better.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
_MAX_PARTS = 1000
_NAME_CHARACTERS = 100


class Upload(bytes):
    """An image file that a request brought.

    ``name`` is what errors and answers call it; ``refused`` says why its header alone makes it unusable.
    """

    name: str = "image"
    refused: ImageError | None = None

    @classmethod
    def called(cls, name: str, data: bytes) -> Upload:
        """An upload by its file's name, of which only the last part and nothing unprintable is kept."""
        upload = cls(data)
        last = name.replace("\\", "/").rpartition("/")[2]
        printable = "".join(c for c in last if unicodedata.category(c)[0] != "C")
        upload.name = printable[:_NAME_CHARACTERS].strip() or "image"
        return upload


class Intake:
    """Receives bodies, within limits for each and for all together.

    Args:
        limits: The service's.
        share: Of the bytes that all requests may hold; at least one body fits.
    """

    def __init__(self, limits: Limits, *, share: float = 1.0) -> None:
        self._limits = limits
        self._most_held = max(int(share * limits.bodies_bytes), min(limits.body_bytes, limits.bodies_bytes))
        self._held = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """A request's body, counted as held until the answer is made."""
        most, seconds = self._limits.body_bytes, self._limits.read_seconds
        for encoding in request.headers.getlist("content-encoding"):
            if encoding.strip().lower() not in ("", "identity"):
                raise Problem(
                    415,
                    f"the Content-Encoding {encoding[:100]!r} is not read; send the body without compression",
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
                            raise overloaded("the service holds too many uploads")
            except TimeoutError:
                raise Problem(
                    408,
                    f"the request had not arrived after {seconds:g} seconds; send it again, with smaller "
                    "images if the connection is slow",
                ) from None
            except ClientDisconnect:
                raise Problem(400, "the connection ended before the whole request had come") from None
            yield b"".join(chunks)
        finally:
            self._held -= size


def _too_large(most: int) -> Problem:
    return Problem(413, f"the request has more than {most:,} bytes; send fewer or smaller images")


def check_query(request: Request) -> None:
    """Refuse query parameters that the route does not have, and those that come twice.

    Raises:
        Problem: If there is one.
    """
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    seen = set()
    for name, _ in request.query_params.multi_items():
        shown = name[:100] if name.isprintable() else repr(name[:100])
        if name not in known:
            expected = f"expected {', '.join(known)}" if known else "none is read at this address"
            raise Problem(422, f"{shown}: there is no such query parameter; {expected}")
        if name in seen:
            raise Problem(422, f"{shown}: was given twice; expected one")
        seen.add(name)


def read(kind: type[Body], content_type: str, body: bytes, limits: Limits) -> Body:
    """What a request holds, checked.

    Args:
        kind: What it must be.
        content_type: The request's header.
        body: Its body.
        limits: The service's.

    Raises:
        Problem: If it is something else.
        ImageError: If an image cannot be used, unless this kind of request leaves such images out.
    """
    media, options = parse_options_header(content_type)
    if media == b"multipart/form-data":
        values = _from_parts(kind, list(_parts(body, options.get(b"boundary", b""))), limits)
    elif media == b"application/json":
        values = _from_json(body)
    else:
        raise Problem(
            415,
            f"a body of the type {content_type[:100]!r} is not read; send multipart/form-data or JSON",
        )
    try:
        found = kind.model_validate(values)
    except ValidationError as error:
        raise Problem(422, sentence(error.errors(include_url=False), kind.model_fields)) from None
    images = list(_uploads(dict(found)))
    if len(images) > limits.images:
        raise Problem(413, f"{len(images)} images came with one request; send at most {limits.images}")
    for upload in images:
        try:
            check(upload, limits)
        except ImageError as error:
            if not getattr(kind, "leaves_out_unreadable", False):
                raise
            upload.refused = error
    return found


def check(upload: Upload, limits: Limits) -> None:
    """Refuse an image by its header, before any memory is set aside for its pixels.

    Raises:
        ImageError: If it is of no known format or has too many pixels.
    """
    if not upload:
        raise ImageError(upload.name, "is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(upload), formats=FORMATS) as image:
            width, height = image.size
    except UnidentifiedImageError:
        raise ImageError(upload.name, "is not an image that can be read (or it is damaged)") from None
    except Image.DecompressionBombError:
        raise ImageError(upload.name, f"claims more pixels than the limit of {limits.pixels:,}") from None
    except Exception as error:  # Pillow's readers raise almost anything on damaged files
        raise ImageError(upload.name, f"is damaged or truncated ({error})") from None
    if width * height > limits.pixels:
        raise ImageError(upload.name, f"is {width}x{height}; the limit is {limits.pixels:,} pixels")


def sentence(errors: Sequence[Any], fields: Iterable[str] = ()) -> str:
    """The first of pydantic's errors in a sentence; a field that there is not tells most, so it is first."""
    error = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    steps = error["loc"]
    if len(steps) > 1 and steps[0] in ("body", "query", "path"):  # where FastAPI found the field
        steps = steps[1:]
    where = ".".join(str(step) for step in steps if step != "[key]")
    said = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        said = "is missing; the request needs it"
    elif error["type"] == "extra_forbidden":
        said = f"there is no such field; expected {', '.join(fields)}"
    elif error["type"] == "model_type":
        said = f"{reprlib.repr(error['input'])} came; expected an object with the fields {', '.join(fields)}"
    elif error["type"] == "string_too_short":
        said = "is empty; expected text"
    elif said.startswith("Input should be "):
        expected = said.removeprefix("Input should be ").partition(", ")[0]
        said = f"{reprlib.repr(error['input'])} came; expected {expected}"
    return f"{where[:200]}: {said}" if where else said


def _from_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(422, f"the body is not JSON ({error})") from None


def _from_parts(kind: type[BaseModel], parts: list[tuple[str, Any]], limits: Limits) -> dict[str, Any]:
    """Multipart's parts as the values that JSON would have; ``support[anna]`` is anna's in support."""
    if sum(isinstance(value, Upload) for _, value in parts) > limits.images:
        raise Problem(413, f"more than {limits.images} images came with one request; send fewer")
    lists, objects, files = _shapes(kind)
    values: dict[str, Any] = {}
    for field, value in parts:
        name, bracket, key = field.partition("[")
        if isinstance(value, Upload) and name in kind.model_fields and name not in files:
            raise Problem(422, f"{field[:100]}: a file came; expected text, or a field that takes images")
        if bracket and name in objects and key.endswith("]"):
            inside = values.setdefault(name, {})
            if not isinstance(inside, dict):
                raise Problem(422, f"{name}: was given in two ways")
            inside.setdefault(key[:-1], []).append(value)
        elif field in lists:
            values.setdefault(field, []).append(value)
        elif field in values:
            raise Problem(422, f"{field[:100]}: was given twice; expected one")
        elif field in objects and isinstance(value, str):
            values[field] = _from_json(value.encode())
        else:
            values[field] = value
    return values


@cache
def _shapes(kind: type[BaseModel]) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The fields that are lists, those that are objects, and those that hold images."""
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
    """Each part's field with its text, or its file as an `Upload`."""
    if not boundary:
        raise Problem(422, "the multipart body has no boundary; the header Content-Type must name it")
    headers: list[dict[bytes, bytes]] = []
    contents: list[list[bytes]] = []
    name = value = b""

    def begin() -> None:
        if len(headers) == _MAX_PARTS:
            raise Problem(413, f"the request has more than {_MAX_PARTS:,} parts; send fewer")
        headers.append({})
        contents.append([])

    def add_name(data: bytes, start: int, end: int) -> None:
        nonlocal name
        name += data[start:end]

    def add_value(data: bytes, start: int, end: int) -> None:
        nonlocal value
        value += data[start:end]

    def end_header() -> None:
        nonlocal name, value
        headers[-1][name.lower()] = value
        name = value = b""

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_part_data": lambda data, start, end: contents[-1].append(data[start:end]),
                "on_header_field": add_name,
                "on_header_value": add_value,
                "on_header_end": end_header,
            },
        )
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError) as error:
        raise Problem(422, f"the multipart body is damaged ({error})") from None
    for header, content in zip(headers, contents):
        _, options = parse_options_header(header.get(b"content-disposition", b""))
        field = options.get(b"name", b"").decode("utf-8", "replace")
        data = b"".join(content)
        if b"filename" in options:
            yield field, Upload.called(options[b"filename"].decode("utf-8", "replace"), data)
        elif header.get(b"content-type", b"").startswith((b"image/", b"application/octet-stream")):
            yield field, Upload.called(field, data)
        else:
            try:
                yield field, data.decode()
            except UnicodeDecodeError:
                raise Problem(422, f"{field[:100]}: is neither a file nor text in UTF-8") from None


def _uploads(value: Any) -> Iterator[Upload]:
    if isinstance(value, Upload):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _uploads(inner)
