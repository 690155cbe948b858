"""HTTP service for a model, and a web page that uses it. Extra ``serve``.

app             application: routes, page and errors (`create_app`)
lifecycle       socket, connections, graceful stop (`serve`)
security        allowed hosts and origins, token, response headers
uploads         request bodies: multipart or JSON, limits before allocation
schemas         requests and responses
model_routes    /v1/verify, explain, faces, embed, classify, model
gallery_routes  /v1/identify, search, gallery
service         model, gallery and threads shared by the routes
batching        batches of concurrent requests, on a GPU
thread_pool     bounded worker threads
thumbnails      thumbnails of enrolled images
embedding_map   map of the gallery in two dimensions
openapi         OpenAPI document
problems        errors as problem+json
metrics         metrics for Prometheus
static/         page: plain HTML, CSS and JavaScript
"""

from __future__ import annotations

from .app import create_app
from .lifecycle import serve
from .limits import Limits

__all__ = ["Limits", "create_app", "serve"]
