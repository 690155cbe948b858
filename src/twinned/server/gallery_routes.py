"""Routes that need the gallery: identify, search, and manage the enrolled images."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from ..errors import DataError
from ..gallery.results import Hit, Removed
from ..gallery.store import Record
from ..inference.inputs import queries_of
from . import schemas
from .embedding_map import Maps, Method
from .openapi import add_route, problems
from .problems import Problem
from .service import Service
from .thumbnails import MEDIA_TYPE, Thumbnails
from .uploads import check_query

_UNDO_SECONDS = 600.0
_UNDO_KEPT = 32
_MOST_COMPARED = 20_000  # images in which near-duplicates are found in some 15 seconds

Label = Annotated[str | None, Query(max_length=200, description="Label to list; all by default.")]
After = Annotated[UUID | None, Query(description="`after` of the previous page.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Maximum number of images.")]
Within = Annotated[
    float | None,
    Query(ge=0, allow_inf_nan=False, description="Largest distance; a tenth of the threshold."),
]


class _Removal(NamedTuple):
    at: float
    removed: Removed
    thumbnails: dict[str, bytes]


class GalleryService:
    """Jobs of the routes: the gallery with its thumbnails, maps and recent removals."""

    def __init__(self, service: Service) -> None:
        self.service = service
        address = None if service.gallery is None else service.gallery.store.address
        self.thumbnails = Thumbnails(address, read_only=service.read_only)
        self._undo: dict[str, _Removal] = {}  # the oldest first
        self._maps = Maps(service.opened)

    # ---- query

    def identify(self, body: schemas.IdentifyRequest) -> list[dict[str, Any]]:
        """Identify images: find the label of each, or unknown."""
        images = body.all()
        self.service.opened()
        queries, spec = queries_of(images, self.service.model.with_faces(body.faces).spec)
        gallery = self.service.opened(spec.faces)
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
        """Find the most similar enrolled images."""
        hits = self.service.opened(body.faces).search(
            body.image, body.k, id=body.id, exact=body.exact, label=body.label, where=body.where
        )
        return [_hit(hit) for hit in hits]

    def duplicates(self, within: Within = None) -> list[list[dict[str, Any]]]:
        """Find groups of near-duplicates."""
        gallery = self.service.opened()
        if gallery.count() > _MOST_COMPARED:
            raise Problem(
                422,
                f"This gallery has more than {_MOST_COMPARED:,} images, so this would take minutes. Stop the"
                " service, and run: twinned gallery duplicates",
            )
        return [[_hit(hit) for hit in group] for group in gallery.duplicates(within)]

    def map(self, method: Method = "pca") -> dict[str, Any]:
        """Map the gallery in two dimensions."""
        return vars(self._maps.get(method))

    # ---- read

    def items(self, label: Label = None, after: After = None, limit: Limit = 100) -> dict[str, Any]:
        """List the enrolled images."""
        page = self.service.opened().list(
            label=label, after=None if after is None else str(after), limit=limit
        )
        return {"count": page.count, "items": [_item(one) for one in page.items], "after": page.after}

    def labels(self) -> dict[str, Any]:
        """List the labels."""
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
        """Make a gallery that is deleted when the service stops, unless it has one."""
        gallery = self.service.make_gallery()
        return {"count": gallery.count(), "temporary": self.service.temporary is not None}

    def add(self, body: schemas.AddRequest) -> dict[str, Any]:
        """Enroll images."""
        gallery, images = self.service.changing(body.faces), body.all()
        usable = [image for image in images if image.refused is None]
        added = gallery.add(usable, body.label, metadata=body.metadata, progress=False)
        unreadable = [*(image.refused for image in images if image.refused), *added.unreadable]
        if len(unreadable) == len(images):
            raise unreadable[0] if len(images) == 1 else DataError("; ".join(map(str, unreadable)))
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
        """Change an image's label or metadata."""
        gallery = self.service.changing()
        if body.label is None and body.metadata is None:
            raise Problem(422, "The request changes nothing. Send label, metadata, or both")
        return _item(gallery.update(id, label=body.label, metadata=body.metadata))

    def rename(self, body: schemas.RenameRequest) -> dict[str, Any]:
        """Rename a label, or merge it into another."""
        return {"updated": self.service.changing().rename(body.label, body.new)}

    def remove(self, id: str) -> dict[str, Any]:
        """Remove an image."""
        return self._removed(self.service.changing().remove(id))

    def remove_label(self, label: Annotated[str, Query(max_length=200)]) -> dict[str, Any]:
        """Remove a label's images."""
        return self._removed(self.service.changing().remove(label=label))

    def _removed(self, removed: Removed) -> dict[str, Any]:
        key, now = secrets.token_urlsafe(12), time.monotonic()
        self._undo[key] = _Removal(now, removed, self.thumbnails.take(one.id for one in removed.items))
        for old, removal in list(self._undo.items()):
            if now - removal.at > _UNDO_SECONDS or len(self._undo) > _UNDO_KEPT:
                self._undo.pop(old, None)
        return {"removed": len(removed.items), "count": self.service.opened().count(), "undo": key}

    def restore(self, body: schemas.UndoRequest) -> dict[str, Any]:
        """Undo a removal."""
        gallery = self.service.changing()
        removal = self._undo.get(body.undo)
        if removal is None or time.monotonic() - removal.at > _UNDO_SECONDS:
            raise Problem(404, "This removal can no longer be undone. Enroll the images again")
        gallery.restore(removal.removed)
        self._undo.pop(body.undo, None)
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


def routes(service: Service) -> APIRouter:
    """Make the routes."""
    gallery = GalleryService(service)
    gallery.sweep()
    router = APIRouter(tags=["gallery"], dependencies=[Depends(check_query)])
    lane = service.for_gallery
    add = partial(add_route, router, lane)
    groups = schemas.list_of(schemas.list_of(schemas.Hit))
    add("POST", "/v1/identify", schemas.list_of(schemas.Identification), gallery.identify, 404)
    add("POST", "/v1/search", schemas.list_of(schemas.Hit), gallery.search, 404)
    add("POST", "/v1/gallery", schemas.Added, gallery.add, 404, 409)
    add("POST", "/v1/gallery/rename", schemas.Updated, gallery.rename, 404)
    add("POST", "/v1/gallery/undo", schemas.Restored, gallery.restore, 404, 409)
    add("GET", "/v1/gallery", schemas.Items, gallery.items, 404)
    add("POST", "/v1/gallery/temporary", schemas.Made, gallery.make)
    add("DELETE", "/v1/gallery", schemas.Removed, gallery.remove_label, 404)
    add("GET", "/v1/gallery/labels", schemas.Labelled, gallery.labels, 404)
    add("GET", "/v1/gallery/duplicates", groups, gallery.duplicates, 404)
    add("GET", "/v1/gallery/map", schemas.GalleryMap, gallery.map, 404)
    add("PATCH", "/v1/gallery/{id}", schemas.Item, gallery.update, 404)
    add("DELETE", "/v1/gallery/{id}", schemas.Removed, gallery.remove, 404)

    @router.get(
        "/v1/gallery/{id}/thumbnail",
        response_class=Response,
        responses=problems(404, 422, 503)
        | {200: {"content": {MEDIA_TYPE: {}}}, 204: {"description": "The image has no thumbnail."}},
        summary="Get the thumbnail of an enrolled image",
    )
    async def get_thumbnail(id: str) -> Response:
        data = await lane.pool.run(lambda: gallery.thumbnail(id))
        if data is None:
            return Response(status_code=204)
        # The id is computed from the pixels, so the thumbnail of an id never changes.
        return Response(data, media_type=MEDIA_TYPE, headers={"Cache-Control": "private, max-age=86400"})

    return router


def _hit(hit: Hit) -> dict[str, Any]:
    return {"id": hit.id, **hit.to_json(), "image": _file_name(hit.image)}


def _item(record: Record) -> dict[str, Any]:
    return {**asdict(record), "image": _file_name(record.image)}


def _file_name(path: str | None) -> str | None:
    """Return the file's name alone: clients must not learn the server's folders."""
    return None if path is None else os.path.basename(path)
