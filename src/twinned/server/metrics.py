"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = frozenset(("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"))


class Metrics:
    """Metrics of one service; ``pending`` returns the number of requests begun or waiting."""

    def __init__(self, *, pending: Callable[[], int], batching: bool) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        labels = ["route", "method", "status"]
        self._requests = Counter("twinned_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "twinned_request_seconds",
            "Seconds from the request's headers to the response.",
            ["route"],
            buckets=(0.002, 0.005, 0.01, 0.02, 0.04, 0.1, 0.25, 1, 5, 30),
            registry=registry,
        )
        self.images = Counter("twinned_images", "Images received.", registry=registry)
        waiting = Gauge("twinned_pending_requests", "Requests begun or waiting.", registry=registry)
        waiting.set_function(pending)
        batched = Gauge("twinned_batching", "1 if requests share batches of the encoder.", registry=registry)
        batched.set(batching)
        self._enrolled: Gauge | None = None

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one response. ``route`` is a template of the application, never text from the client."""
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self, enrolled: float | None) -> bytes:
        """Return all metrics, with the number of images enrolled: NaN if unknown, None without a gallery."""
        if enrolled is not None:
            if self._enrolled is None:
                self._enrolled = Gauge("twinned_gallery_images", "Images enrolled.", registry=self._registry)
            self._enrolled.set(enrolled)
        return generate_latest(self._registry)
