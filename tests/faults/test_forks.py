"""A process that forks while its threads wait, hold locks and keep connections."""

import os

import pytest

from ratekit.testing import ApiServer
from tests.contracts.edges import Edge
from tests.faults.scripts import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

FORK = """
import logging

class Told(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        if "forked" in record.getMessage():
            self.lines.append(record.getMessage())

told = Told()
logging.getLogger("ratekit").addHandler(told)
key = url.rpartition("/")[0]
limiter = RateLimiter("1/hour")
others = RateLimiter("1000/hour burst 1000")
client = client_on(transport_on(Pipeline(Retry(), limiter, others), wrapped=WRAPPED))
client.get(url)
for _ in range(3):
    threading.Thread(target=client.get, args=(url,), daemon=True).start()
until(lambda: limiter.peek(key).reset_after > 3.5 * 3600)

# What a thread may hold at the very moment of the fork.
held = [limiter._waiting._lock, others._waiting._lock, others._openings._lock]
held += [limiter._space._lock, others._space._lock, Retry()._budgets._lock]
for lock in held:
    lock.acquire()
pid = os.fork()
if pid == 0:
    # The bucket is the child's own, and what nobody here waits for is given back.
    say("hours in the child:", round(limiter.peek(key).reset_after / 3600))
    with ratekit.options(key="the child's"):
        say("the child got", client.get(url).status_code)
    # Nobody waits in it, so one who will not wait is told the wait of the first.
    with ratekit.options(max_wait=1):
        try:
            client.get(url)
        except RateLimited as refusal:
            say("the child would wait", round(refusal.retry_after / 3600))
    say("the child was told", len(told.lines), str(os.getpid()) in told.lines[0])
    grandchild = os.fork()
    if grandchild == 0:
        say("the grandchild was told", len(told.lines))
        os._exit(0)
    os.waitpid(grandchild, 0)
    os._exit(0)
for lock in held:
    lock.release()
_, status = os.waitpid(pid, 0)
say("hours in the parent:", round(limiter.peek(key).reset_after / 3600))
with ratekit.options(key="the parent's"):
    say("the parent got", client.get(url).status_code)
say("the parent was told", len(told.lines))
os._exit(status)
"""


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_forked_child_works_at_once_on_its_own(
    edge: Edge, server: ApiServer, *, wrapped: bool
) -> None:
    """It has its own locks, waiters and connections, and says once that its limits are its own."""
    script = FORK.replace("WRAPPED", str(wrapped))
    code, out, err = run(script, f"{server.url}/items", edge.name)
    assert out.splitlines() == [
        "hours in the child: 1",
        "the child got 200",
        "the child would wait 1",
        "the child was told 1 True",
        "the grandchild was told 2",
        "hours in the parent: 4",
        "the parent got 200",
        "the parent was told 0",
    ], err
    assert code == 0
    # The parent's one connection is used by the parent alone.
    assert (server.requests, server.stats().connections) == (3, 2)


WINDOWS = """
limiter = RateLimiter("2/hour window; 1000/hour burst 1000", store=MemoryStore())
for _ in range(2):
    limiter.acquire("k")
for priority in (0, 5, 0):
    threading.Thread(
        target=lambda: limiter.acquire("k", priority=priority), daemon=True
    ).start()
until(lambda: limiter._waiting._lines and len(limiter._waiting._lines["k"].order) == 3)
with limiter._waiting._lock:
    pid = os.fork()
    if pid == 0:
        # What was granted still counts, and nobody waits.
        say("in the child:", bool(limiter.check("k")), limiter.peek("k").remaining)
        say("about an hour:", 3500 < limiter.peek("k").retry_after <= 3600)
        say("another key:", bool(limiter.check("other")))
        os._exit(0)
_, status = os.waitpid(pid, 0)
say("in the parent:", 7100 < limiter.peek("k").retry_after <= 7200)
os._exit(status)
"""


def test_a_forked_child_has_the_windows_of_its_parent_and_none_of_its_waiters(
    server: ApiServer,
) -> None:
    """Whatever form the limits have."""
    code, out, err = run("from ratekit import MemoryStore\n" + WINDOWS, server.url, "requests")
    assert out.splitlines() == [
        "in the child: False 0",
        "about an hour: True",
        "another key: True",
        "in the parent: True",
    ], err
    assert code == 0
