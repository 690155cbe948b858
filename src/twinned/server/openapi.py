"""OpenAPI document: bodies as multipart or JSON, and errors as problem+json."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from .problems import MEDIA_TYPE
from .schemas import ProblemDetails
from .service import Lane

_COMMON = {401: "The token is missing or wrong.", 403: "This host, origin or change is not allowed."}
_BODY = {
    400: "The connection ended early.",
    408: "The request took too long to arrive.",
    413: "Too many bytes or images.",
    415: "The body is neither multipart nor JSON.",
    422: "The request is invalid.",
    503: "The service is busy, or the disk is full.",
}


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route, including those of every route."""
    known = {**_COMMON, **_BODY, 404: "Not found.", 409: "The image is enrolled under another label."}
    return {code: {"model": ProblemDetails, "description": known[code]} for code in (*_COMMON, *codes)}


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Describe a request's body: the same fields as multipart or as JSON."""
    schema = kind.model_json_schema()
    as_parts = copy.deepcopy(schema)
    if "images" in as_parts["properties"]:  # a form needs one field only, which may be repeated
        del as_parts["anyOf"]
        del as_parts["properties"]["image"]
        as_parts["properties"]["images"] |= {
            "minItems": 1,
            "description": "Image files; `image` for a single one.",
        }
        as_parts["required"] = [*as_parts.get("required", []), "images"]
    for either in (*as_parts.get("oneOf", ()), *as_parts.get("anyOf", ())):
        either.pop("properties")  # these exclude null, which a form cannot express
    for name, field in list(as_parts["properties"].items()):
        if "anyOf" in field:  # a form has no null: a field is present or not
            field["anyOf"] = [choice for choice in field["anyOf"] if choice.get("type") != "null"]
            lists = [choice for choice in field["anyOf"] if choice.get("items", {}).get("format") == "byte"]
            field["anyOf"] = lists or field["anyOf"]  # a field given once is a list of one
            if len(field["anyOf"]) == 1:
                field |= field.pop("anyOf")[0]
        for choice in field.get("anyOf", [field]):
            inner = choice.get("items") or choice
            if inner.get("format") == "byte":
                inner["format"] = "binary"
                inner["description"] = "An image file."
            elif choice.get("type") == "object" and "format" in str(choice):
                # In multipart, each entry of a mapping of images is one field.
                del as_parts["properties"][name]
                as_parts["required"] = [n for n in as_parts.get("required", []) if n != name]
                as_parts["patternProperties"] = {
                    rf"^{name}\[.+\]$": {"type": "array", "items": {"type": "string", "format": "binary"}}
                }
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": as_parts}, "application/json": {"schema": schema}},
        }
    }


def add_post(
    router: APIRouter,
    lane: Lane,
    path: str,
    body: type[BaseModel],
    answer: Any,
    job: Callable[[Any], Any],
    summary: str,
    *codes: int,
) -> None:
    """Add a route that receives a body, runs a job in the lane's threads and returns its result.

    Args:
        router: Router to add to.
        lane: Threads.
        path: Path of the route.
        body: Schema of the request.
        answer: Schema of the response.
        job: Function from the parsed body to the response as JSON.
        summary: Summary in the document.
        codes: Errors of the route besides those of every body.
    """

    async def post(request: Request) -> Response:
        return await lane.answer(request, body, job)

    router.add_api_route(
        path,
        post,
        methods=["POST"],
        name=job.__name__,
        summary=summary,
        response_model=answer,
        responses=problems(*_BODY, *codes),
        openapi_extra=body_of(body),
    )


def document(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return a function that makes the document, once."""

    def make() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            for path in found["paths"].values():
                for operation in path.values():
                    for status, response in operation["responses"].items():
                        if status[0] in "45" and "content" in response:
                            response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
            found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{}, {"token": []}]
            app.openapi_schema = found
        return app.openapi_schema

    return make
