"""Retry: what is repeated, after how long, and what the user gets in the end."""

import logging
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ratekit import (
    Backoff,
    ConfigurationError,
    DeadlineExceeded,
    MemoryStore,
    Options,
    Pipeline,
    RateLimited,
    RateLimiter,
    Retry,
    RetryBudget,
    options,
)
from ratekit._options import NONE
from ratekit.call import Call, Outcome, SendFailed
from ratekit.testing import FakeClock

ALL = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH"]
IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
SAFE = {"GET", "HEAD", "OPTIONS", "TRACE"}


def most(a: float, b: float) -> float:
    """The most that chance can give."""
    return b


class Server:
    """Answers in order with what it was told; the last answer is repeated."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.seen = 0
        self.made: list[Outcome] = []

    def __call__(self, call: Call) -> Outcome:
        """Make one attempt."""
        call.begin_attempt()
        self.seen += 1
        answer: Any = self.answers[min(self.seen, len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        self.made.append(Noted(f"answer {self.seen}", status, headers))
        return self.made[-1]


class Noted(Outcome):
    """An outcome that knows whether it was given up."""

    __slots__ = ("discarded", "settled")

    def __init__(self, value: object, status: int, headers: dict[str, str]) -> None:
        super().__init__(value, status, headers)
        self.discarded = False
        self.settled = False

    def settle(self) -> None:
        """Note it."""
        self.settled = True

    def discard(self) -> None:
        """Note it."""
        self.discarded = True


class Road:
    """One call through a retry on a fake clock."""

    def __init__(self, *answers: object, retry: Retry | None = None, **more: Any) -> None:
        self.clock = FakeClock()
        self.begin = self.clock.now_ns()
        self.retry = retry or Retry(backoff=Backoff(uniform=most))
        self.server = Server(*answers)
        self.more = more

    def call(self, method: str | None = "GET", opts: Options = NONE, **more: Any) -> Call:
        """Describe a call."""
        headers = more.pop("headers", {})
        return Call(method, "", headers, key="k", options=opts, clock=self.clock, **more)

    def run(self, method: str | None = "GET", opts: Options = NONE, **more: Any) -> Outcome:
        """Make it."""
        return self.retry.run(self.call(method, opts, **more), self.server)

    @property
    def waited(self) -> float:
        """Seconds that the clock moved."""
        return (self.clock.now_ns() - self.begin) / 1e9


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529])
def test_a_passing_failure_is_repeated_until_it_is_over(status: int) -> None:
    """The answer is the one that succeeded."""
    road = Road(status, status, 200)
    assert road.run().value == "answer 3"
    assert [outcome.discarded for outcome in road.server.made] == [True, True, False]  # type: ignore[attr-defined]
    assert [outcome.settled for outcome in road.server.made] == [True, True, False]  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [200, 204, 301, 304, 400, 401, 403, 404, 409, 422, 501, 505])
def test_what_would_not_change_is_not_repeated(status: int) -> None:
    """The user's own mistakes, and what the server can not do."""
    road = Road(status)
    assert road.run().status == status
    assert road.server.seen == 1


def test_the_last_answer_is_the_users_whole_and_not_given_up() -> None:
    """After four attempts, never wrapped in an error."""
    road = Road(503)
    assert road.run().value == "answer 4"
    assert [outcome.discarded for outcome in road.server.made] == [True, True, True, False]  # type: ignore[attr-defined]


def test_the_last_error_is_the_users() -> None:
    """The very object that the last attempt raised."""
    errors = [SendFailed(OSError(str(number))) for number in range(4)]
    road = Road(*errors)
    with pytest.raises(SendFailed) as caught:
        road.run()
    assert caught.value is errors[3]


@pytest.mark.parametrize("attempts", [1, 2, 7])
def test_attempts_count_the_first(attempts: int) -> None:
    """One word for one thing: tries in all."""
    road = Road(503, retry=Retry(attempts, backoff=Backoff("constant")))
    road.run()
    assert road.server.seen == attempts


def test_full_jitter_is_waited_between_attempts() -> None:
    """At its most: half a second, one, two."""
    road = Road(503)
    road.run()
    assert road.waited == 0.5 + 1 + 2


def test_any_function_is_a_back_off() -> None:
    """It is given the failures so far and the last delay."""
    given: list[tuple[int, float]] = []

    def own(failures: int, last: float) -> float:
        given.append((failures, last))
        return failures * 10.0

    road = Road(503, retry=Retry(backoff=own))
    road.run()
    assert given == [(1, 0.0), (2, 10.0), (3, 20.0)]
    assert road.waited == 60


@pytest.mark.parametrize(
    ("status", "repeated"),
    [
        (408, IDEMPOTENT),
        (425, set(ALL)),
        (429, set(ALL)),
        (500, SAFE),
        (502, IDEMPOTENT),
        (503, IDEMPOTENT),
        (504, IDEMPOTENT),
        (529, IDEMPOTENT),
    ],
)
@pytest.mark.parametrize("method", ALL)
def test_a_method_is_repeated_only_where_that_does_no_harm(
    method: str, status: int, repeated: set[str]
) -> None:
    """What is not idempotent only where the server surely did not act on it."""
    road = Road(status, 200)
    road.run(method)
    assert (road.server.seen == 2) is (method in repeated)


@pytest.mark.parametrize("method", ALL)
def test_what_never_reached_the_server_is_repeated_whatever_it_is(method: str) -> None:
    """A refused connection; and where it may have arrived, only what is idempotent."""
    road = Road(SendFailed(OSError(), sent=False), 200)
    assert road.run(method).status == 200
    road = Road(SendFailed(OSError(), sent=False), 200)
    assert road.run(method, replayable=False).status == 200
    road = Road(SendFailed(OSError()), 200)
    if method in IDEMPOTENT:
        assert road.run(method).status == 200
    else:
        with pytest.raises(SendFailed):
            road.run(method)


@pytest.mark.parametrize("answer", [503, 429, SendFailed(OSError())])
def test_a_body_that_can_not_be_replayed_is_not(answer: object) -> None:
    """Whatever else would speak for it."""
    road = Road(answer, 200)
    opts = options(retry=True)
    if isinstance(answer, Exception):
        with pytest.raises(SendFailed):
            road.run("PUT", opts, replayable=False)
    else:
        assert road.run("PUT", opts, replayable=False).status == answer
    assert road.server.seen == 1


def test_a_lasting_failure_is_not_repeated() -> None:
    """A certificate does not get better by asking again."""
    road = Road(SendFailed(OSError(), passing=False))
    with pytest.raises(SendFailed):
        road.run()
    assert road.server.seen == 1


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize(
    ("opts", "headers"),
    [(options(retry=True), {}), (NONE, {"Idempotency-Key": "one"})],
)
def test_the_user_may_say_that_a_repeat_does_no_harm(
    status: int, opts: Options, headers: dict[str, str]
) -> None:
    """By an option or by a key that the server knows repeats by."""
    road = Road(status, 200)
    assert road.run("POST", opts, headers=headers).status == 200


def test_the_user_may_say_that_nothing_is_to_be_repeated() -> None:
    """For one call, or a block."""
    road = Road(503)
    assert road.run("GET", options(retry=False)).status == 503
    assert road.server.seen == 1


@pytest.mark.parametrize("name", ["x-should-retry", "stripe-should-retry"])
def test_the_server_may_say_whether_a_repeat_makes_sense(name: str) -> None:
    """Its veto and its wish both go before the lists; anything else counts as silence."""
    road = Road((503, {name: "false"}))
    road.run()
    assert road.server.seen == 1
    road = Road((409, {name: "True"}), 200)
    assert road.run("POST").status == 200
    road = Road((503, {name: "maybe"}), 200)
    assert road.run().status == 200


@pytest.mark.parametrize("status", [429, 503, 502])
@pytest.mark.parametrize("asked", ["1", "1.5", "120"])
def test_a_servers_time_is_waited_in_full_and_jitter_is_only_added(status: int, asked: str) -> None:
    """Never below what it asked for, nor below the back-off's own floor."""
    road = Road((status, {"retry-after": asked}), 200)
    road.run()
    assert road.waited == float(asked) + 0.5


def test_a_servers_zero_is_not_believed() -> None:
    """Servers say 0 too early: the back-off's own floor holds, and grows."""
    road = Road(*[(429, {"retry-after": "0"})] * 5, 200)
    assert road.run().status == 200
    assert road.waited == 0.5 + 1 + 2 + 4 + 8


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_beyond_what_is_obeyed_hands_the_answer_back(status: int) -> None:
    """At once, and it is the user's to decide."""
    road = Road((status, {"retry-after": "301"}))
    assert road.run().status == status
    assert (road.waited, road.server.seen) == (0, 1)
    road = Road((status, {"retry-after": "301"}), 200)
    assert road.run(opts=options(max_retry_after=400)).status == 200


def test_a_throttled_attempt_uses_up_no_try_meant_for_failures() -> None:
    """Ten refusals and three failures are still one call that succeeds."""
    answers = [(429, {"retry-after": "1"})] * 10 + [503, 503, 503, 200]
    road = Road(*answers, retry=Retry(backoff=Backoff("constant", base=0.1)))
    assert road.run().status == 200


def test_being_throttled_for_ever_ends() -> None:
    """When the waits together are longer than a server's pause may be."""
    road = Road((429, {"retry-after": "10"}))
    assert road.run().status == 429
    assert 200 <= road.waited <= 300 + 30


def test_statuses_and_methods_may_be_chosen() -> None:
    """Any that the user's server gives a meaning."""
    retry = Retry(statuses=[202, 404], methods=["post"], backoff=Backoff("constant"))
    assert Road(202, 200, retry=retry).run("POST").status == 200
    assert Road(404, 200, retry=retry).run("POST").status == 200
    assert Road(503, 200, retry=retry).run("POST").status == 503
    assert Road(404, 200, retry=retry).run("GET").status == 404


def test_a_status_may_be_called_throttled() -> None:
    """Then it waits its turn instead of using up tries; a 503 still proves nothing of a write."""
    opts = options(throttle_statuses=[429, 503])
    road = Road(*[503] * 6, 200)
    assert road.run(opts=opts).status == 200
    assert Road(503, 200).run("POST", opts).status == 503


def test_a_403_that_says_when_to_come_back_is_about_pace() -> None:
    """And any other 403 is about rights."""
    assert Road((403, {"retry-after": "1"}), 200).run("POST").status == 200
    assert Road(403, 200).run().status == 403


def test_the_budget_stops_a_storm() -> None:
    """Retries beyond a tenth of the calls plus the floor are not made."""
    retry = Retry(budget=RetryBudget(per_second=0), backoff=Backoff("constant", base=0))
    seen = 0
    for _ in range(100):
        road = Road(503, retry=retry)
        road.run()
        seen += road.server.seen
    assert seen == 100 + 10 + 10


def test_a_throttled_attempt_is_not_charged_to_the_budget() -> None:
    """Waiting one's turn is no retry storm."""
    retry = Retry(budget=RetryBudget(floor=0, ratio=0), backoff=Backoff("constant"))
    assert Road(*[429] * 20, 200, retry=retry).run().status == 200
    assert Road(503, 200, retry=retry).run().status == 503
    assert Road(503, 200, retry=Retry(budget=None)).run().status == 200


def test_a_budget_is_its_keys_own(caplog: pytest.LogCaptureFixture) -> None:
    """One host's outage takes no retry from another, and a spent budget is said."""
    retry = Retry(budget=RetryBudget(floor=1, ratio=0, per_second=0), backoff=Backoff("constant"))
    server = Server(503)
    retry.run(Call("GET", "", {}, key="a", clock=FakeClock()), server)
    assert server.seen == 2
    with caplog.at_level(logging.WARNING, "ratekit"):
        retry.run(Call("GET", "", {}, key="a", clock=FakeClock()), server)
    assert server.seen == 3
    assert "a: no retry: the retry budget is spent" in caplog.text
    retry.run(Call("GET", "", {}, key="b", clock=FakeClock()), server)
    assert server.seen == 5


def test_counting_calls_is_bounded() -> None:
    """A crawler of a million hosts keeps no million counts."""
    retry = Retry()
    for number in range(25_000):
        retry.run(Call("GET", "", {}, key=f"host {number}", clock=FakeClock()), Server(200))
    assert len(retry._calls) <= 10_000


def test_a_wait_that_would_outlast_the_deadline_is_not_begun() -> None:
    """The last answer comes at once instead."""
    road = Road(503)
    assert road.run(opts=options(deadline=1.5)).value == "answer 2"
    assert road.waited == 0.5


def test_an_attempt_that_uses_the_deadline_up_is_the_last() -> None:
    """Waits and attempts count alike."""
    road = Road(503)

    def slow(call: Call) -> Outcome:
        road.clock.advance(3)
        return road.server(call)

    call = road.call(opts=options(deadline=3))
    assert road.retry.run(call, slow).value == "answer 1"


def refusing_after(server: Server, attempts: int, refusal: Exception) -> Callable[[Call], Outcome]:
    """Return a road on which ratekit itself refuses after some attempts."""

    def proceed(call: Call) -> Outcome:
        if server.seen >= attempts:
            raise refusal
        return server(call)

    return proceed


@pytest.mark.parametrize("refusal", [RateLimited("no"), DeadlineExceeded("no")])
def test_our_own_refusal_is_not_repeated_and_the_last_real_answer_is_the_users(
    refusal: Exception,
) -> None:
    """It was kept until another attempt was certain."""
    server = Server(503)
    call = Call("GET", "", {}, key="k", clock=FakeClock())
    outcome = Retry().run(call, refusing_after(server, 1, refusal))
    assert outcome.value == "answer 1"
    assert not outcome.discarded  # type: ignore[attr-defined]
    failed = SendFailed(OSError())
    with pytest.raises(SendFailed) as caught:
        Retry().run(call, refusing_after(Server(failed), 1, refusal))
    assert caught.value is failed
    with pytest.raises(type(refusal)):
        Retry().run(call, refusing_after(Server(200), 0, refusal))


def test_an_interrupted_wait_gives_the_kept_answer_up() -> None:
    """No connection is left behind by Ctrl-C."""

    class Interrupted(FakeClock):
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    server = Server(503)
    with pytest.raises(KeyboardInterrupt):
        Retry().run(Call("GET", "", {}, key="k", clock=Interrupted()), server)
    assert server.made[0].discarded  # type: ignore[attr-defined]


def test_nobody_waits_twice_where_a_limiter_holds_the_key() -> None:
    """The limiter keeps the server's time for all; the retry adds no sleep of its own."""
    clock = FakeClock()
    limiter = RateLimiter("100/second burst 20", headroom=1.0, store=MemoryStore(clock=clock))
    pipeline = Pipeline(Retry(backoff=Backoff(uniform=most)), limiter, clock=clock)
    server = Server((429, {"retry-after": "1"}), 200)
    begin = clock.now_ns()
    call = Call("GET", "", {}, key="k", clock=clock)
    assert pipeline.run(call, server).status == 200
    assert clock.now_ns() - begin == 10**9
    assert (call.attempts, call.waited_ns) == (2, 10**9)


def test_every_attempt_takes_a_permit() -> None:
    """Also the repeated ones."""
    limiter = RateLimiter("100/minute burst 20", store=MemoryStore(clock=FakeClock()))
    pipeline = Pipeline(Retry(backoff=Backoff("constant", base=0)), limiter)
    pipeline.run(Call("GET", "", {}, key="k", clock=FakeClock()), Server(503, 503, 200))
    assert limiter.peek("k").remaining == 17


def flaky(failures: Iterable[Exception]) -> Callable[[], str]:
    """Return a function that raises these first."""
    left = list(failures)

    def function() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return function


def test_a_decorated_function_is_repeated_for_what_the_user_named() -> None:
    """And for nothing else: only the user knows what is passing."""
    quick = Backoff("constant", base=0)
    retry = Retry(on=(OSError, KeyError), backoff=quick)
    assert retry(flaky([OSError(), KeyError(), OSError()]))() == "done"
    with pytest.raises(ValueError, match="mine"):
        retry(flaky([ValueError("mine")]))()
    with pytest.raises(OSError, match="mine"):
        Retry(backoff=quick)(flaky([OSError("mine")]))()
    choose = Retry(on=lambda error: "again" in str(error), backoff=quick)
    assert choose(flaky([ValueError("again")]))() == "done"


def test_a_decorated_function_raises_its_own_last_error() -> None:
    """The object itself, with its cause, and nothing wrapped around it."""
    errors = [OSError(str(number)) for number in range(4)]
    errors[3].__cause__ = ValueError("why")
    with pytest.raises(OSError, match="3") as caught:
        Retry(on=OSError, backoff=Backoff("constant", base=0))(flaky(errors))()
    assert caught.value is errors[3]
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attempts": 0}, "attempts 0: use a whole number from 1 up"),
        ({"attempts": 2.5}, "attempts 2.5: use a whole number"),
        ({"attempts": True}, "attempts True: use a whole number"),
        ({"backoff": 3}, "backoff 3: use a Backoff"),
        ({"budget": 0.1}, "budget 0.1: use a RetryBudget"),
        ({"statuses": ["503"]}, "statuses .*: use status codes"),
        ({"on": "OSError"}, "on 'OSError': use exception types"),
    ],
)
def test_what_can_not_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    """When it is written, not when it is needed."""
    with pytest.raises(ConfigurationError, match=message):
        Retry(**arguments)


def test_a_pickled_retry_keeps_its_configuration() -> None:
    """Its budget's state is the new process's own."""
    retry = pickle.loads(pickle.dumps(Retry(7, on=OSError)))  # noqa: S301  (our own bytes)
    assert (retry.attempts, retry.on, retry.budget) == (7, OSError, RetryBudget())
    assert Road(503, 200, retry=retry).run().status == 200


def test_each_retry_says_what_happened(caplog: pytest.LogCaptureFixture) -> None:
    """Which host, which attempt, why, and how long until the next."""
    with caplog.at_level(logging.INFO, "ratekit"):
        Road(503, SendFailed(OSError()), 200).run()
    assert [record.getMessage() for record in caplog.records] == [
        "k: attempt 1: status 503; next one in 0.50 s",
        "k: attempt 2: OSError; next one in 1.00 s",
    ]
