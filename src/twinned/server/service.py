"""Resources shared by the routes: model, gallery, worker threads, and the way from request to response."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request, Response
from prometheus_client import Counter
from pydantic import BaseModel

from ..errors import TwinnedError
from ..gallery.gallery import Gallery
from ..gallery.open import open_gallery
from ..inference.model import Model
from . import batching, uploads
from .limits import Limits
from .metrics import Metrics
from .problems import Problem
from .thread_pool import ThreadPool
from .uploads import Intake

Body = TypeVar("Body", bound=BaseModel)
Answer = TypeVar("Answer")

CLOSE_SECONDS = 0.5  # wait for threads whose callers have disconnected
_ROOM = 1 << 30  # bytes free for a temporary gallery in memory
_GALLERY_SECONDS = 2.0  # for figures of the gallery in other responses; Prometheus waits 10 s for the metrics


class Lane:
    """Threads and a share of the upload memory for one kind of request, which never waits for the other."""

    def __init__(self, threads: int, limits: Limits, images: Counter, *, share: float) -> None:
        self.pool = ThreadPool(threads, waiting=limits.waiting, wait_seconds=limits.wait_seconds)
        self._images = images
        self._limits = limits
        self._intake = Intake(limits, share=share)

    async def answer(self, request: Request, kind: type[Body], job: Callable[[Body], Any]) -> Response:
        """Receive a body, then parse it, run the job and encode the response in a thread."""
        self.pool.check()
        async with self._intake.receive(request) as body:
            content_type = request.headers.get("content-type", "")

            def work() -> Any:
                asked = uploads.read(kind, content_type, body, self._limits)
                self._images.inc(len(uploads.images_of(asked)))
                return job(asked)

            return await self.run(work)

    async def run(self, job: Callable[[], Any]) -> Response:
        """Run the job and encode the response in a thread."""
        encode = partial(json.dumps, allow_nan=False, separators=(",", ":"))
        content = await self.pool.run(lambda: encode(job()).encode())
        return Response(content, media_type="application/json")


class Service:
    """Model, gallery, and the threads that work for them.

    Requests that need the gallery have their own threads, so a gallery server that does not respond never
    blocks requests that need the model only.
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
        self.plan = plan or batching.plan(model)
        self.model = model.with_session(self.plan.encoder)
        self.gallery = None if gallery is None else gallery.with_embedder(self.model)
        self.read_only = read_only
        self.limits = limits
        self.temporary: tempfile.TemporaryDirectory[str] | None = None  # folder of a temporary gallery
        self._making = threading.Lock()
        self.metrics = Metrics(
            pending=lambda: sum(lane.pool.pending for lane in self._lanes), batching=self.plan.batching
        )
        share = 1.0 if gallery is None and read_only else 0.5
        self._lanes = [Lane(self.plan.threads, limits, self.metrics.images, share=share) for _ in range(2)]
        self.for_model, self.for_gallery = self._lanes

    async def figures(self) -> bytes:
        """Return all metrics in Prometheus' format."""
        count: float | None = await self.about_gallery(Gallery.count)
        if count is None and self.gallery is not None:
            count = math.nan
        return await self.for_model.pool.run(lambda: self.metrics.text(count))

    async def about_gallery(self, ask: Callable[[Gallery], Answer]) -> Answer | None:
        """Ask the gallery in one of its threads; None without a gallery, or if its server does not answer."""
        if (gallery := self.gallery) is None:
            return None
        with contextlib.suppress(Problem, TwinnedError, TimeoutError):
            async with asyncio.timeout(min(_GALLERY_SECONDS, self.limits.wait_seconds)):
                return await self.for_gallery.pool.run(lambda: ask(gallery))
        return None

    def opened(self, faces: str | None = None) -> Gallery:
        """Return the gallery, with another handling of faces unless that is None."""
        if self.gallery is None:
            raise Problem(
                404, "This service has no gallery. Start it with --gallery FOLDER, or make a temporary one"
            )
        return self.gallery if faces is None else self.gallery.with_embedder(self.model.with_faces(faces))

    def make_gallery(self) -> Gallery:
        """Make a temporary gallery, which is deleted when the service stops; return an existing one."""
        with self._making:
            if self.gallery is None and not self.read_only:
                in_memory = Path("/dev/shm")
                usable = os.access(in_memory, os.W_OK) and shutil.disk_usage(in_memory).free > _ROOM
                self.temporary = tempfile.TemporaryDirectory(
                    prefix="twinned-", dir=in_memory if usable else None
                )
                self.gallery = open_gallery(Path(self.temporary.name, "temporary.gallery"), self.model)
        return self.changing()

    def changing(self, faces: str | None = None) -> Gallery:
        """Return the gallery for a change, unless the service is read-only."""
        gallery = self.opened(faces)
        if self.read_only:
            raise Problem(
                403, "This service is read-only. Start it without --read-only to change the gallery"
            )
        return gallery

    def close(self) -> None:
        """Finish running jobs, then close the gallery unless a thread still uses it."""
        end = time.monotonic() + CLOSE_SECONDS
        done = [lane.pool.close(max(0.0, end - time.monotonic())) for lane in self._lanes]
        if self.gallery is not None and all(done):
            self.gallery.close()
            if self.temporary is not None:
                self.temporary.cleanup()
