"""Routes that need the model alone: verify, embed, classify, and what the model is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, Request, Response

from ..data.preprocessing import read_image
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
)
from .service import Service
from .uploads import check_query

_ERRORS = problems(400, 408, 413, 415, 422, 503)


def routes(service: Service) -> APIRouter:
    """The routes."""
    model = service.model
    router = APIRouter(tags=["model"], dependencies=[Depends(check_query)])

    def verify(asked: VerifyRequest) -> dict[str, Any]:
        service.metrics.images.inc(len(asked.a) + 1)
        return model.verify(asked.a, asked.b, threshold=asked.threshold).to_json()

    def embed(asked: EmbedRequest) -> list[dict[str, Any]]:
        images = asked.all()
        service.metrics.images.inc(len(images))
        vectors = model.embed_pixels(np.stack([read_image(image, model.spec) for image in images]))
        return [{"image": image.name, "vector": vector.tolist()} for image, vector in zip(images, vectors)]

    def classify(asked: ClassifyRequest) -> list[dict[str, Any]]:
        images = asked.all()
        service.metrics.images.inc(len(images) + sum(map(len, asked.support.values())))
        return [g.to_json() for g in model.classify(images, asked.support, threshold=asked.threshold)]

    def facts() -> dict[str, Any]:
        said = model.manifest
        apart = {"evidence", "identification", "references"}
        calibration = said.calibration.model_dump(mode="json", exclude=apart)
        gallery = None
        if service.gallery is not None:
            stats = service.gallery.stats().to_json()
            gallery = {key: stats[key] for key in ("count", "labels", "search", "indexed", "recall_at_10")}
        return {
            "name": model.folder.name,
            "encoder": said.encoder,
            "image": said.spec.model_dump(mode="json"),
            "embedding_size": said.embedding_size,
            "distance": said.distance,
            "head": said.head,
            "threshold": model.threshold,
            "calibration": calibration,
            "classes": len(said.classes),
            "data": said.data,
            "held_out": said.held_out,
            "recipe": said.recipe,
            "notes": said.notes,
            "licence": said.licence,
            "card": card(said),
            "gallery": gallery,
            "read_only": service.read_only,
            "limits": asdict(service.limits),
        }

    @router.post(
        "/v1/verify",
        response_model=Verdict,
        responses=_ERRORS,
        openapi_extra=body_of(VerifyRequest),
        summary="Whether two images show the same thing",
    )
    async def post_verify(request: Request) -> Response:
        return await service.for_model.answer(request, VerifyRequest, verify)

    @router.post(
        "/v1/embed",
        response_model=list[Vector],
        responses=_ERRORS,
        openapi_extra=body_of(EmbedRequest),
        summary="The embeddings of images",
    )
    async def post_embed(request: Request) -> Response:
        return await service.for_model.answer(request, EmbedRequest, embed)

    @router.post(
        "/v1/classify",
        response_model=list[Prediction],
        responses=_ERRORS,
        openapi_extra=body_of(ClassifyRequest),
        summary="Which class images show, from as few as one example a class",
    )
    async def post_classify(request: Request) -> Response:
        return await service.for_model.answer(request, ClassifyRequest, classify)

    @router.get(
        "/v1/model",
        response_model=ModelFacts,
        responses=problems(422, 503),
        summary="The model, its figures, the gallery and the limits",
    )
    async def get_model() -> Response:
        return await service.for_gallery.run(facts)  # counts the gallery's images

    return router
