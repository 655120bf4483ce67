"""A circuit that a fleet shares through memcached."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from ratekit import CircuitBreaker, CircuitOpen, MemcachedStore
from ratekit.call import Call, Outcome
from ratekit.circuit import circuit_of
from ratekit.clock import SECOND
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
    cycles = circuit_of(breaker._space.look(HOST)[0]).generation - 1
    assert cycles >= 1
    assert reached == 2 * cycles


def test_what_opens_in_one_process_is_open_in_another(memcached: Memcached) -> None:
    """Seen within a quarter of a second."""
    name = uuid.uuid4().hex
    stores = [MemcachedStore(memcached.url) for _ in range(2)]
    one, other = (breaker_for(store, name) for store in stores)
    ask(other, 200)
    one.force_open(HOST)
    until(lambda: is_open_for(other))
    for store in stores:
        store.close()


def test_whoever_waited_sees_what_another_process_opened(memcached: Memcached) -> None:
    """Nobody else of its process may have asked meanwhile."""
    name = uuid.uuid4().hex
    stores = [MemcachedStore(memcached.url) for _ in range(2)]
    one, other = (breaker_for(store, name) for store in stores)

    def wait_long(call: Call) -> Outcome:
        other.force_open(HOST)
        one._view(HOST).seen_at -= SECOND
        for look_again in call.circuits:
            look_again()
        return Outcome(None, 200, {})

    with pytest.raises(CircuitOpen, match="forced") as refusal:
        one.run(Call("GET", HOST, {}, key=HOST), wait_long)
    # By a clock that counts from the epoch, too, nobody can say when it ends.
    assert refusal.value.retry_after is None
    for store in stores:
        store.close()


def test_successes_of_before_a_change_are_not_told_after_it(memcached: Memcached) -> None:
    """Those of a process that had no failures since: they are none between later failures."""
    name = uuid.uuid4().hex
    stores = [MemcachedStore(memcached.url) for _ in range(2)]
    one, other = (CircuitBreaker("3 in a row", name=name, store=store) for store in stores)
    for _ in range(5):
        ask(other, 200)
    one.force_open(HOST)
    one.reset(HOST)
    other._view(HOST).seen_at -= SECOND
    for breaker in (one, one, other):
        assert one.state(HOST) == "closed"
        ask(breaker, 500)
    assert one.state(HOST) == "open"
    for store in stores:
        store.close()


@pytest.mark.parametrize(
    "state", [7, (), (1, 2, 3), ((1,),) * 8, (1,) * 8, (1, 1, 1, 1, 1, 1, (), ((1, 2),))]
)
def test_nonsense_in_the_store_fails_no_call(memcached: Memcached, state: object) -> None:
    """Whatever is no circuit of ours is a closed one."""
    breaker = breaker_for(memcached.url, uuid.uuid4().hex)
    breaker._space.update(HOST, lambda _, now: (state, None), lambda _: 1 << 62)
    ask(breaker, 200)
    ask(breaker, 500)
    assert breaker.state(HOST) == "open"


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


def test_an_open_circuit_outlasts_its_store(start_memcached: StartMemcached) -> None:
    """A server that is gone, or was restarted and has forgotten everything, closes none."""
    server = start_memcached()
    breaker = CircuitBreaker("1 in a row", name=uuid.uuid4().hex, store=server.url)
    ask(breaker, 500)
    assert isinstance(server.address, tuple)
    server.stop()
    breaker._view(HOST).seen_at -= SECOND
    assert is_open_for(breaker)
    start_memcached(port=server.address[1])
    until(lambda: not breaker._space.store.servers[0].is_lost or breaker.state(HOST) == "closed")
    breaker._view(HOST).seen_at -= SECOND
    assert is_open_for(breaker)
