"""HTTP service for a model, and a web page that uses it. Extra ``serve``."""

from __future__ import annotations

from .app import create_app
from .lifecycle import serve
from .limits import Limits

__all__ = ["Limits", "create_app", "serve"]
