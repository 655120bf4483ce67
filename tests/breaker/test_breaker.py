"""The circuit breaker: what it counts, whom it lets through, what it costs nobody."""

import logging
import pickle
import random
import threading
from collections.abc import Callable, Mapping

import pytest
from requests.structures import CaseInsensitiveDict

from ratekit import CircuitBreaker, CircuitOpen, Pipeline, RateLimiter, Retry, options
from ratekit.call import Call, Outcome, SendFailed
from ratekit.errors import ConfigurationError, RateLimited
from ratekit.stores import MemoryStore
from ratekit.testing import FakeClock
from tests.contracts.edges import EDGES, Edge

HOST = "https://api.example.com"


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that moves only when it is told to."""
    return FakeClock()


def breaker_on(clock: FakeClock, trip: str = "5 in a row", **settings: object) -> CircuitBreaker:
    """Give a breaker on this clock."""
    store = MemoryStore(clock=clock)
    return CircuitBreaker(trip, store=store, **settings)  # type: ignore[arg-type]


def ask(
    breaker: CircuitBreaker,
    answer: int | Exception | Callable[[], int],
    headers: Mapping[str, str] = {},
    **chosen: object,
) -> int | None:
    """Make a call that comes to this."""
    call = Call("GET", HOST, {}, key=HOST, options=options(**chosen))

    def attempt(call: Call) -> Outcome:
        if isinstance(answer, Exception):
            raise SendFailed(answer)
        status = answer if isinstance(answer, int) else answer()
        return Outcome(None, status, CaseInsensitiveDict(headers))

    return breaker.run(call, attempt).status


def open_it(breaker: CircuitBreaker) -> None:
    """Fail until it is open."""
    while breaker.state(HOST) == "closed":
        ask(breaker, 500)


@pytest.mark.parametrize("answer", [500, 502, 503, 504, TimeoutError("slow"), OSError("reset")])
def test_failures_of_the_server_open_it(clock: FakeClock, answer: int | Exception) -> None:
    """5xx, timeouts and connections that fail."""
    breaker = breaker_on(clock)
    for _ in range(5):
        if isinstance(answer, int):
            ask(breaker, answer)
        else:
            with pytest.raises(SendFailed):
                ask(breaker, answer)
    with pytest.raises(CircuitOpen) as refusal:
        ask(breaker, 200)
    assert refusal.value.retry_after == pytest.approx(30)
    assert refusal.value.key == HOST


@pytest.mark.parametrize("status", [200, 301, 400, 403, 404, 429, 501])
def test_what_is_no_failure_does_not(clock: FakeClock, status: int) -> None:
    """The server answers, or is being asked too fast."""
    breaker = breaker_on(clock)
    for _ in range(50):
        assert ask(breaker, status) == status
    assert breaker.state(HOST) == "closed"


def test_a_refusal_of_ours_is_none_of_the_servers(clock: FakeClock) -> None:
    """Nothing was sent."""
    breaker = breaker_on(clock, "1 in a row")

    def refuse(call: Call) -> Outcome:
        raise RateLimited("no", key=HOST, retry_after=1)

    for _ in range(3):
        with pytest.raises(RateLimited):
            breaker.run(Call("GET", HOST, {}, key=HOST), refuse)
    assert breaker.state(HOST) == "closed"


def test_a_503_amid_successes_is_throttling_and_without_one_an_outage(clock: FakeClock) -> None:
    """Where it says when to come back; and then it is left alone so long."""
    breaker = breaker_on(clock)
    ask(breaker, 200)
    for _ in range(9):
        ask(breaker, 503, {"Retry-After": "90"})
    assert breaker.state(HOST) == "closed"
    clock.advance(40)
    for _ in range(5):
        ask(breaker, 503, {"Retry-After": "90"})
    with pytest.raises(CircuitOpen) as refusal:
        ask(breaker, 200)
    assert refusal.value.retry_after == pytest.approx(90)


def test_a_slow_answer_is_a_failure_where_that_was_said(clock: FakeClock) -> None:
    """And only there."""

    def slowly() -> int:
        clock.advance(3)
        return 200

    patient, strict = breaker_on(clock), breaker_on(clock, slow=2)
    for _ in range(5):
        ask(patient, slowly)
        ask(strict, slowly)
    assert patient.state(HOST) == "closed"
    assert strict.state(HOST) == "open"


def test_the_user_may_say_what_a_failure_is(clock: FakeClock) -> None:
    """An API that hides its errors behind a 404, say."""
    breaker = breaker_on(clock, is_failure=lambda it: getattr(it, "status", 0) == 404)
    for _ in range(5):
        ask(breaker, 404)
    assert breaker.state(HOST) == "open"


def test_it_closes_after_two_probes_that_succeed(clock: FakeClock) -> None:
    """Closed, open, half-open, closed."""
    breaker = breaker_on(clock)
    open_it(breaker)
    assert breaker.state(HOST) == "open"
    clock.advance(30)
    assert breaker.state(HOST) == "half-open"
    ask(breaker, 200)
    assert breaker.state(HOST) == "half-open"
    ask(breaker, 200)
    assert breaker.state(HOST) == "closed"


def test_a_throttled_probe_gives_its_place_to_the_next(clock: FakeClock) -> None:
    """It says nothing of whether the server works."""
    breaker = breaker_on(clock, successes=1)
    open_it(breaker)
    clock.advance(30)
    ask(breaker, 429)
    ask(breaker, 200)
    assert breaker.state(HOST) == "closed"


def test_what_is_thrown_into_a_probe_gives_its_place_back(clock: FakeClock) -> None:
    """A Ctrl-C, say."""
    breaker = breaker_on(clock, successes=1)
    open_it(breaker)
    clock.advance(30)

    def interrupt() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(breaker, interrupt)
    ask(breaker, 200)
    assert breaker.state(HOST) == "closed"


def test_results_of_calls_begun_before_it_opened_do_not_count(clock: FakeClock) -> None:
    """A slow failure from before must not open it again, nor a slow success close it."""
    breaker = breaker_on(clock, successes=1)

    def meanwhile() -> int:
        open_it(breaker)
        clock.advance(30)
        ask(breaker, 200)
        assert breaker.state(HOST) == "closed"
        return 500

    for _ in range(4):
        ask(breaker, meanwhile)
    assert breaker.state(HOST) == "closed"


def test_sixteen_callers_at_once_are_one_probe(clock: FakeClock) -> None:
    """In every cycle."""
    breaker = breaker_on(clock, probes=1)
    for _ in range(3):
        open_it(breaker)
        clock.advance(301)
        reached: list[int] = []
        refused: list[CircuitOpen] = []
        at_once = threading.Barrier(16)
        done = threading.Event()

        def slowly() -> int:
            reached.append(1)  # noqa: B023
            done.wait(10)  # noqa: B023
            return 500

        def call() -> None:
            at_once.wait()  # noqa: B023
            try:
                ask(breaker, slowly)
            except CircuitOpen as error:
                refused.append(error)  # noqa: B023
            if len(refused) == 15:  # noqa: B023
                done.set()  # noqa: B023

        threads = [threading.Thread(target=call) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(reached) == 1


@pytest.mark.parametrize("seed", range(3))
def test_two_percent_of_random_503_for_an_hour_do_not_open_it(seed: int) -> None:
    """Noise is not an outage; an outage is seen within ten calls."""
    clock, chance = FakeClock(), random.Random(seed)
    breaker = CircuitBreaker(store=MemoryStore(clock=clock))
    for _ in range(36_000):
        clock.advance(0.1)
        ask(breaker, 503 if chance.random() < 0.02 else 200)
    calls = 0
    while breaker.state(HOST) == "closed":
        ask(breaker, 503)
        calls += 1
    assert calls <= 10


def test_whoever_waited_for_a_permit_looks_again(clock: FakeClock) -> None:
    """The circuit opened meanwhile: nothing is sent, and the permit is the next one's."""
    breaker = breaker_on(clock)
    limiter = RateLimiter("1/second", store=MemoryStore(clock=clock))
    pipeline = Pipeline(breaker, limiter, clock=clock)
    limiter.check(HOST)
    wait = clock.wait

    def waiting(*args: object, **kwargs: object) -> object:
        open_it(breaker)
        return wait(*args, **kwargs)  # type: ignore[arg-type]

    clock.wait = waiting  # type: ignore[assignment]
    with pytest.raises(CircuitOpen):
        pipeline.run(
            Call("GET", HOST, {}, key=HOST, clock=clock), lambda call: Outcome(None, 200, {})
        )
    assert limiter.peek(HOST).allowed


def test_an_operator_may_open_disable_and_reset_it(clock: FakeClock) -> None:
    """By hand."""
    breaker = breaker_on(clock)
    breaker.force_open(HOST)
    clock.advance(10_000)
    with pytest.raises(CircuitOpen, match="reset"):
        ask(breaker, 200)
    assert breaker.state(HOST) == "forced open"
    breaker.disable(HOST)
    for _ in range(20):
        ask(breaker, 500)
    assert breaker.state(HOST) == "disabled"
    breaker.reset(HOST)
    assert breaker.state(HOST) == "closed"
    open_it(breaker)
    (status,) = breaker.status()
    assert status.key == HOST
    assert status.state == "open"
    assert status.retry_after == pytest.approx(30)


def test_a_function_has_a_circuit_too(clock: FakeClock) -> None:
    """Any exception is a failure, and calls are not made one after the other."""
    breaker = breaker_on(clock, "2 in a row")

    @breaker
    def work(*, fine: bool) -> str:
        if not fine:
            raise ValueError("broken")
        return "done"

    assert work(fine=True) == "done"
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            work(fine=False)
    with pytest.raises(CircuitOpen):
        work(fine=True)
    clock.advance(30)
    assert work(fine=True) == work(fine=True) == "done"
    assert breaker.state() == "closed"


def test_calls_are_not_made_one_after_the_other() -> None:
    """No lock is held while one is under way."""
    together = threading.Barrier(8)
    work = CircuitBreaker()(lambda: together.wait(10))
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together.broken


def test_a_change_is_a_line_in_the_log(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """One, and not one for each call."""
    breaker = breaker_on(clock, successes=1)
    with caplog.at_level(logging.WARNING):
        open_it(breaker)
        for _ in range(5):
            with pytest.raises(CircuitOpen):
                ask(breaker, 200)
        clock.advance(30)
        ask(breaker, 200)
    assert [record.getMessage() for record in caplog.records] == [
        f"{HOST}: circuit open for 30.0 s",
        f"{HOST}: circuit closed",
    ]


def test_a_breaker_travels_without_its_state(clock: FakeClock) -> None:
    """As every policy does."""
    breaker = CircuitBreaker("3 in a row", cooldown=7)
    breaker.force_open(HOST)
    copy = pickle.loads(pickle.dumps(breaker))  # noqa: S301
    assert repr(copy) == "CircuitBreaker('3 in a row')"
    assert copy.state(HOST) == "closed"


def test_a_retry_inside_it_is_an_error() -> None:
    """It would see one failure of four."""
    with pytest.raises(ConfigurationError, match="further out"):
        Pipeline(CircuitBreaker(), Retry())


@pytest.mark.parametrize("settings", [{"probes": 0}, {"cooldown": 0}, {"longest_cooldown": 1}])
def test_what_cannot_be_right_says_so(settings: dict[str, float]) -> None:
    """At construction."""
    with pytest.raises(ConfigurationError):
        CircuitBreaker(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_an_open_circuit_is_the_librarys_own_exception(edge: Edge) -> None:
    """So that the `except` clauses a program has catch it; and not one that is retried."""
    breaker = CircuitBreaker()
    breaker.force_open("http://127.0.0.1:9")
    with edge.client(Pipeline(breaker)) as client:
        with pytest.raises(CircuitOpen) as caught:
            client.get("http://127.0.0.1:9/items")
        assert isinstance(caught.value, edge.error)
        assert not isinstance(caught.value, edge.retried_by_others)
