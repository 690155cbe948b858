"""Routes that need the gallery: identify, search, and looking after what is enrolled."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from ..errors import DataError
from ..gallery.gallery import Gallery
from ..gallery.results import Hit
from ..gallery.results import Removed as Taken
from ..gallery.store import Record
from . import schemas
from .embedding_map import Maps, Method
from .openapi import body_of, problems
from .problems import Problem
from .service import Service
from .thumbnails import MEDIA_TYPE, Thumbnails
from .uploads import check_query

_ASKING = problems(400, 404, 408, 413, 415, 422, 503)
_LOOKING = problems(404, 422, 503)
_UNDO_SECONDS = 600.0
_UNDO_KEPT = 32
_PAGE = 500

Label = Annotated[str | None, Query(max_length=200, description="Only this label.")]


class Undo:
    """What was removed, for some minutes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Removal] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, taken: Taken, thumbnails: dict[str, bytes]) -> str:
        """Keep a removal; returns the key that brings it back."""
        key = secrets.token_urlsafe(12)
        now = time.monotonic()
        with self._lock:
            self._kept[key] = _Removal(now, taken, thumbnails)
            while len(self._kept) > _UNDO_KEPT or now - next(iter(self._kept.values())).at > _UNDO_SECONDS:
                self._kept.popitem(last=False)
        return key

    def take(self, key: str) -> _Removal:
        """A removal, once.

        Raises:
            Problem: If it is not kept any more.
        """
        with self._lock:
            found = self._kept.pop(key, None)
        if found is None or time.monotonic() - found.at > _UNDO_SECONDS:
            raise Problem(404, "this removal cannot be taken back any more; enrol the images again")
        return found

    def put_back(self, key: str, removal: _Removal) -> None:
        """Keep a removal on that could not be taken back now."""
        with self._lock:
            self._kept[key] = removal
            self._kept.move_to_end(key, last=False)


class _Removal(NamedTuple):
    at: float
    taken: Taken
    thumbnails: dict[str, bytes]


class GalleryService:
    """The gallery with its thumbnails, its map and what was removed of it.

    Args:
        service: The service.
        thumbnails: Of the gallery's images.
    """

    def __init__(self, service: Service, thumbnails: Thumbnails) -> None:
        self.service = service
        self.thumbnails = thumbnails
        self._undo = Undo()
        self._changes = 0
        self._maps = Maps(service.opened, lambda: self._changes)

    # ---- asking

    def identify(self, asked: schemas.IdentifyRequest) -> list[dict[str, Any]]:
        """Name what images show, or say unknown; with the nearest enrolled images if asked for."""
        gallery, images = self.service.opened(), asked.all()
        self.service.metrics.images.inc(len(images))
        found = gallery.identify(images, fpir=asked.fpir, label=asked.label, where=asked.where)
        near = [
            gallery.search(image, asked.nearest, label=asked.label, where=asked.where)
            if asked.nearest
            else []
            for image in images
        ]
        return [
            {**one.to_json(), "threshold": one.threshold, "nearest": [_hit(hit) for hit in hits]}
            for one, hits in zip(found, near)
        ]

    def search(self, asked: schemas.SearchRequest) -> list[dict[str, Any]]:
        """The enrolled images that look most alike, nearest first."""
        self.service.metrics.images.inc(asked.image is not None)
        hits = self.service.opened().search(
            asked.image, asked.k, id=asked.id, exact=asked.exact, label=asked.label, where=asked.where
        )
        return [_hit(hit) for hit in hits]

    def map(self, method: Method) -> dict[str, Any]:
        """The gallery in two dimensions."""
        return self._maps.get(method)

    # ---- looking

    def list(self, label: str | None, after: str | None, limit: int) -> dict[str, Any]:
        """Enrolled images, a page at a time."""
        page = self.service.opened().list(label=label, after=after, limit=limit)
        return {"count": page.count, "items": [_item(one) for one in page.items], "after": page.after}

    def labels(self) -> dict[str, Any]:
        """How many images each label has."""
        gallery = self.service.opened()
        return {"count": gallery.count(), "labels": gallery.labels()}

    def thumbnail(self, id: str) -> bytes | None:
        """A small picture of an enrolled image: kept since it was sent, or made of the record's own file."""
        record = self.service.opened().get(id)
        data = self.thumbnails.get(id)
        if data is None and record.image is not None:
            data = self.thumbnails.make(id, record.image)
        return data

    # ---- changing

    def add(self, asked: schemas.AddRequest) -> dict[str, Any]:
        """Enrol images; on disk when this returns."""
        gallery, images = self.service.changing(), asked.all()
        self.service.metrics.images.inc(len(images))
        usable = [image for image in images if image.refused is None]
        added = gallery.add(usable, asked.label, metadata=asked.metadata, progress=False)
        unreadable = [*(image.refused for image in images if image.refused), *added.unreadable]
        if len(unreadable) == len(images):
            raise unreadable[0] if len(images) == 1 else DataError("; ".join(map(str, unreadable)))
        self._changes += 1
        ids = dict(zip(map(id, usable), added.ids))
        for image in usable:
            if (found := ids[id(image)]) is not None and self.thumbnails.get(found) is None:
                self.thumbnails.make(found, image)
        return {
            "stored": added.stored,
            "skipped": added.skipped,
            "unreadable": [str(error) for error in unreadable],
            "count": gallery.count(),
            "ids": [ids.get(id(image)) for image in images],
        }

    def update(self, id: str, asked: schemas.UpdateRequest) -> dict[str, Any]:
        """Give an image another label, other metadata, or both."""
        gallery = self.service.changing()
        if asked.label is None and asked.metadata is None:
            raise Problem(422, "nothing to change came; send label, metadata, or both")
        record = gallery.update(id, label=asked.label, metadata=asked.metadata)
        self._changes += 1
        return _item(record)

    def rename(self, asked: schemas.RenameRequest) -> dict[str, Any]:
        """Rename a label, or merge it into another."""
        updated = self.service.changing().rename(asked.label, asked.new)
        self._changes += 1
        return {"updated": updated}

    def remove(self, id: str | None, label: str | None) -> dict[str, Any]:
        """Remove an image, or all of a label."""
        gallery = self.service.changing()
        taken = gallery.remove(id, label=label)
        self._changes += 1
        key = self._undo.keep(taken, self.thumbnails.take(record.id for record in taken.items))
        return {"removed": len(taken.items), "count": gallery.count(), "undo": key}

    def restore(self, asked: schemas.UndoRequest) -> dict[str, Any]:
        """Take a removal back."""
        gallery = self.service.changing()
        removal = self._undo.take(asked.undo)
        try:
            gallery.restore(removal.taken)
        except BaseException:
            self._undo.put_back(asked.undo, removal)
            raise
        self._changes += 1
        for id, data in removal.thumbnails.items():
            self.thumbnails.put(id, data)
        return {"restored": len(removal.taken.items), "count": gallery.count()}

    def sweep(self) -> None:
        """Drop the thumbnails of images that were removed by other means."""
        gallery = self.service.gallery
        if gallery is None or self.service.read_only:
            return
        stored = list(self.thumbnails.stored())
        for start in range(0, len(stored), 1000):
            ids = stored[start : start + 1000]
            self.thumbnails.take(set(ids) - _known(gallery, ids))


def routes(service: Service, enrolled: GalleryService) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["gallery"], dependencies=[Depends(check_query)])

    def posts(path: str, asked: type[Any], answer: Any, job: Any, summary: str, *more: int) -> None:
        async def post(request: Request) -> Response:
            return await service.for_gallery.answer(request, asked, job)

        router.add_api_route(
            path,
            post,
            methods=["POST"],
            name=job.__name__,
            summary=summary,
            response_model=answer,
            responses=_ASKING | problems(*more),
            openapi_extra=body_of(asked),
        )

    posts(
        "/v1/identify",
        schemas.IdentifyRequest,
        list[schemas.Identification],
        enrolled.identify,
        "Name what images show, or say unknown",
    )
    posts(
        "/v1/search",
        schemas.SearchRequest,
        list[schemas.Hit],
        enrolled.search,
        "The enrolled images most alike",
    )
    posts("/v1/gallery", schemas.AddRequest, schemas.Added, enrolled.add, "Enrol images", 409)
    posts(
        "/v1/gallery/rename",
        schemas.RenameRequest,
        schemas.Updated,
        enrolled.rename,
        "Rename a label, or merge it into another",
    )
    posts(
        "/v1/gallery/undo",
        schemas.UndoRequest,
        schemas.Restored,
        enrolled.restore,
        "Take a removal back",
        409,
    )

    @router.get("/v1/gallery", response_model=schemas.Items, responses=_LOOKING, summary="Enrolled images")
    async def get_items(
        label: Label = None,
        after: Annotated[UUID | None, Query(description="From the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=_PAGE)] = 100,
    ) -> Response:
        return await service.for_gallery.run(
            lambda: enrolled.list(label, None if after is None else str(after), limit)
        )

    @router.delete(
        "/v1/gallery", response_model=schemas.Removed, responses=_LOOKING, summary="Remove a label's images"
    )
    async def delete_label(label: Annotated[str, Query(max_length=200)]) -> Response:
        return await service.for_gallery.run(lambda: enrolled.remove(None, label))

    @router.get(
        "/v1/gallery/labels", response_model=schemas.Labelled, responses=_LOOKING, summary="The labels"
    )
    async def get_labels() -> Response:
        return await service.for_gallery.run(enrolled.labels)

    @router.get(
        "/v1/gallery/map",
        response_model=schemas.GalleryMap,
        responses=_LOOKING,
        summary="The gallery in two dimensions",
    )
    async def get_map(method: Method = "pca") -> Response:
        return await service.for_gallery.run(lambda: enrolled.map(method))

    @router.patch(
        "/v1/gallery/{id}",
        response_model=schemas.Item,
        responses=_ASKING,
        openapi_extra=body_of(schemas.UpdateRequest),
        summary="Change an image's label or metadata",
    )
    async def patch_item(id: str, request: Request) -> Response:
        return await service.for_gallery.answer(
            request, schemas.UpdateRequest, lambda asked: enrolled.update(id, asked)
        )

    @router.delete(
        "/v1/gallery/{id}", response_model=schemas.Removed, responses=_LOOKING, summary="Remove an image"
    )
    async def delete_item(id: str) -> Response:
        return await service.for_gallery.run(lambda: enrolled.remove(id, None))

    @router.get(
        "/v1/gallery/{id}/thumbnail",
        response_class=Response,
        responses=_LOOKING
        | {200: {"content": {MEDIA_TYPE: {}}}, 204: {"description": "It was enrolled without one."}},
        summary="A small picture of an enrolled image",
    )
    async def get_thumbnail(id: str) -> Response:
        data = await service.for_gallery.work.run(lambda: enrolled.thumbnail(id))
        if data is None:
            return Response(status_code=204)
        # The id is made from the picture, so the picture behind it never changes.
        return Response(data, media_type=MEDIA_TYPE, headers={"Cache-Control": "private, max-age=86400"})

    return router


def _hit(hit: Hit) -> dict[str, Any]:
    return {"id": hit.id, **hit.to_json(), "image": _file_name(hit.image)}


def _item(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "label": record.label,
        "image": _file_name(record.image),
        "metadata": dict(record.metadata),
    }


def _file_name(path: str | None) -> str | None:
    """Whoever asks is told the file's name, not where it lies on this machine."""
    return None if path is None else os.path.basename(path)


def _known(gallery: Gallery, ids: list[str]) -> set[str]:
    return {record.id for record in gallery.store.get(ids)[0]}
