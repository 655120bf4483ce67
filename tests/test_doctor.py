"""`ratekit doctor` and `ratekit status`, on real servers and on none."""

import uuid

import pytest
from click.testing import CliRunner

from ratekit import MemcachedStore, RateLimiter
from ratekit.cli import commands
from tests.conftest import Memcached, StartMemcached


def run(*arguments: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it printed."""
    result = CliRunner().invoke(commands(), arguments)
    return result.exit_code, result.output


def test_a_healthy_server_needs_no_mending(start_memcached: StartMemcached) -> None:
    """Every fact is told, and the command succeeds."""
    code, said = run("doctor", "--store", start_memcached().url)
    assert "MEND" not in said
    assert code == 0
    for word in ("memcached 1.", "meta protocol", "round trip", "clock", "0 evictions"):
        assert word in said


def test_what_to_mend_is_said_in_words(start_memcached: StartMemcached) -> None:
    """A server that refuses new state, or takes small values only, is named with the remedy."""
    code, said = run("doctor", "--store", start_memcached("-M", "-I", "512k").url)
    assert code == 1
    assert "leave -M out" in said
    assert "-I 1m" in said


def test_a_server_that_is_not_there_is_named() -> None:
    """With what to do about it."""
    code, said = run("doctor", "--store", "memcached://127.0.0.1:1")
    assert code == 1
    assert "127.0.0.1:1: not reachable" in said
    assert "start memcached there" in said


@pytest.mark.parametrize("arguments", [("doctor",), ("doctor", "--store", "redis://a")])
def test_a_wrong_store_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    """It says what would be right."""
    code, said = run(*arguments)
    assert code == 2
    assert "memcached://" in said or "--store" in said


def test_status_shows_what_is_left(memcached: Memcached) -> None:
    """Permits and holds that any process made."""
    name = uuid.uuid4().hex
    limiter = RateLimiter("10/hour burst 4", name=name, store=MemcachedStore(memcached.url))
    limiter.acquire("k")
    asked = ("status", "--store", memcached.url, "--name", name, "--limit", "10/hour burst 4")
    code, said = run(*asked, "--key", "k")
    assert code == 0
    assert "permits left now: 3" in said
    assert "hold: none" in said
    limiter.hold("k", 500)
    _, said = run(*asked, "--key", "k")
    assert "permits left now: 0" in said
    assert "s to go" in said


def test_status_of_a_server_that_is_not_there_is_an_error() -> None:
    """No figure is made up."""
    asked = ("status", "--name", "n", "--limit", "1/second", "--store", "memcached://127.0.0.1:1")
    code, said = run(*asked)
    assert code == 1
    assert "127.0.0.1:1" in said
