"""Check responses against the OpenAPI document with Schemathesis, for valid and invalid requests."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

import twinned as tw
from twinned.server.app import create_app
from twinned.server.batching import EncoderPlan

from .conftest import SHAPES, png

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
negative_data_rejection = pytest.importorskip("schemathesis.specs.openapi.checks").negative_data_rejection
SchemathesisConfig = pytest.importorskip("schemathesis.config").SchemathesisConfig

# A schema cannot require that bytes are an image.
IMAGES = [png(shape, seed, 24) for shape in SHAPES for seed in range(2)]
schemathesis.openapi.format("binary", st.sampled_from(IMAGES))
schemathesis.openapi.format("byte", st.sampled_from([base64.b64encode(one).decode() for one in IMAGES]))


@pytest.fixture(scope="module")
def document(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """OpenAPI schema of the service, bound to its application."""
    model = tw.load(model_folder)
    gallery = model.gallery(tmp_path_factory.mktemp("schema") / "g.gallery")
    gallery.add(IMAGES, [f"label {place % 3}" for place in range(len(IMAGES))], progress=False)
    app = create_app(model, gallery, names=["testserver"], plan=EncoderPlan(model.encoder, 2, False))
    config = SchemathesisConfig()
    config.projects.default.analysis.constants.enabled = (
        False  # would send words of the source code as images
    )

    async def lasting(scope: Any, receive: Any, send: Any) -> None:
        """Keep the service running; schemathesis would restart it for each request."""
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})

    yield schemathesis.openapi.from_asgi("/openapi.json", lasting, config=config)
    gallery.close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_responses_conform_to_the_schema(document: Any, mode: str) -> None:
    failures = []
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) >= 17
    for operation in operations:
        if operation.path == "/v1/classify" and mode == "POSITIVE":
            continue  # its schema cannot exclude names from `support`

        @settings(max_examples=15, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
        @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
        def ask(case: Any) -> None:
            # Data that schemathesis considers invalid may be valid (a number as text in a union).
            case.call_and_validate(excluded_checks=[negative_data_rejection])

        try:
            ask()
        except Unsatisfiable:  # no invalid data exists for this operation
            assert mode == "NEGATIVE"
        except Exception as error:
            failures.append(f"{operation.label}: {error}")
    assert not failures, "\n\n".join(failures)
