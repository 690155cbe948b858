"""OpenAPI document: bodies as multipart or JSON, and errors as problem+json."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel

from .problems import MEDIA_TYPE
from .schemas import ProblemDetails
from .service import Lane
from .uploads import shapes

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
    schema, form = kind.model_json_schema(), kind.model_json_schema()
    fields, required = form["properties"], form.setdefault("required", [])
    if "images" in fields:  # a form needs one field only, which may be repeated
        del form["anyOf"], fields["image"]
        fields["images"] |= {"minItems": 1, "description": "Image files; `image` for a single one."}
        required.append("images")
    for either in form.get("oneOf", form.get("anyOf", ())):
        del either["properties"]  # these exclude null, which a form cannot express
    _, objects, images = shapes(kind)
    for name, field in list(fields.items()):
        if name in images & objects:  # each entry of a mapping of images is one field
            del fields[name]
            required.remove(name)
            files = {"type": "array", "items": {"type": "string", "format": "binary"}}
            form["patternProperties"] = {rf"^{name}\[.+\]$": files}
            continue
        if "anyOf" in field:  # a form has no null; of an image and a list of images, the list is the last
            field |= [choice for choice in field.pop("anyOf") if choice.get("type") != "null"][-1]
        if name in images:
            field.get("items", field).update(format="binary", description="An image file.")
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, "application/json": {"schema": schema}},
        }
    }


def add_route(
    router: APIRouter, lane: Lane, method: str, path: str, answer: Any, job: Callable[..., Any], *codes: int
) -> None:
    """Add a route that runs a job in the lane's threads and returns its result as JSON.

    The job's parameters are those of the path and the query, and ``body``, annotated with its schema. Its
    docstring is the summary in the document; ``codes`` are its errors besides the usual ones.
    """
    signature = inspect.signature(job, eval_str=True)
    parameters = dict(signature.parameters)
    body = parameters.pop("body", None)
    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)

    async def endpoint(request: Request, **values: Any) -> Response:
        if body is None:
            return await lane.run(partial(job, **values))
        return await lane.answer(request, body.annotation, lambda parsed: job(body=parsed, **values))

    shown = signature.replace(parameters=[request, *parameters.values()])
    endpoint.__signature__ = shown  # type: ignore[attr-defined]
    router.add_api_route(
        path,
        endpoint,
        methods=[method],
        name=job.__name__,
        summary=(job.__doc__ or "").removesuffix("."),
        response_model=answer,
        responses=problems(*(_BODY if body else (422, 503)), *codes),
        openapi_extra=body_of(body.annotation) if body else None,
    )


class Application(FastAPI):
    """Application whose document describes errors as problem+json, and the token."""

    def openapi(self) -> dict[str, Any]:
        """Return the document, which is made once."""
        if self.openapi_schema is None:
            found = super().openapi()
            for path in found["paths"].values():
                for operation in path.values():
                    for status, response in operation["responses"].items():
                        if status[0] in "45" and "content" in response:
                            response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
            found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{}, {"token": []}]
            self.openapi_schema = found
        return self.openapi_schema
