"""A secret in a request is nowhere else: not in logs, events, metrics, errors or memcached."""

import logging
import pickle
import socket
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from ratekit import Cache, CircuitBreaker, Config, Dedup, Pipeline, RateLimiter, Retry, events
from ratekit.keys import by_credential
from ratekit.metrics.otel import Telemetry
from ratekit.metrics.prometheus import PipelineCollector
from ratekit.stores import MemcachedStore
from ratekit.testing import Answer, ApiServer
from tests.conftest import Memcached, StartMemcached
from tests.contracts.edges import Edge

SECRET = "hunter2-correct-horse"  # noqa: S105  (nobody's)
HEADERS = {"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET, "Cookie": f"sid={SECRET}"}
KEPT = ("Cache-Control", "max-age=60")


def kept_in(memcached: Memcached) -> bytes:
    """Return every key and value that memcached keeps."""
    address: Any = memcached.address
    with socket.create_connection(address, 5) as wire:
        file = wire.makefile("rb")
        wire.sendall(b"lru_crawler metadump all\r\n")
        keys = []
        while (line := file.readline()) not in (b"END\r\n", b""):
            keys.append(line.partition(b" ")[0].removeprefix(b"key="))
        found = b"\n".join(keys)
        for key in keys:
            wire.sendall(b"mg " + key + b" v\r\n")
            head = file.readline()
            if head.startswith(b"VA "):
                found += file.read(int(head.split()[1]) + 2)
    assert keys
    return found


def said_by(error: Exception) -> str:
    """Return what an error says, and all that it holds but the user's own request."""
    held = {name: value for name, value in vars(error).items() if "request" not in name}
    return f"{error!r} {error} {held}"


def test_a_secret_is_nowhere(
    edge: Edge,
    server: ApiServer,
    start_memcached: StartMemcached,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whatever becomes of the request: an answer, a retry, a refusal, an error."""
    memcached = start_memcached()
    store = MemcachedStore(memcached.url)
    heard: list[Any] = []
    reader = InMemoryMetricReader()
    registry = CollectorRegistry()
    pipeline = Pipeline(
        Cache(store=store, name="kept"),
        Dedup(),
        Retry(2),
        CircuitBreaker("3 in a row", name="circuits", store=store),
        RateLimiter(
            "50/second",
            name="api",
            store=store,
            key_of=by_credential(secret=b"sixteen bytes or more"),
            max_wait=0.5,
        ),
        on_event=[heard.append, Telemetry(meter_provider=MeterProvider([reader]))],
    )
    registry.register(PipelineCollector(pipeline))
    told = [
        ("X-RateLimit-Limit", "100"),
        ("X-RateLimit-Remaining", "3"),
        ("X-RateLimit-Reset", "9"),
    ]
    server.script("/items", Answer(200, [KEPT, *told]), Answer(503), Answer(200))
    server.script("/broken", *[Answer(fault="reset")] * 2)
    server.script("/busy", Answer(429, [("Retry-After", "400")]))
    server.script("/down", *[Answer(500)] * 2)
    url = server.url.replace("http://", f"http://user:{SECRET}@")
    errors = []
    with caplog.at_level(logging.DEBUG), edge.client(pipeline) as client:
        paths = ("items", "items", "items?page=2", "broken", "down", "busy", "refused", "refused")
        for path in paths:
            query = f"{'&' if '?' in path else '?'}api_key={SECRET}"
            try:
                client.get(f"{url}/{path}{query}", headers=HEADERS)
            except edge.error as error:
                errors.append(error)
    assert len(errors) >= 2
    ours = [error for error in errors if type(error).__module__.startswith("ratekit")]
    assert ours
    registered = generate_latest(registry).decode()
    lines = [record for record in caplog.records if record.name.startswith("ratekit")]
    places = {
        "events": repr([event.fields() for event in heard]),
        "log": "\n".join(record.getMessage() + repr(vars(record)) for record in lines),
        "errors": "\n".join(map(said_by, ours)),
        "stats": repr(pipeline.stats()),
        "repr": repr(pipeline),
        "prometheus": registered,
        "telemetry": str(reader.get_metrics_data()),
        "memcached": kept_in(memcached).decode("latin-1"),
        "output": "".join(capfd.readouterr()),
    }
    assert {name for name, text in places.items() if not text} <= {"output"}
    assert [name for name, text in places.items() if SECRET in text] == []


def test_a_secret_of_the_configuration_is_not_shown(memcached: Memcached) -> None:
    """In its repr, or by the command that prints it."""
    config = Config(
        limit="5/second", key="credential", secret=SECRET, store=memcached.url, name="api"
    )
    assert SECRET not in repr(config)
    done = subprocess.run(
        [sys.executable, "-m", "ratekit", "config"],
        capture_output=True,
        text=True,
        check=True,
        env={
            "RATEKIT_SECRET": SECRET,
            "RATEKIT_KEY": "credential",
            "RATEKIT_STORE": memcached.url,
            "RATEKIT_LIMIT": "5/second",
        },
    )
    assert "RATEKIT_SECRET" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_explain_repeats_no_secret() -> None:
    """It is given a whole request, and prints what follows from it."""
    done = subprocess.run(
        [
            sys.executable, "-m", "ratekit", "explain",
            "-H", f"Authorization: Bearer {SECRET}",
            f"https://user:{SECRET}@api.example.com/v1/items?api_key={SECRET}",
        ],
        capture_output=True,
        text=True,
        check=True,
        env={"RATEKIT_KEY": "credential", "RATEKIT_LIMIT": "5/second"},
    )  # fmt: skip
    assert "api.example.com" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_a_pickled_session_has_no_secret_of_ours() -> None:
    """The key that was made of a user's secret travels, not the secret."""
    limiter = RateLimiter("5/second", key_of=by_credential(secret=SECRET.encode()))
    assert SECRET.encode() not in pickle.dumps(Pipeline(limiter))


@pytest.fixture(autouse=True)
def nobody_else_listens() -> None:
    """Check that no other test has left a listener."""
    assert events.everywhere == ()
