"""The command that serves a model over HTTP."""

from __future__ import annotations
