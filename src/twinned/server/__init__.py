"""A model at work over HTTP, and a page for people who do not write Python. Extra ``serve``.

application  the parts put together: `create_app`
running      a socket, a process, a graceful stop: `serve`
guard        who may ask: hosts, origins, the token; the headers of every answer
uploads      requests: multipart or JSON, limits before allocation
schemas      what requests hold and what answers give
asking       /v1/verify, embed, classify, model
enrolled     /v1/identify, search, gallery
batching     whether requests that arrive together are embedded together: measured at start
work         the threads that do it, and saying so when there is too much
thumbnails   small pictures of what is enrolled
maps         the gallery in two dimensions
problems     errors as problem+json
metrics      figures for Prometheus
static/      the page: plain HTML, CSS and JavaScript
"""

from __future__ import annotations

from .app import create_app
from .lifecycle import serve
from .limits import Limits

__all__ = ["Limits", "create_app", "serve"]
