"""Clients that are given no pipeline: what the environment says, and one state for all of them."""

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import requests

import ratekit.httpx
import ratekit.httpx2
import ratekit.requests
from ratekit import ConfigurationError, options
from ratekit.requests import RateKitAdapter
from ratekit.testing import Answer, ApiServer
from tests.conftest import Memcached


@contextmanager
def session() -> Iterator[requests.Session]:
    """Give a session as a program has one."""
    with requests.Session() as one:
        one.mount("http://", RateKitAdapter())
        yield one


def all_at_once(jobs: list[Any]) -> None:
    """Run functions, each in a thread of its own."""
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_adapters_and_a_client_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three clients of one server are refused nothing; with a limit each they would be."""
    monkeypatch.setenv("RATEKIT_LIMIT", "100/second burst 5")
    monkeypatch.setenv("RATEKIT_ADAPT", "off")
    with ApiServer(rate=100, burst=15) as server, session() as one, session() as other:
        with httpx.Client(transport=ratekit.httpx.RateKitTransport()) as client:

            def ask(get: Any) -> None:
                for _ in range(15):
                    assert get(server.url).status_code == 200

            all_at_once([lambda get=get: ask(get) for get in (one.get, other.get, client.get)])
        assert (server.stats().admitted, server.stats().refused) == (45, 0)


def test_all_edges_have_the_same_pipeline_until_the_environment_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy has it too; another environment gives another one."""
    clients = [
        RateKitAdapter(),
        ratekit.httpx.RateKitTransport(),
        ratekit.httpx2.RateKitTransport(),
        pickle.loads(pickle.dumps(RateKitAdapter())),  # noqa: S301
    ]
    assert len({id(client.pipeline) for client in clients}) == 1
    monkeypatch.setenv("RATEKIT_LIMIT", "10/second")
    assert RateKitAdapter().pipeline is not clients[0].pipeline
    monkeypatch.delenv("RATEKIT_LIMIT")
    assert RateKitAdapter().pipeline is clients[0].pipeline


@pytest.mark.parametrize(
    "make", [RateKitAdapter, ratekit.httpx.RateKitTransport, ratekit.httpx2.RateKitTransport]
)
def test_a_wrong_environment_stops_the_program_where_the_client_is_made(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the first request; and not where a pipeline is given."""
    monkeypatch.setenv("RATEKIT_LIMIT", "lots")
    with pytest.raises(ConfigurationError, match=r"^RATEKIT_LIMIT 'lots'"):
        make()
    make(ratekit.Retry())


def test_each_call_goes_by_the_section_of_its_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One adapter, two servers: the limit, the refusals and the deadline are each host's."""
    with ApiServer(rate=None) as one, ApiServer(rate=None) as other:
        host, its = (it.url.removeprefix("http://") for it in (one, other))
        file = tmp_path / "ratekit.toml"
        file.write_text(
            'limit = "1000/second"\n'
            f'[host."{host}"]\nlimit = "1/hour"\nmax_wait = 0\nrefusal = "response"\n'
            f'[host."{its}"]\nretry_attempts = 2\nretry_base = 0\nbreaker = "off"\n'
        )
        monkeypatch.setenv("RATEKIT_CONFIG", str(file))
        other.script("/", *[Answer(503)] * 3)
        with (
            session() as client,
            httpx2.Client(transport=ratekit.httpx2.RateKitTransport()) as client2,
        ):
            assert [client.get(one.url).status_code for _ in range(2)] == [200, 429]
            assert client2.get(one.url).status_code == 429
            answer = client.get(other.url)
            assert (answer.status_code, answer.ratekit.attempts) == (503, 2)  # type: ignore[attr-defined]
            assert client2.get(other.url).extensions["ratekit"].attempts == 2
        assert (one.stats().requests, other.stats().requests) == (1, 4)


def test_who_brings_a_pipeline_does_not_load_the_settings() -> None:
    """They take a tenth of the time that importing ratekit takes; `ratekit.Config` is there."""
    code = (
        "import sys, ratekit, ratekit.requests, ratekit.httpx\n"
        "ratekit.requests.RateKitAdapter(ratekit.Retry())\n"
        "print('ratekit.config' in sys.modules, ratekit.Config.__name__)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "Config"]
    with pytest.raises(AttributeError, match="no attribute 'Configuration'"):
        ratekit.Configuration  # type: ignore[attr-defined]  # noqa: B018


def test_options_go_before_what_the_environment_says(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they go before those of any pipeline."""
    monkeypatch.setenv("RATEKIT_LIMIT", "1/hour")
    monkeypatch.setenv("RATEKIT_MAX_WAIT", "0")
    with session() as client:
        assert client.get(server.url).status_code == 200
        with pytest.raises(ratekit.requests.RateLimited):
            client.get(server.url)
        with options(refusal="response"):
            assert client.get(server.url).status_code == 429


def test_a_fleet_shares_what_the_environment_names(
    server: ApiServer, memcached: Memcached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit, cache and circuits in memcached, under one name."""
    for name, value in {
        "STORE": memcached.url,
        "NAMESPACE": "config",
        "LIMIT": "1/hour",
        "MAX_WAIT": "0",
        "CACHE": "ttl",
        "CACHE_TTL": "60",
        "KEY": "credential",
        "SECRET": "sixteen bytes or more",
    }.items():
        monkeypatch.setenv(f"RATEKIT_{name}", value)
    with session() as client:
        assert client.get(f"{server.url}/kept").status_code == 200
    # What another process would have: equal settings, and nothing in common but the server.
    again = ratekit.Config.from_env().pipeline()
    with requests.Session() as client:
        client.mount("http://", RateKitAdapter(again))
        kept = client.get(f"{server.url}/kept")
        assert kept.ratekit.from_cache  # type: ignore[attr-defined]
        with pytest.raises(ratekit.requests.RateLimited):
            client.get(f"{server.url}/other")
