"""Routes that need the gallery: identify, search, and manage the enrolled images."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from ..errors import DataError
from ..gallery.results import Hit, Removed
from ..gallery.store import Record
from ..inference.inputs import queries_of
from . import schemas
from .embedding_map import Maps, Method
from .openapi import add_post, body_of, problems
from .problems import Problem
from .service import Service
from .thumbnails import MEDIA_TYPE, Thumbnails
from .uploads import check_query

_BODY = problems(400, 404, 408, 413, 415, 422, 503)
_QUERY = problems(404, 422, 503)
_UNDO_SECONDS = 600.0
_UNDO_KEPT = 32
_PAGE = 500
_MOST_COMPARED = 20_000  # images in which near-duplicates are found in some 15 seconds

Label = Annotated[str | None, Query(max_length=200, description="Label to list; all by default.")]


class Undo:
    """Recent removals, for `_UNDO_SECONDS`."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Removal] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, removed: Removed, thumbnails: dict[str, bytes]) -> str:
        """Keep a removal and return the key that restores it."""
        key = secrets.token_urlsafe(12)
        now = time.monotonic()
        with self._lock:
            self._kept[key] = _Removal(now, removed, thumbnails)
            while len(self._kept) > _UNDO_KEPT or now - next(iter(self._kept.values())).at > _UNDO_SECONDS:
                self._kept.popitem(last=False)
        return key

    def get(self, key: str) -> _Removal:
        """Return a removal.

        Raises:
            Problem: If the removal has expired or was undone.
        """
        with self._lock:
            found = self._kept.get(key)
        if found is None or time.monotonic() - found.at > _UNDO_SECONDS:
            raise Problem(404, "This removal can no longer be undone. Enroll the images again")
        return found

    def forget(self, key: str) -> None:
        """Drop a removal that was undone."""
        with self._lock:
            self._kept.pop(key, None)


class _Removal(NamedTuple):
    at: float
    removed: Removed
    thumbnails: dict[str, bytes]


class GalleryService:
    """Gallery with its thumbnails, maps and recent removals."""

    def __init__(self, service: Service, thumbnails: Thumbnails) -> None:
        self.service = service
        self.thumbnails = thumbnails
        self._undo = Undo()
        self._changes = 0
        self._maps = Maps(service.opened, lambda: self._changes)

    # ---- query

    def identify(self, body: schemas.IdentifyRequest) -> list[dict[str, Any]]:
        """Identify images or their faces, and return the nearest enrolled images if requested."""
        images = body.all()
        self.service.opened()
        queries, spec = queries_of(images, self.service.model_for(body.faces).spec)
        gallery = self.service.opened(spec.faces)
        self.service.metrics.images.inc(len(images))
        sources = [query.image for query in queries]
        found = gallery.identify(sources, fpir=body.fpir, label=body.label, where=body.where)
        near = [
            gallery.search(source, body.nearest, label=body.label, where=body.where) if body.nearest else []
            for source in sources
        ]
        return [
            {**one.to_json(), "image": query.name, "hits": [_hit(hit) for hit in hits]}
            | ({"box": query.box} if query.box else {})
            for query, one, hits in zip(queries, found, near)
        ]

    def search(self, body: schemas.SearchRequest) -> list[dict[str, Any]]:
        """Find the most similar enrolled images, nearest first."""
        self.service.metrics.images.inc(body.image is not None)
        hits = self.service.opened(body.faces).search(
            body.image, body.k, id=body.id, exact=body.exact, label=body.label, where=body.where
        )
        return [_hit(hit) for hit in hits]

    def duplicates(self, within: float | None) -> list[list[dict[str, Any]]]:
        """Return groups of near-duplicates, the largest first."""
        gallery = self.service.opened()
        if gallery.count() > _MOST_COMPARED:
            raise Problem(
                422,
                f"This gallery has more than {_MOST_COMPARED:,} images, so this would take minutes. Stop the"
                " service, and run: twinned gallery duplicates",
            )
        return [[_hit(hit) for hit in group] for group in gallery.duplicates(within)]

    def map(self, method: Method) -> dict[str, Any]:
        """Return the map of the gallery."""
        return self._maps.get(method)

    # ---- read

    def list(self, label: str | None, after: str | None, limit: int) -> dict[str, Any]:
        """Return one page of the enrolled images."""
        page = self.service.opened().list(label=label, after=after, limit=limit)
        return {"count": page.count, "items": [_item(one) for one in page.items], "after": page.after}

    def labels(self) -> dict[str, Any]:
        """Count the images of each label."""
        gallery = self.service.opened()
        return {"count": gallery.count(), "labels": gallery.labels()}

    def thumbnail(self, id: str) -> bytes | None:
        """Return the thumbnail of an enrolled image; make a missing one from the record's file."""
        record = self.service.opened().get(id)
        data = self.thumbnails.get(id)
        if data is None and record.image is not None:
            data = self.thumbnails.make(id, record.image)
        return data

    # ---- change

    def make(self) -> dict[str, Any]:
        """Make a temporary gallery, unless the service has one."""
        gallery = self.service.make_gallery()
        return {"count": gallery.count(), "temporary": self.service.temporary is not None}

    def add(self, body: schemas.AddRequest) -> dict[str, Any]:
        """Enroll images; on disk when this returns."""
        gallery, images = self.service.changing(body.faces), body.all()
        self.service.metrics.images.inc(len(images))
        usable = [image for image in images if image.refused is None]
        added = gallery.add(usable, body.label, metadata=body.metadata, progress=False)
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

    def update(self, id: str, body: schemas.UpdateRequest) -> dict[str, Any]:
        """Change the label or metadata of an image."""
        gallery = self.service.changing()
        if body.label is None and body.metadata is None:
            raise Problem(422, "The request changes nothing. Send label, metadata, or both")
        record = gallery.update(id, label=body.label, metadata=body.metadata)
        self._changes += 1
        return _item(record)

    def rename(self, body: schemas.RenameRequest) -> dict[str, Any]:
        """Rename a label, or merge it into another."""
        updated = self.service.changing().rename(body.label, body.new)
        self._changes += 1
        return {"updated": updated}

    def remove(self, id: str | None, label: str | None) -> dict[str, Any]:
        """Remove an image, or all images of a label."""
        gallery = self.service.changing()
        removed = gallery.remove(id, label=label)
        self._changes += 1
        key = self._undo.keep(removed, self.thumbnails.take(record.id for record in removed.items))
        return {"removed": len(removed.items), "count": gallery.count(), "undo": key}

    def restore(self, body: schemas.UndoRequest) -> dict[str, Any]:
        """Undo a removal."""
        gallery = self.service.changing()
        removal = self._undo.get(body.undo)
        gallery.restore(removal.removed)
        self._undo.forget(body.undo)
        self._changes += 1
        for id, data in removal.thumbnails.items():
            self.thumbnails.put(id, data)
        return {"restored": len(removal.removed.items), "count": gallery.count()}

    def sweep(self) -> None:
        """Delete the thumbnails of images that were removed outside this service."""
        gallery = self.service.gallery
        if gallery is None or self.service.read_only:
            return
        stored = list(self.thumbnails.stored())
        for start in range(0, len(stored), 1000):
            ids = stored[start : start + 1000]
            self.thumbnails.take(set(ids) - {record.id for record in gallery.store.get(ids)[0]})


def routes(service: Service, gallery: GalleryService) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["gallery"], dependencies=[Depends(check_query)])
    _add_posts(router, service, gallery)
    _add_collection(router, service, gallery)
    _add_item(router, service, gallery)
    return router


def _add_posts(router: APIRouter, service: Service, gallery: GalleryService) -> None:
    add = partial(add_post, router, service.for_gallery)
    add(
        "/v1/identify",
        schemas.IdentifyRequest,
        schemas.list_of(schemas.Identification),
        gallery.identify,
        "Identify images: find the label of each, or unknown",
        404,
    )
    add(
        "/v1/search",
        schemas.SearchRequest,
        schemas.list_of(schemas.Hit),
        gallery.search,
        "Find the most similar enrolled images",
        404,
    )
    add("/v1/gallery", schemas.AddRequest, schemas.Added, gallery.add, "Enroll images", 404, 409)
    rename, undo = "Rename a label, or merge it into another", "Undo a removal"
    add("/v1/gallery/rename", schemas.RenameRequest, schemas.Updated, gallery.rename, rename, 404)
    add("/v1/gallery/undo", schemas.UndoRequest, schemas.Restored, gallery.restore, undo, 404, 409)


def _add_collection(router: APIRouter, service: Service, gallery: GalleryService) -> None:
    @router.get(
        "/v1/gallery", response_model=schemas.Items, responses=_QUERY, summary="List the enrolled images"
    )
    async def get_items(
        label: Label = None,
        after: Annotated[UUID | None, Query(description="`after` of the previous page.")] = None,
        limit: Annotated[int, Query(ge=1, le=_PAGE, description="Maximum number of images.")] = 100,
    ) -> Response:
        return await service.for_gallery.run(
            lambda: gallery.list(label, None if after is None else str(after), limit)
        )

    @router.post(
        "/v1/gallery/temporary",
        response_model=schemas.Made,
        responses=problems(403, 422, 503),
        summary="Make a gallery that is deleted when the service stops, unless it has one",
    )
    async def post_temporary() -> Response:
        return await service.for_gallery.run(gallery.make)

    @router.delete(
        "/v1/gallery", response_model=schemas.Removed, responses=_QUERY, summary="Remove a label's images"
    )
    async def delete_label(label: Annotated[str, Query(max_length=200)]) -> Response:
        return await service.for_gallery.run(lambda: gallery.remove(None, label))

    @router.get(
        "/v1/gallery/labels", response_model=schemas.Labelled, responses=_QUERY, summary="List the labels"
    )
    async def get_labels() -> Response:
        return await service.for_gallery.run(gallery.labels)

    @router.get(
        "/v1/gallery/duplicates",
        response_model=schemas.list_of(schemas.list_of(schemas.Hit)),
        responses=_QUERY,
        summary="Find groups of near-duplicates",
    )
    async def get_duplicates(
        within: Annotated[
            float | None,
            Query(ge=0, allow_inf_nan=False, description="Largest distance; a tenth of the threshold."),
        ] = None,
    ) -> Response:
        return await service.for_gallery.run(lambda: gallery.duplicates(within))

    @router.get(
        "/v1/gallery/map",
        response_model=schemas.GalleryMap,
        responses=_QUERY,
        summary="Map the gallery in two dimensions",
    )
    async def get_map(method: Method = "pca") -> Response:
        return await service.for_gallery.run(lambda: gallery.map(method))


def _add_item(router: APIRouter, service: Service, gallery: GalleryService) -> None:
    @router.patch(
        "/v1/gallery/{id}",
        response_model=schemas.Item,
        responses=_BODY,
        openapi_extra=body_of(schemas.UpdateRequest),
        summary="Change an image's label or metadata",
    )
    async def patch_item(id: str, request: Request) -> Response:
        return await service.for_gallery.answer(
            request, schemas.UpdateRequest, lambda body: gallery.update(id, body)
        )

    @router.delete(
        "/v1/gallery/{id}", response_model=schemas.Removed, responses=_QUERY, summary="Remove an image"
    )
    async def delete_item(id: str) -> Response:
        return await service.for_gallery.run(lambda: gallery.remove(id, None))

    @router.get(
        "/v1/gallery/{id}/thumbnail",
        response_class=Response,
        responses=_QUERY
        | {200: {"content": {MEDIA_TYPE: {}}}, 204: {"description": "The image has no thumbnail."}},
        summary="Get the thumbnail of an enrolled image",
    )
    async def get_thumbnail(id: str) -> Response:
        data = await service.for_gallery.pool.run(lambda: gallery.thumbnail(id))
        if data is None:
            return Response(status_code=204)
        # The id is computed from the pixels, so the thumbnail of an id never changes.
        return Response(data, media_type=MEDIA_TYPE, headers={"Cache-Control": "private, max-age=86400"})


def _hit(hit: Hit) -> dict[str, Any]:
    return {"id": hit.id, **hit.to_json(), "image": _file_name(hit.image)}


def _item(record: Record) -> dict[str, Any]:
    return {**asdict(record), "image": _file_name(record.image)}


def _file_name(path: str | None) -> str | None:
    """Return the file's name alone: clients must not learn the server's folders."""
    return None if path is None else os.path.basename(path)
