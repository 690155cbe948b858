"""What went wrong, as problem+json (RFC 9457), in the sentence that the command line prints."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Response

from ..errors import (
    DataError,
    GalleryError,
    LabelConflictError,
    NotEnrolledError,
    SettingError,
    TwinnedError,
)

MEDIA_TYPE = "application/problem+json"
_STATUS: tuple[tuple[type[TwinnedError], int], ...] = (
    (NotEnrolledError, 404),
    (LabelConflictError, 409),
    (GalleryError, 503),  # damaged, or the disk is full
    (DataError, 422),
    (SettingError, 422),
)


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """Ends a request.

    Args:
        status: The HTTP status.
        detail: One sentence: what came, what was expected, what to do.
        headers: Of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The answer."""
        return Response(body(self.status, self.detail), self.status, self.headers, MEDIA_TYPE)


def overloaded(why: str) -> Problem:
    """Too much at the moment."""
    return Problem(503, f"{why}; try again in a moment", {"Retry-After": "1"})


def of(error: TwinnedError, address: str = "") -> Problem:
    """The problem that an error of ours is to whoever asked, who learns only a gallery's name."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 503)
    detail = str(error).replace(address, os.path.basename(address)) if address else str(error)
    return Problem(status, detail, {"Retry-After": "60"} if status == 503 else None)


def body(status: int, detail: str) -> bytes:
    """The document."""
    title = HTTPStatus(status).phrase
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
