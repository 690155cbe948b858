"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = frozenset(("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"))


class Metrics:
    """What the service counts; each service has its own.

    Args:
        pending: Requests begun or waiting.
        enrolled: Whether there is a gallery, whose images are counted.
        together: Whether images of several requests are embedded together.
    """

    def __init__(self, *, pending: Callable[[], int], enrolled: bool, together: bool) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "twinned_requests", "Requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "twinned_request_seconds",
            "From a request's head to its answer.",
            ["route"],
            buckets=(0.002, 0.005, 0.01, 0.02, 0.04, 0.1, 0.25, 1, 5, 30),
            registry=self.registry,
        )
        self.images = Counter("twinned_images", "Images received.", registry=self.registry)
        waiting = Gauge("twinned_pending_requests", "Requests begun or waiting.", registry=self.registry)
        waiting.set_function(pending)
        joined = Gauge(
            "twinned_batching",
            "1 if images of several requests are embedded together.",
            registry=self.registry,
        )
        joined.set(together)
        self._enrolled = None
        if enrolled:
            self._enrolled = Gauge("twinned_gallery_images", "Images enrolled.", registry=self.registry)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer. ``route`` is a template of ours, never what the client sent."""
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self, enrolled: float) -> bytes:
        """Return all figures, in Prometheus' format.

        Args:
            enrolled: Images in the gallery; NaN where the gallery did not answer.
        """
        if self._enrolled is not None:
            self._enrolled.set(enrolled)
        return generate_latest(self.registry)
