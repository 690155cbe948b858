"""Routes that need the model alone."""

from __future__ import annotations

import base64

from .conftest import Client, png


def test_x(client: Client) -> None:
    c = client()
    r = c.post("/v1/verify", files={"a": ("a.png", png()), "b": ("b.png", png(seed=1))})
    print(r.status_code, r.text, r.headers)
    r = c.post("/v1/verify", json={"a": base64.b64encode(png()).decode(), "b": "xx"})
    print(r.status_code, r.text)
    r = c.post(
        "/v1/gallery",
        files=[("images", ("a.png", png())), ("images", ("b.png", b"text"))],
        data={"label": "anna"},
    )
    print(r.status_code, r.text)
    for url in (
        "/v1/gallery",
        "/v1/gallery/labels",
        "/v1/gallery/map",
        "/v1/model",
        "/healthz",
        "/metrics",
        "/openapi.json",
        "/",
        "/nope",
        "/v1/gallery/x",
    ):
        r = c.get(url)
