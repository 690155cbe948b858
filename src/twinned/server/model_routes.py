"""Routes that need the model only: verify, embed, classify, and the description of the model."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, Response

from ..data.preprocessing import read_image
from ..gallery.gallery import Gallery
from ..gallery.results import Stats
from ..inference.model_card import card
from .openapi import add_post, problems
from .schemas import (
    ClassifyRequest,
    EmbedRequest,
    ModelFacts,
    Prediction,
    Vector,
    Verdict,
    VerifyRequest,
    list_of,
)
from .service import Service
from .uploads import check_query

_GALLERY = ("count", "labels", "search", "indexed", "recall_at_10")  # null if the gallery does not answer


def routes(service: Service) -> APIRouter:
    """Make the routes."""
    model = service.model
    router = APIRouter(tags=["model"], dependencies=[Depends(check_query)])

    def post_verify(body: VerifyRequest) -> dict[str, Any]:
        service.metrics.images.inc(len(body.a) + 1)
        return model.verify(body.a, body.b, threshold=body.threshold).to_json()

    def post_embed(body: EmbedRequest) -> list[dict[str, Any]]:
        images = body.all()
        service.metrics.images.inc(len(images))
        vectors = model.embed_pixels(np.stack([read_image(image, model.spec) for image in images]))
        return [{"image": image.name, "vector": vector.tolist()} for image, vector in zip(images, vectors)]

    def post_classify(body: ClassifyRequest) -> list[dict[str, Any]]:
        images = body.all()
        service.metrics.images.inc(len(images) + sum(map(len, body.support.values())))
        return [one.to_json() for one in model.classify(images, body.support, threshold=body.threshold)]

    def facts(stats: Stats | None) -> dict[str, Any]:
        manifest = model.manifest
        internal = {"evidence", "identification", "references"}
        stored = manifest.stored_calibration
        gallery = None
        if service.gallery is not None:
            known = {} if stats is None else stats.to_json()
            gallery = {key: known.get(key) for key in _GALLERY}
        kept = (
            "encoder",
            "embedding_size",
            "distance",
            "head",
            "data",
            "held_out",
            "recipe",
            "notes",
            "licence",
        )
        return {name: getattr(manifest, name) for name in kept} | {
            "name": model.folder.name,
            "image": manifest.spec.model_dump(mode="json"),
            "threshold": manifest.threshold,
            "calibration": stored and stored.model_dump(mode="json", exclude=internal),
            "classes": len(manifest.classes),
            "card": card(manifest),
            "gallery": gallery,
            "read_only": service.read_only,
            "limits": asdict(service.limits),
        }

    add = partial(add_post, router, service.for_model)
    add("/v1/verify", VerifyRequest, Verdict, post_verify, "Verify that two images show the same class")
    add("/v1/embed", EmbedRequest, list[Vector], post_embed, "Embed images")
    summary = "Classify images from as few as one example per class"
    add("/v1/classify", ClassifyRequest, list_of(Prediction), post_classify, summary)

    @router.get(
        "/v1/model",
        response_model=ModelFacts,
        responses=problems(422, 503),
        summary="Describe the model, its metrics, the gallery and the limits",
    )
    async def get_model() -> Response:
        stats = await service.about_gallery(Gallery.stats)
        return await service.for_model.run(lambda: facts(stats))

    return router
