"""Commands that draw: plot ..., explain."""

from __future__ import annotations
