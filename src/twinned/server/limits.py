"""Limits of requests and connections."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the service. The defaults suit a machine with 2 GB of free memory."""

    body_bytes: int = 32 * 1024 * 1024  # of one request
    # Of all requests in progress; further ones get 503. Requests that need the gallery and other requests may
    # each use half, and all of it where there can be no gallery.
    bodies_bytes: int = 256 * 1024 * 1024
    pixels: int = 50_000_000  # of one image, checked in its header before decoding
    images: int = 64  # of one request
    read_seconds: float = 30.0  # in which a request must arrive
    wait_seconds: float = 10.0  # until a request that has not started, or one to a Qdrant server, gets 503
    waiting: int = 128  # requests that wait for a thread, with and without the gallery each; others get 503
    connections: int = 1024  # open ones; further ones are closed
    idle_seconds: float = 15.0  # until a connection that has not sent a complete request is closed
    stop_seconds: float = 5.0  # for requests of a service that stops; unfinished ones get 503
