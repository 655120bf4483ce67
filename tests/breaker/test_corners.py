"""The circuit breaker where threads, waits and other policies meet it."""

import logging
import sys
import threading

import pytest

from ratekit import CircuitBreaker, CircuitOpen, MemoryStore, Pipeline, RateLimiter
from ratekit.breaker import _MOST_KEYS
from ratekit.call import Call, Outcome, SendFailed
from ratekit.circuit import circuit_of
from ratekit.errors import ConfigurationError
from ratekit.testing import FakeClock
from tests.breaker.test_breaker import HOST, ask, breaker_on, open_it


class Answer:
    """What a decorated function returns: an answer of an HTTP library."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status_code = status
        self.headers = headers


def test_the_wait_for_a_permit_is_no_slow_answer(clock: FakeClock) -> None:
    """The server did not take that time."""
    breaker = breaker_on(clock, "1 in a row", slow=2)
    limiter = RateLimiter("1/10 seconds", store=MemoryStore(clock=clock))
    limiter.check(HOST)
    call = Call("GET", HOST, {}, key=HOST, clock=clock)
    Pipeline(breaker, limiter).run(call, lambda call: Outcome(None, 200, {}))
    assert call.waited_ns > 2_000_000_000
    assert breaker.state(HOST) == "closed"


@pytest.mark.parametrize(
    "error",
    [SendFailed(ValueError("no URL"), sent=False, passing=False), ConfigurationError("wrong")],
)
def test_what_never_left_tells_nothing(clock: FakeClock, error: Exception) -> None:
    """It opens no circuit, and as a probe it closes none; the next one may go."""
    breaker = breaker_on(clock, "1 in a row", successes=1)

    def fail(call: Call) -> Outcome:
        raise error

    def attempt() -> None:
        with pytest.raises(type(error)):
            breaker.run(Call("GET", HOST, {}, key=HOST), fail)

    attempt()
    assert breaker.state(HOST) == "closed"
    open_it(breaker)
    clock.advance(30)
    attempt()
    assert breaker.state(HOST) == "half-open"
    ask(breaker, 200)
    assert breaker.state(HOST) == "closed"


def test_a_predicate_that_fails_is_asked_once_and_its_probe_gives_way(clock: FakeClock) -> None:
    """Its error is the user's to see, and says nothing of the server."""
    asked: list[object] = []

    def is_failure(what: object) -> bool:
        asked.append(what)
        if len(asked) == 2:
            raise LookupError("a mistake")
        return len(asked) == 1

    breaker = breaker_on(clock, "1 in a row", successes=1, is_failure=is_failure)
    ask(breaker, 500)
    clock.advance(30)
    with pytest.raises(LookupError):
        ask(breaker, 200)
    assert len(asked) == 2
    ask(breaker, 200)
    assert breaker.state(HOST) == "closed"


def test_a_probe_whose_lease_ran_out_is_not_made(clock: FakeClock) -> None:
    """It waited too long for a permit, and another one went in its place."""
    breaker = breaker_on(clock, "1 in a row")
    open_it(breaker)
    clock.advance(30)
    reached: list[str] = []

    def wait_long(call: Call) -> Outcome:
        clock.advance(60)
        ask(breaker, lambda: reached.append("other") or 200)  # type: ignore[func-returns-value]
        for look_again in call.circuits:
            look_again()
        reached.append("first")
        return Outcome(None, 200, {})

    with pytest.raises(CircuitOpen):
        breaker.run(Call("GET", HOST, {}, key=HOST), wait_long)
    assert reached == ["other"]


def test_a_success_of_before_it_opened_does_not_count_after_it_closed(clock: FakeClock) -> None:
    """It ends late, amid failures in a row, and is none between them."""
    breaker = breaker_on(clock, "3 in a row", successes=1)

    def slowly() -> int:
        open_it(breaker)
        clock.advance(30)
        for status in (200, 500, 500):
            ask(breaker, status)
        return 200

    ask(breaker, slowly)
    assert breaker.state(HOST) == "closed"
    ask(breaker, 500)
    assert breaker.state(HOST) == "open"


def test_an_older_look_does_not_hide_a_newer_one(clock: FakeClock) -> None:
    """Two threads come back from the record in the other order."""
    breaker = breaker_on(clock, "2 in a row")
    ask(breaker, 500)
    older = circuit_of(breaker._space.look(HOST)[0])
    ask(breaker, 500)
    breaker._see(breaker._view(HOST), older)
    with pytest.raises(CircuitOpen):
        ask(breaker, 200)


def test_threads_that_fail_together_are_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whichever opened it says so."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(30):
                fail_together(CircuitBreaker("1 in a row"))
    finally:
        sys.setswitchinterval(interval)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"{HOST}: circuit open for 30.0 s"] * 30


def fail_together(breaker: CircuitBreaker) -> None:
    """Fail in eight threads at once."""
    together = threading.Barrier(8)

    def fail() -> int:
        together.wait(10)
        return 500

    threads = [threading.Thread(target=ask, args=(breaker, fail)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_what_an_operator_does_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Once each, and none where nothing changes."""
    breaker = CircuitBreaker()
    with caplog.at_level(logging.WARNING):
        for change in (breaker.force_open, breaker.disable, breaker.reset, breaker.reset):
            change(HOST)
    assert [record.getMessage() for record in caplog.records] == [
        f"{HOST}: circuit {state}" for state in ("forced open", "disabled", "closed")
    ]


def test_open_circuits_are_bounded_and_stay_open(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """One that is no longer remembered is found in its record."""
    monkeypatch.setattr("ratekit.breaker._MOST_KEYS", 20)
    assert _MOST_KEYS > 20
    breaker = breaker_on(clock)
    for number in range(100):
        breaker.force_open(str(number))
    assert len(breaker._views.by_key) <= 20
    call = Call("GET", HOST, {}, key="0")
    with pytest.raises(CircuitOpen):
        breaker.run(call, lambda call: Outcome(None, 200, {}))


def test_a_function_keeps_its_circuit_among_many_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its view was dropped meanwhile."""
    monkeypatch.setattr("ratekit.breaker._MOST_KEYS", 20)
    breaker = CircuitBreaker("1 in a row")

    @breaker
    def work(*, fine: bool) -> None:
        if not fine:
            raise ValueError("broken")

    work(fine=True)
    for number in range(30):
        ask_of(breaker, str(number))
    with pytest.raises(ValueError, match="broken"):
        work(fine=False)
    with pytest.raises(CircuitOpen):
        work(fine=True)


def ask_of(breaker: CircuitBreaker, key: str) -> None:
    """Make a call of this key that succeeds."""
    breaker.run(Call("GET", HOST, {}, key=key), lambda call: Outcome(None, 200, {}))


def test_a_function_has_the_circuit_that_key_of_names() -> None:
    """One for each tenant, say."""
    tenant = ["a"]
    breaker = CircuitBreaker("1 in a row", key_of=lambda call: tenant[0])

    @breaker
    def work() -> None:
        raise ValueError("broken")

    for name in "ab":
        tenant[0] = name
        with pytest.raises(ValueError, match="broken"):
            work()
    assert {status.key: status.state for status in breaker.status()} == {"a": "open", "b": "open"}


def test_a_function_that_returns_an_answer_is_judged_by_it(clock: FakeClock) -> None:
    """And its circuit stays open as long as the server says."""
    breaker = breaker_on(clock, "1 in a row")
    assert breaker(Answer)(404, {}).status_code == 404
    assert breaker.state() == "closed"
    breaker(Answer)(500, {"retry-after": "120"})
    assert breaker.status()[0].retry_after == pytest.approx(120)


def test_a_child_does_not_tell_what_its_parent_will() -> None:
    """After a fork the successes so far are the parent's."""
    breaker = CircuitBreaker("50% of 10 in 30")
    ask(breaker, 200)
    breaker._views.after_fork()
    ask(breaker, 500)
    assert breaker.status()[0][3:] == (1, 1)
