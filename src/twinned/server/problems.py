"""Errors as problem+json (RFC 9457), with the text that the command line prints."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Response

from ..errors import DataError, GalleryError, LabelConflictError, NotEnrolledError, SettingError, TwinnedError

MEDIA_TYPE = "application/problem+json"
_STATUS: tuple[tuple[type[TwinnedError], int], ...] = (
    (NotEnrolledError, 404),
    (LabelConflictError, 409),
    (GalleryError, 503),  # damaged, or the disk is full
    (DataError, 422),
    (SettingError, 422),
)


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """Error that ends a request; the detail states what is wrong, and what to do."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the response."""
        title = HTTPStatus(self.status).phrase
        body = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}
        return Response(json.dumps(body), self.status, self.headers, MEDIA_TYPE)


def overloaded(reason: str) -> Problem:
    """Return the problem of a service that is busy."""
    return Problem(503, f"{reason}. Try again in a moment", {"Retry-After": "1"})


def of(error: Problem | TwinnedError, address: str = "") -> Problem:
    """Convert an error to a problem; replace the gallery's path by its name."""
    if isinstance(error, Problem):
        return error
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 503)
    detail = str(error).replace(address, os.path.basename(address)) if address else str(error)
    return Problem(status, detail, {"Retry-After": "60"} if status == 503 else None)
