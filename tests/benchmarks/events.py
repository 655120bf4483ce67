"""What it costs to be visible, in microseconds a request, with no server behind the client.

Through requests and `Pipeline(Retry(), RateLimiter(...))`, in pairs that alternate one by one:

- *counting*: the pipeline as it is, over one that neither counts nor has listeners to look for
- *Prometheus*: with a collector registered (a scrape every 200 requests) over without
- *one listener*: with a listener that does nothing over without
- *OpenTelemetry*: with metrics and no span over without

Promised: counting, which is what everybody pays, at most 2 us; Prometheus at most 10 us.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest

from ratekit import Pipeline, RateLimiter, Retry
from ratekit.call import Call, Outcome, Proceed
from ratekit.metrics.otel import Telemetry
from ratekit.metrics.prometheus import PipelineCollector
from ratekit.requests import RateKitAdapter
from tests.benchmarks.measure import Finding, Settings, load, print_table
from tests.benchmarks.overhead import COLUMNS, Get, Offline, pairs

__all__ = ["run"]

_SCRAPE_EVERY = 200
_URL = "http://127.0.0.1/items"


class _Blind(Pipeline):
    """A pipeline that looks at nothing."""

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        for policy in reversed(self.policies):
            proceed = _inside(policy, proceed)
        return proceed(call)


def _inside(policy: Any, proceed: Proceed) -> Proceed:
    run = policy.run
    return lambda call: run(call, proceed)


@contextmanager
def _client(pipeline: Pipeline) -> Iterator[Get]:
    with requests.Session() as session:
        session.mount("http://", RateKitAdapter(pipeline, adapter=Offline()))
        yield session.get


def _made(kind: type[Pipeline] = Pipeline, **settings: Any) -> Pipeline:
    return kind(Retry(), RateLimiter("1000000000/second burst 1000"), **settings)


def _scraped(pipeline: Pipeline, get: Get) -> Get:
    registry = CollectorRegistry()
    registry.register(PipelineCollector(pipeline))
    count = 0

    def scraped(url: str) -> Any:
        nonlocal count
        count += 1
        if count % _SCRAPE_EVERY == 0:
            generate_latest(registry)
        return get(url)

    return scraped


def run(settings: Settings) -> list[Finding]:
    """Measure the pairs."""
    count = settings.pick(20_000, 3000)
    scraped = _made()
    subjects: list[tuple[str, Pipeline, Pipeline, float | None]] = [
        ("counting", _made(_Blind), _made(), 2),
        ("Prometheus", _made(), scraped, 10),
        ("one listener", _made(), _made(on_event=lambda event: None), None),
        ("OpenTelemetry", _made(), _made(on_event=Telemetry(meter_provider=MeterProvider())), None),
    ]
    rows, findings = [], []
    for name, plain, watched, bound in subjects:
        with _client(plain) as one, _client(watched) as other:
            get = _scraped(watched, other) if watched is scraped else other
            delta = pairs(one, get, _URL, count)
        rows.append(delta.row(name))
        if bound is not None:
            findings.append(Finding(f"{name}: added", delta.added, bound, "us"))
    print(f"us a request, no network; load average {load()}")
    print_table([COLUMNS[0], "without", "with", *COLUMNS[3:]], rows)
    return findings
