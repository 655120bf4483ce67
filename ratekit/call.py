"""One call of the user: what is asked (`Call`) and what came of it (`Outcome`).

These are all that a policy sees. They describe the native request and response of whichever HTTP
library sits at the edge, and never replace them.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn, Protocol

from ratekit import events
from ratekit._options import NONE, Options
from ratekit.clock import SYSTEM, Clock, to_ns
from ratekit.http.reply import Recording, Reply
from ratekit.quota import NO_HINT, BodyHint, Quota, is_refusal, read_body, read_quota, wait_of

__all__ = ["Call", "Details", "Outcome", "Proceed", "Respond", "SendFailed", "Trip", "Verdict"]


class Verdict(enum.Enum):
    """What an outcome means."""

    OK = "ok"
    FAILED = "failed"
    THROTTLED = "throttled"
    IGNORED = "ignored"
    """The caller's own mistake (most 4xx): no failure of the server, and not worth a repeat."""


class Details:
    """What happened to one call; on the native answer or error as `ratekit`.

    `attempts`: tries on the wire. `waited`: seconds spent in ratekit, for permits and between
    attempts. `from_cache`: whether the answer came from a cache; `fallback`: whether it is one that
    stands in for a refusal or a failure. `key`: whose limit it counted on.
    """

    __slots__ = ("attempts", "fallback", "from_cache", "key", "waited")

    def __init__(
        self,
        attempts: int,
        waited: float,
        key: str,
        *,
        from_cache: bool = False,
        fallback: bool = False,
    ) -> None:
        self.attempts = attempts
        self.waited = waited
        self.from_cache = from_cache
        self.fallback = fallback
        self.key = key

    def __repr__(self) -> str:
        return (
            f"Details(attempts={self.attempts}, waited={self.waited:.3f}, "
            f"from_cache={self.from_cache}, fallback={self.fallback}, key={self.key!r})"
        )


class SendFailed(Exception):
    """An attempt ended without an answer; never seen outside a pipeline.

    `error` is the native error. `sent` is False only where the server surely got nothing.
    `passing` says whether another attempt could fare better.
    """

    def __init__(self, error: Exception, *, sent: bool = True, passing: bool = True) -> None:
        super().__init__(str(error))
        self.error = error
        self.sent = sent
        self.passing = passing

    def raise_native(self) -> NoReturn:
        """Raise the native error in place of this one, as it was raised first."""
        context = self.error.__context__
        try:
            raise self.error
        finally:
            # What led to it, and not whatever is being handled here.
            self.error.__context__ = context


class Outcome:
    """An answer: its status and headers for the policies, and the native `value` for the user.

    A plain function's result has no status. Edges subclass this where an answer holds a
    connection.
    """

    __slots__ = (
        "_quotas", "_retry_after", "_verdict", "from_cache", "headers", "held_ns", "hint",
        "recording", "status", "value", "watch",
    )  # fmt: skip

    def __init__(self, value: Any, status: int | None, headers: Mapping[str, str]) -> None:
        self.value = value
        self.status = status
        self.headers = headers
        # For how long a limiter held the key because of this answer, in nanoseconds.
        self.held_ns: int | None = None
        self.from_cache = False
        # Its body, where somebody on the road wants that as well as the user.
        self.recording: Recording | None = None
        # The same, also where only its end is of interest.
        self.watch: Recording | None = None
        # What its body says of limits, where that was looked at.
        self.hint: BodyHint | None = None
        self._verdict: Verdict | None = None
        self._quotas: tuple[Quota, ...] | None = None
        self._retry_after: tuple[float | None] | None = None

    @property
    def is_error(self) -> bool:
        """Whether the status is one of an error; whatever else it means, the rest is fine.

        So is a 200 whose body says that the request was throttled, where that was looked at.
        """
        status = self.status
        return status is not None and (status >= 400 or (self.hint or NO_HINT).throttled)

    def look_into(self, options: Options) -> None:
        """Read what the body says: a 403 in plain words, the rest where that was asked for."""
        status = self.status or 0
        body = self.text(short=not options.read_bodies)
        hint = read_body(status, body) if options.read_bodies else None
        if (hint is None or not hint.throttled) and is_refusal(status, self.headers, body):
            hint = replace(hint or NO_HINT, throttled=True)
        self.hint = hint

    def text(self, *, short: bool) -> bytes:
        """Return the decoded body, if it is here or may be read now; empty where it may not.

        `short`: only one that says that it is.
        """
        return b""

    def verdict(self, options: Options) -> Verdict:
        """Return what this answer means, by its status and what the server said with it."""
        if self._verdict is None:
            self._verdict = self._judge(options)
        return self._verdict

    def _judge(self, options: Options) -> Verdict:
        status = self.status
        if self.hint is not None and self.hint.throttled:
            return Verdict.THROTTLED
        if status is None or status < 400:
            return Verdict.OK
        if status == 429 or (options.throttle_statuses and status in options.throttle_statuses):
            return Verdict.THROTTLED
        if is_refusal(status, self.headers):
            return Verdict.THROTTLED
        if status >= 500 or status in (408, 425):
            return Verdict.FAILED
        return Verdict.IGNORED

    def retry_after(self) -> float | None:
        """Return the seconds that the server asked to wait, or None; read once.

        Where it did not ask, an exhausted quota says when there is more.
        """
        if self._retry_after is None:
            wait = None
            if self.status is not None:
                wait = wait_of(self.status, self.headers, self.quotas())
                if not wait and self.hint is not None:
                    wait = self.hint.retry_after or wait
            self._retry_after = (wait,)
        return self._retry_after[0]

    def quotas(self) -> tuple[Quota, ...]:
        """Return what the server said of its quotas, read once; nothing of a cached answer."""
        if self._quotas is None:
            self._quotas = ()
            if self.status is not None and not self.from_cache:
                self._quotas = read_quota(self.status, self.headers)
                if self.hint is not None:
                    self._quotas += self.hint.quotas
        return self._quotas

    def record_for(self, call: "Call") -> None:
        """Begin to record the body if somebody on the road wants it; called once, at once."""
        most = 0
        for want in call.wanted:
            most = max(most, want(self))
        if most > 0 or call.watched:
            length = self.length()
            is_kept = most > 0 and (length is None or length <= most)
            if call.watched or is_kept:
                # What is only watched is not written down.
                recording = Recording(most if is_kept else 0, length)
                if recording.is_over or self.record(recording):
                    self.watch = recording
                    self.recording = recording if is_kept else None

    def length(self) -> int | None:
        """Return how long the body says that it is, in bytes on the wire."""
        if self.status == 204:
            return 0
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None

    def record(self, recording: Recording) -> bool:
        """Write the body down as the user reads it; return False where that cannot be done."""
        return False

    def reply(self, body: bytes) -> Reply:
        """Return this answer as a value, with the body that was recorded."""
        raise NotImplementedError

    def settle(self) -> None:
        """Free what can be freed while the answer is kept in case it is the last one."""

    def discard(self) -> None:
        """Give the connection back: this answer will not be anybody's."""


Proceed = Callable[["Call"], Outcome]
"""The rest of the road: makes the attempt, or raises what came of it."""

Respond = Callable[[Reply, list[tuple[str, str]]], Outcome]
"""Makes a native answer of a value, with some more header fields."""


class Trip(Protocol):
    """A call that came through a cache without an answer, and what others may ask of that cache."""

    def look_again(self) -> Outcome | None:
        """Answer from what somebody else has kept meanwhile."""

    def take_lead(self) -> bool:
        """Return whether this call is the one of a fleet's that asks the server."""

    def who(self) -> str:
        """Return who asks, as the cache tells callers apart."""

    def stale_within(self, seconds: float) -> Outcome | None:
        """Answer with what is kept, if it is not stale for longer than this."""


class Call:
    """One logical request of the user, as the policies see it.

    `method` is None for a plain function. `key` is the origin, "https://api.example.com".
    `replayable` says whether the body could be sent again, `body` returns it where it is there as
    bytes. `respond` makes an answer of a value. `attempts` and `waited_ns` count what has happened
    so far.

    What a policy may ask of the edge: `added` fields go with every attempt, `wanted` functions say
    of how many bytes at most they want the body of an answer too.
    """

    __slots__ = (
        "_url", "added", "attempts", "body", "circuits", "clock", "collapsed", "deadline_ns",
        "fallback", "from_cache", "headers", "key", "limited_key", "limiter", "listeners", "method",
        "options", "previous", "replayable", "respond", "tls", "trip", "waited_ns", "wanted",
        "watched",
    )  # fmt: skip

    def __init__(
        self,
        method: str | None,
        url: object,
        headers: Mapping[str, str],
        *,
        key: str,
        options: Options = NONE,
        replayable: bool = True,
        clock: Clock = SYSTEM,
        respond: Respond | None = None,
        body: Callable[[], bytes | None] | None = None,
    ) -> None:
        self.method = method
        self._url = url
        self.headers = headers
        self.key = key
        self.options = options
        # Who is told what happens to it.
        self.listeners = events.everywhere
        self.replayable = replayable
        self.clock = clock
        self.attempts = 0
        self.waited_ns = 0
        # A rejected answer, kept until the next attempt is certain to be made.
        self.previous: Outcome | None = None
        # The key of the outermost limiter that it passed; empty where there was none.
        self.limited_key = ""
        # That limiter, while the call is inside it: of several, it alone learns from a refusal.
        self.limiter: object = None
        # Whether somebody must know when the body of an answer is over.
        self.watched = False
        # To be asked by whoever let the call wait: they raise `CircuitOpen` if a circuit opened.
        self.circuits: tuple[Callable[[], None], ...] = ()
        self.respond = respond
        self.body = body
        self.added: dict[str, str] | None = None
        self.wanted: tuple[Callable[[Outcome], int], ...] = ()
        self.trip: Trip | None = None
        self.from_cache = False
        # Whether it was answered with something of the user's own.
        self.fallback = False
        # Whether somebody else's answer was this one's too.
        self.collapsed = False
        # With which certificate and checks it is asked, where those are not the usual ones.
        self.tls: str | None = None
        self.deadline_ns: int | None = None
        if options.deadline is not None:
            self.deadline_ns = clock.now_ns() + to_ns(options.deadline)

    @property
    def url(self) -> str:
        """The URL asked for, with its query: it may hold secrets."""
        return str(self._url)

    def remaining_ns(self) -> int | None:
        """Return nanoseconds until the deadline (0 when it is over), None where there is none."""
        if self.deadline_ns is None:
            return None
        return max(0, self.deadline_ns - self.clock.now_ns())

    def begin_attempt(self) -> None:
        """Count an attempt and give up the answer of the one before."""
        self.attempts += 1
        previous, self.previous = self.previous, None
        if previous is not None:
            previous.discard()

    def details(self) -> Details:
        """Return what has happened to this call."""
        return Details(
            self.attempts,
            self.waited_ns / 1e9,
            self.limited_key or self.budget_key,
            from_cache=self.from_cache,
            fallback=self.fallback,
        )

    @property
    def budget_key(self) -> str:
        """Whose retry budget this call counts on: the key that the user chose, or its origin."""
        return self.key if self.options.key is None else self.options.key
