"""The ASGI application: routes, page, error handlers and security middleware."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from .. import __version__
from ..errors import TwinnedError
from ..gallery.gallery import Gallery
from ..inference.model import Model
from . import gallery_routes, metrics, model_routes, problems, uploads
from .batching import EncoderPlan
from .limits import Limits
from .openapi import Application
from .openapi import problems as problem_responses
from .problems import Problem
from .schemas import Health
from .security import Hosts, SecurityMiddleware
from .service import Service

_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


def create_app(
    model: Model,
    gallery: Gallery | None = None,
    *,
    token: str | None = None,
    host: str = "127.0.0.1",
    names: Iterable[str] = (),
    read_only: bool = False,
    limits: Limits | None = None,
    plan: EncoderPlan | None = None,
) -> SecurityMiddleware:
    """Create the service as an ASGI application, which closes the gallery on shutdown.

    The address ``host`` and further ``names`` are accepted in the header Host. The ``token`` is required in
    ``Authorization: Bearer`` unless it is None. `batching.plan` chooses how the encoder runs by default.
    """
    service = Service(model, gallery, read_only=read_only, limits=limits or Limits(), plan=plan)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)  # meanwhile the event loop sends the last responses

    app = Application(
        title="Twinned",
        version=__version__,
        description="Verify that two images show the same class, recognize from one example, search.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    for router in (model_routes.routes(service), gallery_routes.routes(service)):
        app.router.routes += router.routes  # a router that is included hides its routes from `_allowed`
    _add_page(app)
    _add_upkeep(app, service)
    _add_errors(app, service)
    return SecurityMiddleware(app, hosts=Hosts(host, names), token=token, metrics=service.metrics)


def _add_upkeep(app: FastAPI, service: Service) -> None:
    checked: dict[str, Any] = {
        "tags": ["upkeep"],
        "dependencies": [Depends(uploads.check_query)],
        "responses": problem_responses(422),
    }

    @app.get("/healthz", response_model=Health, summary="Check that the service responds", **checked)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, summary="Metrics for Prometheus", **checked)
    async def get_metrics() -> Response:
        return Response(await service.figures(), media_type=metrics.MEDIA_TYPE)


def _add_page(app: FastAPI) -> None:
    """Add the page. Its files are read once, so that no path of a request is looked up on disk."""
    page = {entry.name: entry.read_bytes() for entry in files(__package__).joinpath("static").iterdir()}

    async def serve(name: str) -> Response:
        if name not in page:
            raise Problem(404, f"The page has no file {name[:100]!r}")
        kind = _TYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0]
        return Response(page[name], media_type=kind, headers={"Cache-Control": "no-cache"})

    for path, name in (("/", "index.html"), ("/docs", "docs.html"), ("/favicon.ico", "icon.svg")):
        app.add_api_route(path, partial(serve, name), include_in_schema=False)
    app.add_api_route("/static/{name}", serve, include_in_schema=False)


def _allowed(request: Request) -> str:
    """Return the methods of a path, for the header Allow."""
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE:
            methods |= route.methods or set()
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


def _add_errors(app: FastAPI, service: Service) -> None:
    """Convert errors to problem+json; messages name the gallery without its path."""

    async def known(_: Request, error: Any) -> Response:
        gallery = service.gallery
        return problems.of(error, "" if gallery is None else gallery.store.address).response()

    async def invalid(_: Request, error: Any) -> Response:
        return Problem(422, uploads.sentence(error.errors())).response()

    async def http(request: Request, error: Any) -> Response:
        messages = {
            404: "This address does not exist. The addresses are listed at /docs",
            405: f"{request.method} is not supported here. The methods are listed at /docs",
        }
        headers = error.headers
        if error.status_code == 405:
            headers = {**(headers or {}), "Allow": _allowed(request)}
        return Problem(
            error.status_code, messages.get(error.status_code, str(error.detail)), headers
        ).response()

    async def bug(_: Request, error: Any) -> Response:
        return Problem(500, "Internal error, a bug of the service. See its log").response()

    app.add_exception_handler(Problem, known)
    app.add_exception_handler(TwinnedError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, bug)
