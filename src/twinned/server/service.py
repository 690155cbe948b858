"""What the routes share: the model at work, and how a request becomes an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from ..gallery import Gallery
from ..manifest import checked
from ..model import Model
from ..runtime import Graph
from . import batching, uploads
from .limits import Limits
from .metrics import Metrics
from .problems import Problem
from .uploads import Intake
from .work import Work

Body = TypeVar("Body", bound=BaseModel)


class Service:
    """A model, its gallery, and the threads that work for them.

    Args:
        model: Its encoder is replaced by the one that suits many callers.
        gallery: To identify and search in, or None.
        read_only: Refuse every change.
        limits: What requests may ask for.
        plan: How to run the encoder; measured by default.
    """

    def __init__(
        self,
        model: Model,
        gallery: Gallery | None,
        *,
        read_only: bool,
        limits: Limits,
        plan: batching.Plan | None = None,
    ) -> None:
        self.model = model
        self.gallery = gallery
        self.read_only = read_only
        self.limits = limits
        self.plan = plan or measured(model)
        model.__dict__["encoder"] = self.plan.encoder  # in place of the cached property
        self.work = Work(self.plan.threads, waiting=limits.waiting, wait_seconds=limits.wait_seconds)
        self.metrics = Metrics(
            pending=lambda: self.work.pending,
            enrolled=None if gallery is None else gallery.count,
            together=self.plan.together,
        )
        self._intake = Intake(limits)

    async def answer(self, request: Request, kind: type[Body], job: Callable[[Body], Any]) -> Response:
        """Receive a body, and let a thread read it, do the job and write the answer."""
        self.work.check()
        async with self._intake.receive(request) as body:
            content_type = request.headers.get("content-type", "")
            return await self.run(lambda: job(uploads.read(kind, content_type, body, self.limits)))

    async def run(self, job: Callable[[], Any]) -> Response:
        """Let a thread do the job and write the answer."""
        return Response(await self.work.run(lambda: _json(job())), media_type="application/json")

    def opened(self) -> Gallery:
        """The gallery.

        Raises:
            Problem: If there is none.
        """
        if self.gallery is None:
            raise Problem(404, "this service has no gallery; start it with --gallery FOLDER")
        return self.gallery

    def changing(self) -> Gallery:
        """The gallery, to be changed.

        Raises:
            Problem: If there is none, or it may not be changed.
        """
        gallery = self.opened()
        if self.read_only:
            raise Problem(
                403, "this service is read-only; start it without --read-only to change the gallery"
            )
        return gallery

    def close(self) -> None:
        """Finish what was begun, and let go of the gallery."""
        self.work.close()
        if self.gallery is not None:
            self.gallery.close()


def measured(model: Model) -> batching.Plan:
    """How to run this model's encoder on this machine."""
    path = checked(model.folder, "encoder.onnx", model.manifest)
    return batching.choose(lambda threads: Graph(path, device=model.device, threads=threads), model.spec)


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
