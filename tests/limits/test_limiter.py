"""The limiter's direct calls and its place in a pipeline, on a clock of the test's own."""

import pickle

import pytest

from ratekit import (
    ConfigurationError,
    DeadlineExceeded,
    Limit,
    MemoryStore,
    Pipeline,
    RateLimited,
    RateLimiter,
    options,
)
from ratekit.call import Call, Outcome
from ratekit.testing import FakeClock


def limiter_on(
    clock: FakeClock, limit: str = "100/second burst 20", max_wait: float | None = None
) -> RateLimiter:
    """Return a limiter whose store keeps this clock."""
    return RateLimiter(limit, store=MemoryStore(clock=clock), headroom=1.0, max_wait=max_wait)


class Reply:
    """What a decorated function returns: an answer like those of requests and httpx."""

    def __init__(self, status: int, **headers: str) -> None:
        self.status_code = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def test_check_takes_what_is_there_and_says_what_is_left() -> None:
    """A decision is true when it was granted, and carries the state after it."""
    limiter = limiter_on(FakeClock())
    decision = limiter.check("k")
    assert decision
    assert (decision.limit, decision.remaining, decision.retry_after) == (100, 19, 0.0)
    assert decision.reset_after == pytest.approx(0.01)
    for _ in range(19):
        assert limiter.check("k")
    refused = limiter.check("k")
    assert not refused
    assert (refused.remaining, refused.retry_after) == (0, 0.01)
    assert refused.reset_after == pytest.approx(0.2)
    assert "allowed=False" in repr(refused)


def test_keys_do_not_share() -> None:
    """One key's use is no other's."""
    limiter = limiter_on(FakeClock(), "1/minute")
    assert limiter.check("a")
    assert limiter.check("b")
    assert not limiter.check("a")


def test_peek_takes_nothing() -> None:
    """However often it is asked, the state stays."""
    limiter = limiter_on(FakeClock(), "1/minute")
    assert all(limiter.peek("k") for _ in range(5))
    assert limiter.check("k")
    decision = limiter.peek("k")
    assert not decision
    assert decision.retry_after == 60.0
    assert len(limiter._space) == 1


def test_acquire_waits_exactly_for_its_turn() -> None:
    """Twenty at once, then one each hundredth of a second."""
    clock = FakeClock()
    limiter = limiter_on(clock)
    begin = clock.now_ns()
    for _ in range(120):
        limiter.acquire("k")
    assert clock.now_ns() - begin == 1_000_000_000


def test_acquire_refuses_at_once_a_wait_beyond_max_wait() -> None:
    """The error carries the key and the true time; nothing was spent and nobody waited."""
    clock = FakeClock()
    limiter = limiter_on(clock, "1/minute")
    limiter.acquire("k")
    begin = clock.now_ns()
    with pytest.raises(RateLimited, match=r"k: the next permit is 60 s away") as caught:
        limiter.acquire("k", max_wait=59.9)
    assert (caught.value.key, caught.value.retry_after) == ("k", 60.0)
    assert clock.now_ns() == begin
    limiter.acquire("k", max_wait=60)
    assert clock.now_ns() == begin + 60 * 10**9


def test_the_limiters_own_max_wait_holds_where_the_call_names_none() -> None:
    """And a call's own goes before it."""
    limiter = limiter_on(FakeClock(), "1/minute", max_wait=1.0)
    limiter.acquire("k")
    with pytest.raises(RateLimited):
        limiter.acquire("k")
    limiter.acquire("k", max_wait=60)


@pytest.mark.parametrize("max_wait", [-1, float("nan"), True, "1"])
def test_a_max_wait_that_is_no_time_is_refused(max_wait: object) -> None:
    """At construction and at the call."""
    with pytest.raises(ConfigurationError, match="use seconds, from 0 up"):
        RateLimiter("1/minute", max_wait=max_wait)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="use seconds, from 0 up"):
        RateLimiter("1/minute").acquire("k", max_wait=max_wait)  # type: ignore[arg-type]


def test_permit_waits_and_runs_its_block() -> None:
    """As a context manager it grants before the block."""
    clock = FakeClock()
    limiter = limiter_on(clock, "1/second")
    begin = clock.now_ns()
    for _ in range(3):
        with limiter.permit("k") as decision:
            assert decision.allowed
    assert clock.now_ns() - begin == 2 * 10**9


def test_a_decorated_function_waits_for_a_permit_at_each_call() -> None:
    """And keeps its name, arguments and result."""
    clock = FakeClock()

    @limiter_on(clock, "1/second")
    def double(number: int) -> int:
        """Double it."""
        return 2 * number

    begin = clock.now_ns()
    assert [double(number) for number in range(3)] == [0, 2, 4]
    assert clock.now_ns() - begin == 2 * 10**9
    assert double.__name__ == "double"


def test_hold_grants_nothing_before_its_end() -> None:
    """Not to check, not to acquire; one nanosecond later the first may go."""
    clock = FakeClock()
    limiter = limiter_on(clock)
    limiter.hold("k", 5)
    clock.advance_ns(5 * 10**9 - 1)
    assert not limiter.check("k")
    assert limiter.check("k").retry_after == 1e-9
    clock.advance_ns(1)
    assert limiter.check("k")
    assert not limiter.check("k")
    assert limiter.check("other")


@pytest.mark.parametrize("seconds", [-1, float("nan"), "5"])
def test_a_hold_that_is_no_time_is_refused(seconds: object) -> None:
    """The error says what a hold is."""
    with pytest.raises(ConfigurationError, match=r"hold .* use seconds, from 0 up"):
        RateLimiter("1/second").hold("k", seconds)  # type: ignore[arg-type]


def test_a_name_shares_the_budget_and_no_name_does_not() -> None:
    """State belongs to (store, name, key)."""
    store = MemoryStore(clock=FakeClock())
    one, two = (RateLimiter("1/minute", name="api", store=store) for _ in range(2))
    assert one.check("k")
    assert not two.check("k")
    assert RateLimiter("1/minute", name="other", store=store).check("k")
    assert RateLimiter("1/minute", store=store).check("k")
    assert RateLimiter("1/minute").check("k")


def test_a_throttled_answer_holds_the_key_for_everybody() -> None:
    """The server's own time is kept, in the key that was refused and in no other."""
    clock = FakeClock()
    limiter = limiter_on(clock)
    begin = clock.now_ns()

    def attempt(call: Call) -> Outcome:
        return Outcome(None, 429, {"retry-after": "7"})

    limiter.run(Call("GET", "", {}, key="k"), attempt)
    assert limiter.peek("k").retry_after == pytest.approx(7.0)
    assert limiter.peek("other")
    limiter.acquire("k")
    assert clock.now_ns() - begin == 7 * 10**9


@pytest.mark.parametrize("value", ["0", "-1", "soon", "", None])
def test_a_refusal_that_names_no_time_costs_one_permits_time(value: str | None) -> None:
    """Servers say 0 too early; a moment's pause for all, the rest is the retry's back-off."""
    clock = FakeClock()
    limiter = limiter_on(clock)
    headers = {} if value is None else {"retry-after": value}
    limiter.run(Call("GET", "", {}, key="k"), lambda call: Outcome(None, 429, headers))
    assert limiter.peek("k").retry_after == pytest.approx(0.01)


def test_a_short_pause_on_a_slow_limit_is_the_servers_and_no_longer() -> None:
    """Not the six minutes that a permit takes there; and without a hint a moment."""
    clock = FakeClock()
    limiter = RateLimiter("10/hour burst 5", headroom=1.0, store=MemoryStore(clock=clock))
    limiter.run(Call("GET", "", {}, key="a"), lambda call: Outcome(None, 429, {"retry-after": "2"}))
    assert limiter.peek("a").retry_after == 2.0
    limiter.run(Call("GET", "", {}, key="b"), lambda call: Outcome(None, 429, {}))
    assert limiter.peek("b").retry_after == 1.0


def test_an_absurd_pause_ends_after_an_hour() -> None:
    """A server's word is asked for again then, so that one wrong answer ends nobody's work."""
    limiter = limiter_on(FakeClock())
    limiter.run(
        Call("GET", "", {}, key="k"), lambda call: Outcome(None, 429, {"retry-after": "86400"})
    )
    assert limiter.peek("k").retry_after == 3600.0


def test_a_pause_longer_than_is_obeyed_refuses_the_others_at_once() -> None:
    """With the true time on the error, instead of a sleep of an hour."""
    clock = FakeClock()
    limiter = limiter_on(clock)
    limiter.run(
        Call("GET", "", {}, key="k"), lambda call: Outcome(None, 429, {"retry-after": "900"})
    )
    begin = clock.now_ns()
    with pytest.raises(RateLimited, match="longer than is waited for") as caught:
        limiter.run(Call("GET", "", {}, key="k"), lambda call: Outcome(None, 200, {}))
    assert caught.value.retry_after == 900.0
    assert clock.now_ns() == begin
    # Ten minutes later what is left of it is short enough to be waited for.
    clock.advance(600)
    limiter.run(Call("GET", "", {}, key="k"), lambda call: Outcome(None, 200, {}))
    assert clock.now_ns() - begin == 900 * 10**9


def test_a_wait_beyond_the_deadline_is_refused_at_once() -> None:
    """As what it is: the deadline comes first."""
    clock = FakeClock()
    limiter = limiter_on(clock, "1/minute")
    limiter.acquire("k")
    begin = clock.now_ns()
    call = Call("GET", "", {}, key="k", options=options(deadline=10), clock=clock)
    with pytest.raises(DeadlineExceeded, match="the call's deadline comes first") as caught:
        limiter.run(call, lambda call: Outcome(None, 200, {}))
    assert (caught.value.key, caught.value.retry_after) == ("k", 60.0)
    assert clock.now_ns() == begin


@pytest.mark.parametrize("refusal", [RateLimited("no"), DeadlineExceeded("no")])
def test_a_refusal_further_in_gives_the_permit_back(refusal: Exception) -> None:
    """Nothing was sent, so nothing was spent."""
    limiter = limiter_on(FakeClock())

    def refuse(call: Call) -> Outcome:
        raise refusal

    with pytest.raises(type(refusal)):
        limiter.run(Call("GET", "", {}, key="k"), refuse)
    assert limiter.peek("k").remaining == 20


def burst(limiter: RateLimiter, clock: FakeClock, delays: list[float]) -> None:
    """Send one call for each delay at once; the answers come one after the other."""

    def send(call: Call) -> Outcome:
        if len(on_the_way) < len(delays):
            on_the_way.append(call)
            limiter.run(Call("GET", "", {}, key="k"), send)
        clock.advance(delays[len(on_the_way) - 1])
        on_the_way.pop()
        return Outcome(None, 200, {})

    on_the_way = [Call("GET", "", {}, key="k")]
    limiter.run(on_the_way[0], send)


def test_the_time_to_the_answers_of_an_opening_burst_is_not_refilled() -> None:
    """The server's bucket was full until the attempts arrived, so ours gained nothing meanwhile."""
    clock = FakeClock()
    limiter = limiter_on(clock)
    burst(limiter, clock, [0.0] * 15 + [0.1])
    assert limiter.peek("k").remaining == 4
    clock.advance(0.1)
    assert limiter.peek("k").remaining == 14


def test_answers_of_an_opening_burst_that_are_spread_count_from_the_last() -> None:
    """Connections that are set up one after the other may have arrived as late as their answers."""
    clock = FakeClock()
    limiter = limiter_on(clock)
    burst(limiter, clock, [0.0] + [0.02] * 15)
    # Each answer 20 ms behind the last, while the server's bucket refills one each 10 ms: full,
    # but for the last two.
    assert limiter.peek("k").remaining == 18


def test_a_bucket_of_one_permit_does_not_pay_for_answers() -> None:
    """A single thread whose answers take longer than the pace is not slowed down by them."""
    clock = FakeClock()
    limiter = limiter_on(clock, "1/second")
    begin = clock.now_ns()

    def slow(call: Call) -> Outcome:
        clock.advance(1.5)
        return Outcome(None, 200, {})

    for _ in range(10):
        limiter.run(Call("GET", "", {}, key="k"), slow)
    assert clock.now_ns() - begin == 15 * 10**9


@pytest.mark.parametrize("cost", [1, 12, 20])
def test_who_calls_one_at_a_time_never_pays_for_answers(cost: int) -> None:
    """Also where a call takes most of the bucket: the next waits for its own permits only."""
    clock = FakeClock()
    limiter = limiter_on(clock)
    begin = clock.now_ns()

    def slow(call: Call) -> Outcome:
        clock.advance(0.3)
        return Outcome(None, 200, {})

    for _ in range(10):
        limiter.run(Call("GET", "", {}, key="k", options=options(cost=cost)), slow)
    assert clock.now_ns() - begin == 10 * 300_000_000


def test_a_slow_answer_holds_up_nobody_who_came_long_after_it() -> None:
    """Only what was sent when the bucket was last full counts, not what is still unanswered."""
    clock = FakeClock()
    limiter = limiter_on(clock)

    def quick(call: Call) -> Outcome:
        clock.advance(0.1)
        return Outcome(None, 200, {})

    def poll(call: Call) -> Outcome:
        clock.advance(30)
        limiter.run(Call("GET", "", {}, key="k"), quick)
        # The slow one counts as one that may arrive now, and that is all.
        assert limiter.peek("k").remaining == 18
        clock.advance(30)
        return Outcome(None, 200, {})

    limiter.run(Call("GET", "", {}, key="k"), poll)
    assert limiter.peek("k").remaining == 20


def test_the_key_is_the_origin_the_options_or_the_users_function() -> None:
    """In that order of growing precedence, but for an option, which wins."""
    seen = limiter_on(FakeClock(), "1/minute")

    def ok(call: Call) -> Outcome:
        return Outcome(None, 200, {})

    seen.run(Call("GET", "https://a/b", {}, key="https://a"), ok)
    assert not seen.peek("https://a")
    seen.run(Call("GET", "https://a/b", {}, key="https://a", options=options(key="mine")), ok)
    assert not seen.peek("mine")
    by_path = RateLimiter("1/minute", key_of=lambda call: call.url)
    by_path.run(Call("GET", "https://a/b", {}, key="https://a"), ok)
    assert not by_path.peek("https://a/b")
    broken = RateLimiter("1/minute", key_of=lambda call: 7)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigurationError, match="must return text"):
        broken.run(Call("GET", "https://a/b", {}, key="https://a"), ok)


def test_a_function_that_returns_an_answer_is_learned_from() -> None:
    """A decorator reads `status_code` and `headers`, as requests and httpx have them."""
    clock = FakeClock()
    limiter = limiter_on(clock)
    replies = iter([Reply(429, Retry_After="3"), Reply(200)])
    # The names of a plain mapping are as they stand.
    pipeline = Pipeline(limiter)

    @pipeline
    def fetch() -> Reply:
        reply = next(replies)
        reply.headers = {name.lower(): value for name, value in reply.headers.items()}
        return reply

    begin = clock.now_ns()
    assert fetch().status_code == 429
    assert fetch().status_code == 200
    assert clock.now_ns() - begin == 3 * 10**9


def test_the_cost_of_a_call_is_an_option() -> None:
    """One heavy request takes five permits."""
    limiter = limiter_on(FakeClock())
    limiter.run(
        Call("GET", "", {}, key="k", options=options(cost=5)), lambda call: Outcome(None, 200, {})
    )
    assert limiter.peek("k").remaining == 15


def test_a_pickled_limiter_keeps_its_configuration_and_not_its_state() -> None:
    """What was spent is this process's own."""
    limiter = RateLimiter("1/minute", name="travels", max_wait=3, headroom=0.5)
    limiter.check("k")
    copy = pickle.loads(pickle.dumps(limiter))  # noqa: S301  (our own bytes)
    for name in ("limit", "name", "max_wait", "max_waiting", "headroom", "tiers", "limits"):
        assert getattr(copy, name) == getattr(limiter, name)
    own = pickle.loads(pickle.dumps(RateLimiter("1/minute")))  # noqa: S301
    assert own.check("k")
    built = RateLimiter(Limit("by hand", 5, 10**9))
    assert pickle.loads(pickle.dumps(built)).limit == built.limit  # noqa: S301
