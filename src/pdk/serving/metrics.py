"""What a model's server counts and times, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pdk.environment import shared_metrics

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAGES = ("queue", "preprocess", "inference", "postprocess", "handler")  # handler: all of them, or what has no stages


class Metrics:
    """One set for a model."""

    def __init__(self, model: str) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("pdk_requests", "requests by protocol and status", ["model", "protocol", "code"], registry=self._registry)
        self.latency = Histogram(
            "pdk_request_seconds",
            "from a request's last byte to its answer",
            ["model", "protocol"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        stages = Histogram("pdk_stage_seconds", "time in each stage", ["model", "stage"], buckets=BUCKETS, registry=self._registry)
        self.stages = {stage: stages.labels(model, stage) for stage in STAGES}
        sizes = Histogram("pdk_batch_instances", "instances that were answered together", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64, 128),
                          registry=self._registry)  # fmt: skip
        self.batch = sizes.labels(model)
        self.waiting = Gauge(
            "pdk_requests_waiting", "requests that wait for the model", ["model"], registry=self._registry, multiprocess_mode="livesum"
        ).labels(model)
        self.model = model
        self._counted: dict[tuple[str, int], Counter] = {}
        self._timed: dict[str, Histogram] = {}

    def answered(self, protocol: str, code: int, seconds: float) -> None:
        """Count a request."""
        if (counted := self._counted.get((protocol, code))) is None:
            counted = self._counted[protocol, code] = self.requests.labels(self.model, protocol, str(code))
            self._timed[protocol] = self.latency.labels(self.model, protocol)
        counted.inc()
        self._timed[protocol].observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """Return the exposition of all workers and its content type."""
        if folder := shared_metrics():
            return together(folder)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


def together(folder: str) -> tuple[bytes, str]:
    """Return the exposition of all workers that keep their counts in a folder, and its content type."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
