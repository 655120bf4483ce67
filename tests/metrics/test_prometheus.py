"""Metrics as Prometheus reads them: by the parser that its own client brings."""

import gc
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families

from ratekit import CircuitBreaker, ConfigurationError, Pipeline, RateLimiter, Retry
from ratekit import options as ratekit_options
from ratekit.metrics.prometheus import PipelineCollector
from ratekit.stores import MemoryStore
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge

Samples = dict[tuple[str, str, str], float]


def samples(text: str) -> Samples:
    """Return the values by name, key, and what else tells them apart."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            more = labels.get("le") or labels.get("state") or labels.get("window") or ""
            found[sample.name, labels["key"], more] = sample.value
    return found


def pipeline(clock: FakeClock) -> Pipeline:
    """Return one on this clock."""
    store = MemoryStore(clock=clock)
    return Pipeline(
        Retry(),
        CircuitBreaker(store=store),
        RateLimiter("5/second burst 5", store=store),
        clock=clock,
    )


@pytest.fixture
def registry() -> CollectorRegistry:
    """Give one with nothing in it."""
    return CollectorRegistry()


def test_what_is_exposed(
    edge: Edge, server: ApiServer, clock: FakeClock, registry: CollectorRegistry
) -> None:
    """Counters, the histogram of waits, and the state of now."""
    server.script("/items", Answer(503))
    one = pipeline(clock)
    registry.register(PipelineCollector(one, name="api"))
    with edge.client(one) as client:
        for _ in range(9):
            client.get(f"{server.url}/items")
    told = samples(generate_latest(registry).decode())
    key = server.url
    assert told["ratekit_calls_total", key, ""] == 9
    assert told["ratekit_attempts_total", key, ""] == 10
    assert told["ratekit_retries_total", key, ""] == 1
    assert told["ratekit_wait_seconds_count", key, ""] == 9
    assert told["ratekit_wait_seconds_bucket", key, "+Inf"] == 9
    assert 0 < told["ratekit_wait_seconds_bucket", key, "0.001"] < 9
    assert told["ratekit_wait_seconds_sum", key, ""] > 0.5
    assert told["ratekit_permits_left", key, ""] == 0
    assert told["ratekit_circuit_state", key, "closed"] == 1
    assert told["ratekit_circuit_state", key, "open"] == 0


def test_it_is_open_metrics_too(
    edge: Edge, server: ApiServer, clock: FakeClock, registry: CollectorRegistry
) -> None:
    """The stricter of the two formats."""
    one = pipeline(clock)
    registry.register(PipelineCollector(one))
    with edge.client(one) as client:
        client.get(f"{server.url}/items")
    write: Any = exposition.generate_latest  # it has no types
    text = write(registry).decode()
    read: Any = parser.text_string_to_metric_families
    assert "ratekit_calls" in {family.name for family in read(text)}


def test_labels_are_bounded(clock: FakeClock, registry: CollectorRegistry) -> None:
    """The busiest keys have one each, the rest have one together."""
    one = pipeline(clock)
    registry.register(PipelineCollector(one, max_keys=3))

    @one
    def work() -> None:
        return None

    for number in range(20):
        with ratekit_options(key=f"tenant-{number:02}"):
            for _ in range(number + 1):
                work()
    told = samples(generate_latest(registry).decode())
    keys = {key for name, key, _ in told if name == "ratekit_calls_total"}
    assert keys == {"tenant-18", "tenant-19", "other"} | {"tenant-17"}
    assert sum(told["ratekit_calls_total", key, ""] for key in keys) == 210
    assert (
        told["ratekit_wait_seconds_count", "other", ""] == told["ratekit_calls_total", "other", ""]
    )


def test_several_pipelines_are_one_collectors(
    edge: Edge, server: ApiServer, clock: FakeClock, registry: CollectorRegistry
) -> None:
    """A second collector would name every metric twice, which Prometheus cannot read."""
    one, other = pipeline(clock), pipeline(clock)
    collector = PipelineCollector(one, name="one")
    registry.register(collector)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(PipelineCollector(other, name="other"))
    collector.add(other, "other")
    with pytest.raises(ConfigurationError, match="name 'one': another pipeline has it"):
        collector.add(other, "one")
    for each in (one, other):
        with edge.client(each) as client:
            client.get(f"{server.url}/items")
    text = generate_latest(registry).decode()
    assert text.count("# TYPE ratekit_calls_total") == 1
    for name in ("one", "other"):
        assert f'ratekit_calls_total{{key="{server.url}",pipeline="{name}"}} 1.0' in text


def test_a_pipeline_that_is_gone_is_not_kept(clock: FakeClock, registry: CollectorRegistry) -> None:
    """And a scrape does not fail for it."""
    one = pipeline(clock)
    registry.register(PipelineCollector(one))
    del one
    gc.collect()
    assert samples(generate_latest(registry).decode()) == {}


class Quiet(WSGIRequestHandler):
    """Logs no request."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def scraped(registry: CollectorRegistry) -> Iterator[str]:
    """Give the URL at which the metrics are served."""
    with make_server("127.0.0.1", 0, make_wsgi_app(registry), handler_class=Quiet) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}/metrics"
        site.shutdown()
        thread.join()


def test_a_scrape_over_http(
    edge: Edge, server: ApiServer, clock: FakeClock, registry: CollectorRegistry, scraped: str
) -> None:
    """While the pipeline is at work."""
    one = pipeline(clock)
    registry.register(PipelineCollector(one))
    with edge.client(one) as client:
        client.get(f"{server.url}/items")
        text = httpx.get(scraped).text
    assert samples(text)["ratekit_calls_total", server.url, ""] == 1
