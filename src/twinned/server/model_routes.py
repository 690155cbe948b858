"""Routes that need the model only: verify, embed, classify, and the description of the model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, Request, Response

from ..data.preprocessing import read_image
from ..gallery.gallery import Gallery
from ..gallery.results import Stats
from ..inference.model_card import card
from .openapi import body_of, problems
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

_ERRORS = problems(400, 408, 413, 415, 422, 503)
_GALLERY = ("count", "labels", "search", "indexed", "recall_at_10")  # null if the gallery does not answer


def routes(service: Service) -> APIRouter:
    """Make the routes."""
    model = service.model
    router = APIRouter(tags=["model"], dependencies=[Depends(check_query)])

    def verify(body: VerifyRequest) -> dict[str, Any]:
        service.metrics.images.inc(len(body.a) + 1)
        return model.verify(body.a, body.b, threshold=body.threshold).to_json()

    def embed(body: EmbedRequest) -> list[dict[str, Any]]:
        images = body.all()
        service.metrics.images.inc(len(images))
        vectors = model.embed_pixels(np.stack([read_image(image, model.spec) for image in images]))
        return [{"image": image.name, "vector": vector.tolist()} for image, vector in zip(images, vectors)]

    def classify(body: ClassifyRequest) -> list[dict[str, Any]]:
        images = body.all()
        service.metrics.images.inc(len(images) + sum(map(len, body.support.values())))
        return [one.to_json() for one in model.classify(images, body.support, threshold=body.threshold)]

    def facts(stats: Stats | None) -> dict[str, Any]:
        manifest = model.manifest
        internal = {"evidence", "identification", "references"}
        calibration = manifest.calibration.model_dump(mode="json", exclude=internal)
        gallery = None
        if service.gallery is not None:
            known = {} if stats is None else stats.to_json()
            gallery = {key: known.get(key) for key in _GALLERY}
        return {
            "name": model.folder.name,
            "encoder": manifest.encoder,
            "image": manifest.spec.model_dump(mode="json"),
            "embedding_size": manifest.embedding_size,
            "distance": manifest.distance,
            "head": manifest.head,
            "threshold": model.threshold,
            "calibration": calibration,
            "classes": len(manifest.classes),
            "data": manifest.data,
            "held_out": manifest.held_out,
            "recipe": manifest.recipe,
            "notes": manifest.notes,
            "licence": manifest.licence,
            "card": card(manifest),
            "gallery": gallery,
            "read_only": service.read_only,
            "limits": asdict(service.limits),
        }

    @router.post(
        "/v1/verify",
        response_model=Verdict,
        responses=_ERRORS,
        openapi_extra=body_of(VerifyRequest),
        summary="Verify that two images show the same class",
    )
    async def post_verify(request: Request) -> Response:
        return await service.for_model.answer(request, VerifyRequest, verify)

    @router.post(
        "/v1/embed",
        response_model=list[Vector],
        responses=_ERRORS,
        openapi_extra=body_of(EmbedRequest),
        summary="Embed images",
    )
    async def post_embed(request: Request) -> Response:
        return await service.for_model.answer(request, EmbedRequest, embed)

    @router.post(
        "/v1/classify",
        response_model=list_of(Prediction),
        responses=_ERRORS,
        openapi_extra=body_of(ClassifyRequest),
        summary="Classify images from as few as one example per class",
    )
    async def post_classify(request: Request) -> Response:
        return await service.for_model.answer(request, ClassifyRequest, classify)

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
