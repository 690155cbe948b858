"""Routes that need the model only: verify, explain, embed, classify, and the description of the model."""

from __future__ import annotations

import base64
import io
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, Response
from PIL import Image

from ..data.faces.photographs import MIN_FACE, align, search
from ..data.faces.quality import assess
from ..data.images import Pixels, open_image
from ..data.preprocessing import read_image
from ..errors import ImageError
from ..evaluation.advice import on_model
from ..gallery.gallery import Gallery
from ..gallery.results import Stats
from ..inference.model_card import card
from . import schemas
from .openapi import add_route, problems
from .service import Service
from .uploads import check_query

_GALLERY = ("count", "labels", "search", "indexed", "recall_at_10")  # null if the gallery does not answer


class ModelService:
    """Answers of the model."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def verify(self, body: schemas.VerifyRequest) -> dict[str, Any]:
        """Verify that two images show the same class."""
        model = self.service.model.with_faces(body.faces)
        return model.verify(body.a, body.b, threshold=body.threshold).to_json()

    def explain(self, body: schemas.ExplainRequest) -> dict[str, Any]:
        """Explain a comparison: the regions of two images that match."""
        model = self.service.model.with_faces(body.faces)
        found, threshold = model.explain(body.a, body.b), model.manifest.threshold
        sides = (found.left, found.left_share), (found.right, found.right_share)
        return {
            "method": found.method,
            "distance": found.distance,
            "threshold": threshold,
            "weak": found.is_weak(threshold),
            "text": found.text(threshold),
            "images": [
                {
                    "png": _png(pixels),
                    "width": pixels.shape[1],
                    "height": pixels.shape[0],
                    "share": share.tolist(),
                }
                for pixels, share in sides
            ],
            "links": [{"left": a, "right": b, "match": match} for a, b, match in found.strongest()],
        }

    def faces(self, body: schemas.FacesRequest) -> dict[str, Any]:
        """Find the faces of a photograph, with their quality, and cut them out."""
        image, spec = open_image(body.image), self.service.model.spec
        found = search(image, every=True, min_face=body.min_face)
        if not found:
            raise ImageError(
                body.image.name,
                f"no face was found. Choose a photograph with a face of at least {body.min_face or MIN_FACE}"
                " pixels that looks towards the camera",
            )
        return {
            "image": body.image.name,
            "width": image.width,
            "height": image.height,
            "faces": [
                {
                    "box": face.box,
                    "score": face.score,
                    "quality": assess(image, face)._asdict(),
                    "crop": _png(align(image, face, max(spec.width, spec.height))),
                }
                for face in found
            ],
        }

    def embed(self, body: schemas.EmbedRequest) -> list[dict[str, Any]]:
        """Embed images."""
        images, model = body.all(), self.service.model.with_faces(body.faces)
        vectors = model.embed_pixels(np.stack([read_image(image, model.spec) for image in images]))
        return [{"image": image.name, "vector": vector.tolist()} for image, vector in zip(images, vectors)]

    def classify(self, body: schemas.ClassifyRequest) -> list[dict[str, Any]]:
        """Classify images from as few as one example per class."""
        images, model = body.all(), self.service.model.with_faces(body.faces)
        return [one.to_json() for one in model.classify(images, body.support, threshold=body.threshold)]


def routes(service: Service) -> APIRouter:
    """Make the routes."""
    router, model = APIRouter(tags=["model"], dependencies=[Depends(check_query)]), ModelService(service)
    add = partial(add_route, router, service.for_model, "POST")
    add("/v1/verify", schemas.Verdict, model.verify)
    add("/v1/explain", schemas.Explanation, model.explain)
    add("/v1/faces", schemas.FoundFaces, model.faces)
    add("/v1/embed", schemas.list_of(schemas.Vector), model.embed)
    add("/v1/classify", schemas.list_of(schemas.Prediction), model.classify)

    @router.get(
        "/v1/model",
        response_model=schemas.ModelFacts,
        responses=problems(422, 503),
        summary="Describe the model, its metrics, the gallery and the limits",
    )
    async def get_model() -> Response:
        stats = await service.about_gallery(Gallery.stats)
        return await service.for_model.run(lambda: _facts(service, stats))

    return router


def _png(pixels: Pixels) -> str:
    """Encode an image as PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _facts(service: Service, stats: Stats | None) -> dict[str, Any]:
    """Describe the model, its gallery and the service."""
    model = service.model
    manifest = model.manifest
    internal = {"evidence", "identification", "references"}
    stored = manifest.stored_calibration
    gallery = None
    if service.gallery is not None:
        known = {} if stats is None else stats.to_json()
        gallery = {key: known.get(key) for key in _GALLERY}
        gallery["temporary"] = service.temporary is not None
    kept = ("encoder", "embedding_size", "distance", "head", "data", "held_out", "recipe", "notes", "licence")
    return {name: getattr(manifest, name) for name in kept} | {
        "name": model.folder.name,
        "image": manifest.spec.model_dump(mode="json"),
        "threshold": manifest.threshold,
        "calibration": stored and stored.model_dump(mode="json", exclude=internal),
        "classes": len(manifest.classes),
        "card": card(manifest),
        "advice": on_model(stored, unseen=None if stored is None else stored.unseen_classes),
        "gallery": gallery,
        "read_only": service.read_only,
        "limits": asdict(service.limits),
    }
