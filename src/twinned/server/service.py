"""What the routes share: the model at work, and how a request becomes an answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from ..errors import TwinnedError
from ..gallery.gallery import Gallery
from ..inference.model import Model
from ..inference.model_folder import checked
from ..inference.session import Graph
from . import batching, uploads
from .limits import Limits
from .metrics import Metrics
from .problems import Problem
from .thread_pool import Work
from .uploads import Intake

Body = TypeVar("Body", bound=BaseModel)

CLOSE_SECONDS = 0.5  # for threads whose callers have gone
_COUNT_SECONDS = 2.0  # for the gallery's size among the figures; Prometheus waits 10 s for all of them


class Lane:
    """Threads, and room for uploads, of one kind of request: it never waits for another kind.

    Args:
        threads: How many.
        limits: The service's.
        share: Of the bytes that all requests may hold.
    """

    def __init__(self, threads: int, limits: Limits, *, share: float) -> None:
        self.work = Work(threads, waiting=limits.waiting, wait_seconds=limits.wait_seconds)
        self._limits = limits
        self._intake = Intake(limits, share=share)

    async def answer(self, request: Request, kind: type[Body], job: Callable[[Body], Any]) -> Response:
        """Receive a body, and let a thread read it, do the job and write the answer."""
        self.work.check()
        async with self._intake.receive(request) as body:
            content_type = request.headers.get("content-type", "")
            return await self.run(lambda: job(uploads.read(kind, content_type, body, self._limits)))

    async def run(self, job: Callable[[], Any]) -> Response:
        """Let a thread do the job and write the answer."""
        return Response(await self.work.run(lambda: _json(job())), media_type="application/json")


class Service:
    """A model, its gallery, and the threads that work for them.

    What needs the gallery has threads of its own, so that a gallery's server that does not answer never
    holds what needs the model alone.

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
        plan: batching.EncoderPlan | None = None,
    ) -> None:
        self.model = model
        self.gallery = gallery
        self.read_only = read_only
        self.limits = limits
        self.plan = plan or measured(model)
        model.__dict__["encoder"] = self.plan.encoder  # in place of the cached property
        share = 1.0 if gallery is None else 0.5
        self.for_model = Lane(self.plan.threads, limits, share=share)
        self.for_gallery = Lane(self.plan.threads, limits, share=share)
        self._lanes = (self.for_model, self.for_gallery)
        self.metrics = Metrics(
            pending=lambda: sum(lane.work.pending for lane in self._lanes),
            enrolled=gallery is not None,
            together=self.plan.together,
        )

    async def figures(self) -> bytes:
        """Return all figures, in Prometheus' format."""
        count = math.nan
        if self.gallery is not None:
            with contextlib.suppress(Problem, TwinnedError, TimeoutError):
                async with asyncio.timeout(_COUNT_SECONDS):
                    count = await self.for_gallery.work.run(self.gallery.count)
        return await self.for_model.work.run(lambda: self.metrics.text(count))

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
        """Finish what was begun, and let go of the gallery, unless a thread is still at work on it.

        The callers of such a thread have been answered, and what was acknowledged is on disk.
        """
        end = time.monotonic() + CLOSE_SECONDS
        done = [lane.work.close(max(0.0, end - time.monotonic())) for lane in self._lanes]
        if self.gallery is not None and all(done):
            self.gallery.close()


def measured(model: Model) -> batching.EncoderPlan:
    """How to run this model's encoder on this machine."""
    path = checked(model.folder, "encoder.onnx", model.manifest)
    return batching.choose(lambda threads: Graph(path, device=model.device, threads=threads), model.spec)


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
