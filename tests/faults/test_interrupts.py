"""Ctrl-C while a call waits: it ends at once, and leaves nothing behind."""

import signal
from typing import Any

import pytest

from ratekit import Backoff, RateLimiter
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge, road
from tests.faults.scripts import interrupt

WAITING_FOR_A_PERMIT = """
limiter = RateLimiter("1/hour")
client = client_on(transport_on(Pipeline(Retry(), limiter)))
client.get(url)
key = url.rpartition("/")[0]

def behind():
    # Comes after the main thread's call, and so stands behind it.
    until(lambda: limiter.peek(key).reset_after > 1.5 * 3600)
    threading.Thread(target=client.get, args=(url,), daemon=True).start()
    until(lambda: limiter.peek(key).reset_after > 2.5 * 3600)
    say("hours until all are served:", round(limiter.peek(key).reset_after / 3600))

threading.Thread(target=behind, daemon=True).start()
try:
    client.get(url)
finally:
    # A permit that is not used is the next one's.
    say("hours until all are served:", round(limiter.peek(key).reset_after / 3600))
"""

BACKING_OFF = """
def backoff(failures, last):
    threading.Timer(0.05, say, ["backing off"]).start()
    return 3600

client_on(transport_on(Pipeline(Retry(backoff=backoff), RateLimiter("1000/second")))).get(url)
"""


def test_ctrl_c_while_waiting_for_a_permit(edge: Edge, server: ApiServer) -> None:
    """The process ends at once with KeyboardInterrupt; who stood behind goes an hour earlier."""
    code, out, err = interrupt(WAITING_FOR_A_PERMIT, f"{server.url}/items", edge.name)
    assert out.splitlines() == [
        "hours until all are served: 3",
        "hours until all are served: 2",
    ], err
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert code == -signal.SIGINT
    assert server.requests == 1


def test_ctrl_c_while_backing_off(edge: Edge, server: ApiServer) -> None:
    """The process ends at once with KeyboardInterrupt, and no further attempt is made."""
    server.script("/items", *[Answer(503, body=b"busy")] * 5)
    code, out, err = interrupt(BACKING_OFF, f"{server.url}/items", edge.name)
    assert out == "backing off\n", err
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert code == -signal.SIGINT
    assert server.requests == 1


class _Interrupted(FakeClock):
    """A clock on which the first sleep is interrupted by Ctrl-C."""

    interrupted = False

    def sleep(self, seconds: float) -> None:
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        super().sleep(seconds)


@pytest.mark.parametrize("size", [10, 200_000])
def test_an_interrupted_call_gives_its_connection_back(
    edge: Edge, server: ApiServer, size: int
) -> None:
    """The answer that it kept while it slept is given up: a pool of one connection serves on."""
    server.script("/items", Answer(503, body=b"x" * size))
    pool: dict[str, Any] = {"pool_maxsize": 1, "pool_block": True}
    if edge.name != "requests":
        pool = {"limits": edge.library.Limits(max_connections=1)}
    pipeline = road(_Interrupted(), backoff=Backoff("constant", base=1))
    with edge.client(pipeline, **pool) as client:
        with pytest.raises(KeyboardInterrupt):
            client.send("GET", f"{server.url}/items", stream=True)
        assert client.get(f"{server.url}/items", timeout=5).status_code == 200


class _InterruptedWait(FakeClock):
    """A clock on which the first wait for a turn is interrupted by Ctrl-C."""

    interrupted = False

    def wait(self, gate: Any, seconds: float) -> None:
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        super().wait(gate, seconds)


def test_an_interrupted_wait_gives_its_permit_back(edge: Edge, server: ApiServer) -> None:
    """The next call waits as long as if the interrupted one had never been."""
    clock = _InterruptedWait()
    pipeline = road(clock, "1/minute")
    limiter = pipeline.policies[1]
    assert isinstance(limiter, RateLimiter)
    with edge.client(pipeline) as client:
        client.get(f"{server.url}/items")
        with pytest.raises(KeyboardInterrupt):
            client.get(f"{server.url}/items")
        assert limiter.peek(server.url).reset_after == 60
        assert edge.details(client.get(f"{server.url}/items")).waited == 60
