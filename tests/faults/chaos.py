"""A minute of a job at a server in trouble, on a fake clock: the same for a seed, every time."""

import random
from collections import deque

from ratekit import CircuitBreaker, Concurrency, Pipeline, RateKitError, RateLimiter, Retry
from ratekit.call import Call, Outcome, SendFailed
from ratekit.clock import SECOND
from ratekit.limits.learning import Learning
from ratekit.stores import MemoryStore
from ratekit.testing import FakeClock

__all__ = ["HOST", "Job"]

HOST = "https://api.example.com"
_RATE = 20
_MINUTE = 60.0


class _Server:
    """Admits what the limiter was told, or less; for a while it fails in one way or another."""

    def __init__(self, clock: FakeClock, chance: random.Random) -> None:
        self.clock = clock
        self.chance = chance
        self.trouble = "none"
        self.until = 0.0
        self.arrivals: deque[int] = deque()
        self.most = 0

    def answer(self, call: Call) -> Outcome:  # noqa: C901 (one kind of trouble after the other)
        """Answer an attempt, or let it end without one."""
        now = self.clock.now_ns()
        self.arrivals.append(now)
        while self.arrivals[0] <= now - SECOND:
            self.arrivals.popleft()
        self.most = max(self.most, len(self.arrivals))
        chance = self.chance
        if self.trouble != "well" and now / SECOND >= self.until:
            self.trouble = chance.choice(
                ["none", "none", "slow", "reset", "hinted", "silent", "burst", "outage", "noise"]
            )
            self.until = now / SECOND + chance.choice([0.2, 1, 5, 20])
        match self.trouble:
            case "slow":
                self.clock.advance(chance.uniform(0, 3))
            case "reset" if chance.random() < 0.5:
                raise SendFailed(ConnectionResetError("reset"))
            case "hinted" if chance.random() < 0.7:
                return Outcome(None, 429, {"retry-after": str(chance.choice([0, 1, 3, 30]))})
            case "silent" if chance.random() < 0.7:
                return Outcome(None, 429, {})
            case "burst" if chance.random() < 0.8:
                return Outcome(None, chance.choice([500, 502, 503]), {})
            case "outage":
                if chance.random() < 0.3:
                    return Outcome(None, 503, {"retry-after": "10"})
                raise SendFailed(TimeoutError("nobody there"), sent=False)
            case "noise" if chance.random() < 0.02:
                return Outcome(None, 503, {})
        self.clock.advance(chance.uniform(0.001, 0.05))
        return Outcome(None, 200, {})


class Job:
    """The job of one seed, and what became of it."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        # What the policies draw by themselves is of this seed too.
        random.seed(seed)
        self.clock = FakeClock()
        store = MemoryStore(clock=self.clock)
        self.limiter = RateLimiter(f"{_RATE}/second", store=store)
        self.breaker = CircuitBreaker(store=store)
        self.slots = Concurrency(4, clock=self.clock)
        self.server = _Server(self.clock, chance)
        self.pipeline = Pipeline(Retry(), self.breaker, self.limiter, self.slots, clock=self.clock)
        self.calls = self.fine = 0
        self.longest = 0.0

    def call(self) -> bool:
        """Make a call; return whether it was answered well."""
        self.calls += 1
        began = self.clock.now_ns()
        call = Call("GET", HOST, {}, key=HOST, clock=self.clock)
        try:
            fine = self.pipeline.run(call, self._attempt).status == 200
        except (RateKitError, SendFailed):
            fine = False
            # Whoever is refused does something else meanwhile.
            self.clock.advance(0.5)
        self.longest = max(self.longest, (self.clock.now_ns() - began) / SECOND)
        self.fine += fine
        return fine

    def _attempt(self, call: Call) -> Outcome:
        call.begin_attempt()
        return self.server.answer(call)

    def minute(self) -> None:
        """Do the job for a minute."""
        end = self.clock.now_ns() + _MINUTE * SECOND
        while self.clock.now_ns() < end:
            self.call()

    def recover(self) -> None:
        """Let the server be well again, and some time pass."""
        self.server.trouble = "well"
        self.clock.advance(700)
        for _ in range(5):
            self.call()
        self.clock.advance(700)

    def wrong(self) -> list[str]:
        """Return what is not as it must be once it is all over."""
        learning = self.limiter._learning
        assert isinstance(learning, Learning)
        found = {
            "more than the limit in a second": self.server.most > _RATE,
            "a call took for ever": self.longest > 900,
            "a slot is lost": self.slots.in_flight(HOST) != 0,
            "a permit is lost": not self.limiter.peek(HOST).allowed,
            "the circuit did not recover": self.breaker.state(HOST) != "closed",
            "the last call failed": not self.call(),
            "something is under way": any(known.flying for known in learning._known.values()),
        }
        return [what for what, is_so in found.items() if is_so]
