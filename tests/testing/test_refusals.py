"""The loopback API server refuses, fails and delays as it was told to."""

import contextlib
import math
import threading
import time
from email.message import Message
from email.utils import parsedate_to_datetime

import pytest

from ratekit.testing.server import ApiServer, RetryAfter
from tests.testing.client import client, connect, drain, get, send, statuses


@pytest.mark.parametrize("process", [False, True])
def test_what_is_admitted_is_what_the_bucket_holds(*, process: bool) -> None:
    """The record of a stampede, held against the token bucket computed in another way (GCRA)."""
    rate, burst = 400.0, 10
    with ApiServer(rate, burst, process=process) as server:

        def stampede() -> None:
            with client(server) as one:
                while time.monotonic() < end:
                    send(one)

        end = time.monotonic() + 0.25
        threads = [threading.Thread(target=stampede) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        arrivals, stats = server.arrivals(), server.stats()

    empty_until = -math.inf  # when the bucket would be full again
    for now, admitted in arrivals:
        early = empty_until - (burst - 1) / rate - now
        if abs(early) > 1e-6:  # nearer than that, rounding may decide
            assert admitted == (early < 0)
        if admitted:
            empty_until = max(empty_until, now) + 1 / rate
    assert stats.admitted == sum(admitted for _, admitted in arrivals) > burst
    assert stats.refused == len(arrivals) - stats.admitted > 0
    assert stats.requests == len(arrivals)
    assert (stats.first_arrival, stats.last_arrival) == (arrivals[0][0], arrivals[-1][0])


def test_without_a_rate_everything_is_admitted(server: ApiServer) -> None:
    """`rate=None` means no limit."""
    with client(server) as one:
        assert {send(one).status for _ in range(100)} == {200}
    assert (server.requests, server.admitted, server.refused) == (100, 100, 0)


@pytest.mark.parametrize("status", [429, 503, 403])
def test_a_refusal_has_the_status_that_was_chosen(status: int) -> None:
    """Not every API says 429."""
    with ApiServer(0.01, 1, status=status) as server, client(server) as one:
        assert [send(one).status for _ in range(3)] == [200, status, status]
        assert server.refused == 2


def refused(form: RetryAfter | None) -> tuple[float, Message]:
    """Be refused once; give the true wait in seconds and the headers of the refusal."""
    with ApiServer(1 / 3.05, 1, retry_after=form) as server, client(server) as one:
        assert send(one).status == 200
        reply = send(one)
        assert reply.status == 429
        (first, _), (second, _) = server.arrivals()
    return 3.05 - (second - first), reply.headers


def test_retry_after_in_whole_seconds_is_rounded_up() -> None:
    """The default is never early."""
    wait, headers = refused("ceil")
    assert headers["Retry-After"] == str(math.ceil(wait))


def test_retry_after_can_be_truncated() -> None:
    """As some frameworks do, and so too early."""
    wait, headers = refused("truncate")
    assert headers["Retry-After"] == str(math.floor(wait))


def test_retry_after_can_have_a_fraction() -> None:
    """To the millisecond above."""
    wait, headers = refused("exact")
    assert wait <= float(headers["Retry-After"]) < wait + 0.0011
    assert "." in headers["Retry-After"] or wait == pytest.approx(round(wait), abs=0.001)


def test_retry_after_can_be_in_milliseconds() -> None:
    """In a header of its own."""
    wait, headers = refused("ms")
    assert wait * 1000 <= int(headers["retry-after-ms"]) < wait * 1000 + 1.1
    assert "Retry-After" not in headers


def test_retry_after_can_be_a_date() -> None:
    """Read against the answer's own Date it is never early, and less than two seconds late."""
    wait, headers = refused("date")
    until_then = parsedate_to_datetime(headers["Retry-After"])
    assert headers["Retry-After"].endswith(" GMT")
    assert wait <= (until_then - parsedate_to_datetime(headers["Date"])).total_seconds() < wait + 2


def test_a_refusal_can_say_nothing_of_when() -> None:
    """As nginx does."""
    _, headers = refused(None)
    assert {name.lower() for name in headers} == {"content-type", "content-length"}


def test_noise_is_the_same_for_the_same_seed() -> None:
    """The order of admission and the seed decide, and a reset begins again."""
    with ApiServer(None, noise=0.3, seed=7) as server:
        first = statuses(server, 60)
        server.reset()
        assert statuses(server, 60) == first
        stats = server.stats()
    with ApiServer(None, noise=0.3, seed=8) as server:
        assert statuses(server, 60) != first

    assert set(first) == {200, 503}
    assert (stats.admitted, stats.noise, stats.ok) == (60, first.count(503), first.count(200))


def test_refusals_and_jitter_do_not_change_which_admitted_request_fails() -> None:
    """Only admitted requests take part in the draw."""
    with ApiServer(None, noise=0.5, seed=1) as server:
        alone = statuses(server, 20)
    with ApiServer(0.001, 15, noise=0.5, seed=1, jitter=0.0005, noise_status=500) as server:
        limited = statuses(server, 20)

    assert limited == [500 if status == 503 else 200 for status in alone[:15]] + [429] * 5


def test_noise_spends_its_token_and_names_no_time() -> None:
    """The request was admitted; it failed for another reason."""
    with ApiServer(0.001, 2, noise=1.0) as server, client(server) as one:
        replies = [send(one) for _ in range(3)]

    assert [reply.status for reply in replies] == [503, 503, 429]
    assert ["Retry-After" in reply.headers for reply in replies] == [False, False, True]


def test_latency_delays_each_answer_and_no_other_connection() -> None:
    """Requests on many connections are in flight together."""
    with ApiServer(None, latency=0.2, jitter=0.01) as server, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(8)]
        begun = time.monotonic()
        for connection in connections:
            connection.sendall(get("/", "Connection: close"))
        for connection in connections:
            drain(connection)
            assert time.monotonic() - begun >= 0.199
        assert server.stats().max_in_flight == 8
        assert server.stats().in_flight == 0
        assert server.stats().ok == 8
