"""A circuit that a fleet shares through memcached."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from ratekit import CircuitBreaker, CircuitOpen
from ratekit.call import Call, Outcome
from tests.breaker.fleet import HOST, breaker_for
from tests.conftest import Memcached, StartMemcached
from tests.contracts.edges import until

WORKER = Path(__file__).with_name("fleet.py")


def ask(breaker: CircuitBreaker, status: int) -> None:
    """Make a call that is answered so."""
    breaker.run(Call("GET", HOST, {}, key=HOST), lambda call: Outcome(None, status, {}))


def is_open_for(breaker: CircuitBreaker) -> bool:
    """Return whether a call is refused."""
    try:
        ask(breaker, 200)
    except CircuitOpen:
        return True
    return False


def test_a_fleet_makes_exactly_the_probes_that_were_configured(memcached: Memcached) -> None:
    """Four processes with six threads each, in every cycle."""
    name = uuid.uuid4().hex
    breaker = breaker_for(memcached.url, name)
    ask(breaker, 500)
    fleet = [
        subprocess.Popen(
            [sys.executable, str(WORKER), memcached.url, name, "2"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    reached = sum(int(process.communicate(timeout=60)[0]) for process in fleet)
    # It opened once here, and then once with each cycle, whose probes all fail.
    cycles = breaker._ask(HOST).generation - 1
    assert cycles >= 1
    assert reached == 2 * cycles


def test_what_opens_in_one_process_is_open_in_another(memcached: Memcached) -> None:
    """Seen within a quarter of a second."""
    name = uuid.uuid4().hex
    one, other = (breaker_for(memcached.url, name) for _ in range(2))
    other._views = {}
    ask(other, 200)
    one.force_open(HOST)
    until(lambda: is_open_for(other))


def test_a_success_writes_nothing(memcached: Memcached) -> None:
    """Only failures do, and they bring the successes along."""
    name = uuid.uuid4().hex
    breaker = CircuitBreaker("50% of 10 in 30", name=name, store=memcached.url)
    for _ in range(50):
        ask(breaker, 200)
    assert breaker._space.look(HOST)[0] is None
    ask(breaker, 500)
    (status,) = breaker.status()
    assert (status.failures, status.calls) == (1, 51)


def test_a_store_that_is_gone_leaves_the_breaker_to_itself(
    start_memcached: StartMemcached,
) -> None:
    """No call fails because of it, and the circuit still opens."""
    server = start_memcached()
    breaker = breaker_for(server.url, uuid.uuid4().hex)
    ask(breaker, 200)
    server.stop()
    ask(breaker, 200)
    ask(breaker, 500)
    with pytest.raises(CircuitOpen):
        ask(breaker, 200)
