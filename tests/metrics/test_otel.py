"""What OpenTelemetry is told."""

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ratekit import Pipeline, RateLimiter, Retry
from ratekit.events import CallEnded
from ratekit.metrics.otel import Telemetry
from ratekit.stores import MemoryStore
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge


class Told:
    """What was told, by the name of the metric."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.listener = Telemetry(meter_provider=MeterProvider([self.reader]))

    def points(self) -> dict[str, list[Any]]:
        """Return the data points."""
        data: Any = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def told() -> Told:
    """Give a listener and what reads it."""
    return Told()


def pipeline(clock: FakeClock, told: Told, **limit: Any) -> Pipeline:
    """Return one on this clock."""
    limiter = RateLimiter("1/second", store=MemoryStore(clock=clock), **limit)
    return Pipeline(Retry(), limiter, clock=clock, on_event=told.listener)


def test_metrics_follow_the_conventions(
    edge: Edge, server: ApiServer, clock: FakeClock, told: Told
) -> None:
    """Names, units and attributes."""
    server.script("/items", Answer(503))
    with edge.client(pipeline(clock, told, max_wait=5)) as client:
        client.get(f"{server.url}/items?api_key=secret")
        server.script("/items", Answer(429, [("Retry-After", "60")]))
        client.get(f"{server.url}/items")
        with pytest.raises(edge.error):
            client.get(f"{server.url}/items")
    points = told.points()
    port = int(server.url.rpartition(":")[2])
    where = {"server.address": "127.0.0.1", "server.port": port}
    attempts = {
        point.attributes["http.response.status_code"]: point
        for point in points["ratekit.client.attempt.duration"]
    }
    assert dict(attempts[200].attributes) == {
        **where, "http.request.method": "GET", "http.response.status_code": 200,
    }  # fmt: skip
    assert attempts[503].attributes["error.type"] == "503"
    assert attempts[503].count == 1
    (refusal,) = points["ratekit.client.refusals"]
    assert (refusal.value, refusal.attributes["error.type"]) == (1, "RateLimited")
    assert sum(point.count for point in points["ratekit.client.call.duration"]) == 3
    assert points["ratekit.client.permit.wait.duration"][0].sum > 0


def test_attempts_are_events_of_the_current_span(
    edge: Edge, server: ApiServer, clock: FakeClock, told: Told
) -> None:
    """So that a trace says why a call was slow."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    server.script("/items", Answer(503))
    with edge.client(pipeline(clock, told)) as client:
        with provider.get_tracer("test").start_as_current_span("job"):
            client.get(f"{server.url}/items")
        assert not trace.get_current_span().is_recording()
        client.get(f"{server.url}/items")
    (span,) = exporter.get_finished_spans()
    names = [event.name for event in span.events]
    assert names.count("ratekit.attempt_ended") == 2
    assert "ratekit.retried" in names
    assert "ratekit.permit_waited" in names
    first: Any = span.events[0].attributes
    assert (first["ratekit.status"], first["ratekit.verdict"]) == (503, "failed")


def test_of_many_hosts_the_rest_have_no_address(told: Told) -> None:
    """Attributes are bounded, whatever a program asks."""
    for number in range(300):
        told.listener(
            CallEnded(f"https://h{number}.example", "GET", 200, "", "server", 1, 0.1, 0.0)
        )
    points = told.points()["ratekit.client.call.duration"]
    assert len(points) == 101
    assert sum(point.count for point in points) == 300
