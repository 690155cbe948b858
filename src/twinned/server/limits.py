"""How much one request, and all of them together, may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the service; the defaults suit a machine with 2 GB to spare.

    Args:
        body_bytes: Of one request.
        bodies_bytes: Of all requests that are being read or answered; more is refused for the moment. Where
            there is a gallery, requests that need it may take half of them, and the other requests half.
        pixels: Of one image, as its header claims, before anything is decoded.
        images: In one request.
        read_seconds: In which a request must have arrived.
        wait_seconds: A request that could not be begun by then is refused. `twinned serve` waits as long for
            each answer of a Qdrant server.
        waiting: Requests that may wait for a thread, with and without the gallery each; more are refused for
            the moment.
        connections: Open at one time; more are cut.
        idle_seconds: A connection that has sent no whole request for so long is cut.
        stop_seconds: In which a stopping service finishes what it began; what is not done by then is answered
            with 503.
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
