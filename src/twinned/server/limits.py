"""Limits of requests and connections."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the service. The defaults suit a machine with 2 GB of free memory.

    Args:
        body_bytes: Maximum bytes of one request.
        bodies_bytes: Maximum bytes of all requests in progress; further requests get 503. Requests that need
            the gallery and other requests may each use half, and all of it where there can be no gallery.
        pixels: Maximum pixels of one image, checked in its header before decoding.
        images: Maximum images of one request.
        read_seconds: Seconds in which a request must arrive.
        wait_seconds: Seconds after which a request that has not started gets 503; also the timeout of each
            request to a Qdrant server.
        waiting: Maximum number of requests waiting for a thread, with and without the gallery each; further
            requests get 503.
        connections: Maximum number of open connections; further ones are closed.
        idle_seconds: Seconds after which a connection that has not sent a complete request is closed.
        stop_seconds: Seconds that a stopping service takes to finish requests; unfinished ones get 503.
    """

    body_bytes: int = 32 * 1024 * 1024
    bodies_bytes: int = 256 * 1024 * 1024
    pixels: int = 50_000_000
    images: int = 64
    read_seconds: float = 30.0
    wait_seconds: float = 10.0
    waiting: int = 128
    connections: int = 1024
    idle_seconds: float = 15.0
    stop_seconds: float = 5.0
