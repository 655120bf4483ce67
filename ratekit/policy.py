"""A policy surrounds a call; a pipeline is policies nested, the first outermost.

Pipeline(Retry(), RateLimiter("100/minute"))

retry -> limiter -> attempt
"""

import functools
import inspect
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from ratekit import forks
from ratekit._options import NONE, Options, in_force
from ratekit.call import Call, Outcome, Proceed, SendFailed
from ratekit.clock import SYSTEM, Clock
from ratekit.errors import ConfigurationError, DeadlineExceeded, Rejected
from ratekit.events import Listener, listeners_of
from ratekit.observed import observed, told
from ratekit.records import Records

__all__ = ["Pipeline", "Policy", "one_for"]

P = ParamSpec("P")
T = TypeVar("T")


class Policy(ABC):
    """Something that surrounds a call. Every policy also works alone, as a decorator."""

    clock: Clock = SYSTEM
    retries = False
    """Whether this policy may make more than one attempt."""
    per_attempt = False
    """Whether this policy must see every attempt, so that nothing further in may repeat one."""
    stands_in = False
    """Whether this policy answers in the place of a failure, so that nobody further out retries."""
    keeps_answers = False
    """Whether this policy keeps answers, and `wants_kept` whether it asks for them."""
    wants_kept = False
    innermost = False
    """Whether nothing may stand further in than this policy."""
    spares_attempts = False
    """Whether this policy may answer by itself, so that nothing further out should count that."""
    chooses = False
    """Whether this policy has a pipeline for each host, `at(origin)`."""

    @abstractmethod
    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Surround `proceed(call)`: call it never, once or more often, and return an outcome."""

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return `function` with this policy around each of its calls.

        What it returns is read as an answer if it has `status_code` and `headers`, as the
        responses of requests and httpx do.
        """
        if inspect.iscoroutinefunction(function) or not callable(function):
            raise ConfigurationError(
                f"{function!r}: ratekit is synchronous; decorate a plain function"
            )

        @functools.wraps(function)
        def surrounded(*args: P.args, **kwargs: P.kwargs) -> T:
            def attempt(call: Call) -> Outcome:
                call.begin_attempt()
                return outcome_of(function(*args, **kwargs))

            call = Call(None, "", {}, key="", options=self.options_here(), clock=self.clock)
            try:
                result: T = self.run(call, attempt).value
            except SendFailed as failed:
                failed.raise_native()
            return result

        return surrounded

    def about(self, key: str) -> dict[str, Any]:
        """Return what this policy knows of a key now, for `Pipeline.stats()`."""
        return {}

    def options_here(self, given: Options = NONE) -> Options:
        """Return the options in force for a call that was given `given`."""
        return given.over(in_force())


def outcome_of(value: object) -> Outcome:
    status = getattr(value, "status_code", None)
    headers = getattr(value, "headers", None)
    if isinstance(status, int) and isinstance(headers, Mapping):
        return Outcome(value, status, headers)
    return Outcome(value, None, {})


class Pipeline(Policy):
    """Policies nested, the first outermost; itself a policy.

    `options`: the defaults of every call through it. `on_event`: a function, or several, called
    with every event of these calls (`ratekit.events`). Raises `ConfigurationError` where the same
    policy stands twice, or one that repeats attempts stands below one that must see each of them.
    """

    policies: tuple[Policy, ...]
    options: Options

    def __init__(
        self,
        *policies: Policy,
        options: Options = NONE,
        clock: Clock = SYSTEM,
        on_event: Listener | tuple[Listener, ...] | list[Listener] | None = None,
    ) -> None:
        self.policies = ()
        self.clock = clock
        self.listeners = listeners_of(on_event)
        self._records = Records()
        if not isinstance(options, Options):
            raise ConfigurationError(f"options {options!r}: use ratekit.options(...)")
        for policy in policies:
            if isinstance(policy, Pipeline):
                # Its policies are put in its place: there is one road, whoever wrote it down.
                self.policies += policy.policies
                options = options.over(policy.options)
                self.listeners += policy.listeners
            elif isinstance(policy, Policy):
                self.policies += (policy,)
            else:
                raise ConfigurationError(
                    f"{policy!r} is not a policy; a Pipeline takes policies such as Retry() and "
                    "RateLimiter('100/minute'), one after the other"
                )
        self.options = options
        alone: Any = self.policies[0] if len(self.policies) == 1 else None
        self._chooser: Any = alone if alone is not None and alone.chooses else None
        # Its pipelines, as those who listen here hear them.
        self._heard: dict[int, Pipeline] = {}
        if self._chooser is not None and self.listeners:
            self._heard = {
                id(one): Pipeline(one, clock=one.clock, on_event=self.listeners)
                for one in self._chooser.pipelines()
            }
        # Names this pipeline wherever copies of it are; made when it is first pickled.
        self.token: str | None = None
        self._check()

    def _check(self) -> None:
        seen: set[int] = set()
        above: Policy | None = None
        innermost: Policy | None = None
        for place, policy in enumerate(self.policies):
            if id(policy) in seen:
                raise ConfigurationError(
                    f"{policy!r} stands twice in the pipeline (or one pipeline inside itself): "
                    "each call would pass it twice; name it once"
                )
            seen.add(id(policy))
            if policy.wants_kept and not any(one.keeps_answers for one in self.policies[:place]):
                raise ConfigurationError(
                    f"{policy!r} has no Cache further out whose answers it could use: "
                    "Pipeline(Cache(), Fallback(stale=...), ...)"
                )
            if policy.stands_in and any(one.retries for one in self.policies[:place]):
                raise ConfigurationError(
                    f"{policy!r} stands inside a policy that retries, which would take its answer "
                    "for the server's; put it further out: Pipeline(Fallback(...), Retry())"
                )
            if innermost is not None:
                raise ConfigurationError(
                    f"{policy!r} stands inside {innermost!r}, which would keep its slot while that "
                    "waits; put it further out: Pipeline(RateLimiter(...), Concurrency(...))"
                )
            if policy.retries and above is not None:
                raise ConfigurationError(
                    f"{policy!r} stands inside {above!r}, which would not see its repeats; put "
                    "it further out: Pipeline(Retry(), RateLimiter(...))"
                )
            if policy.spares_attempts and above is not None:
                raise ConfigurationError(
                    f"{policy!r} stands inside {above!r}, which would count what it answers by "
                    "itself; put it further out: Pipeline(Cache(), RateLimiter(...))"
                )
            if policy.per_attempt:
                above = policy
            if policy.innermost:
                innermost = policy

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Run `proceed` inside all policies."""
        if self.listeners:
            call.listeners = (*call.listeners, *self.listeners)
        if call.listeners:
            proceed = observed(proceed)
        for policy in reversed(self.policies):
            proceed = _inside(policy.run, proceed)
        if call.listeners:
            proceed = told(proceed)
        try:
            outcome = proceed(call)
        except BaseException as error:
            refused = isinstance(error, (Rejected, DeadlineExceeded))
            self._records.ended(call, None, refused=refused)
            raise
        self._records.ended(call, outcome)
        return outcome

    def stats(self) -> dict[str, dict[str, Any]]:
        """Return what has happened, by key, as plain data; see `docs/metrics.md` for its fields.

        A key is the limiter's, or the origin where no limiter was passed. Of more than 1000 keys
        those that were not used lately are in "other" together.
        """
        if self._chooser is not None:
            # Each of its pipelines counts its own.
            return {
                key: said
                for one in self._heard.values() or self._chooser.pipelines()
                for key, said in one.stats().items()
            }
        said = self._records.read()
        for key, about in said.items():
            for policy in self.policies:
                about.update(policy.about(key))
        return said

    def at(self, origin: str) -> "Pipeline":
        """Return the pipeline for the calls to an origin: itself, or what it has for that host."""
        chooser = self._chooser
        if chooser is None:
            return self
        chosen: Pipeline = chooser.at(origin)
        return self._heard.get(id(chosen), chosen)

    def options_here(self, given: Options = NONE) -> Options:
        """Return the options in force for a call that was given `given`."""
        here = in_force()
        if given is NONE and here is NONE:
            return self.options
        return given.over(here).over(self.options)

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(map(repr, self.policies))})"

    def __reduce__(self) -> tuple[object, ...]:
        # A copy in this process is this pipeline, and all copies that reach another process are
        # one there: a pickled session must not come with a budget of its own.
        if self.token is None:
            self.token = os.urandom(16).hex()
        _copies.setdefault(self.token, self)
        return _unpickled, (self.token, self.policies, self.options, self.clock, self.listeners)


# What was pickled here, or came here so. It is as bounded as the pipelines of a program are: a
# token is made once for each, and dropped with it.
_copies: "weakref.WeakValueDictionary[str, Pipeline]" = weakref.WeakValueDictionary()
# In another process nobody else may hold on to a pipeline between two jobs that bring it along:
# the last few are kept, with what they have spent.
_kept: "deque[Pipeline]" = deque(maxlen=64)


def _unpickled(
    token: str,
    policies: tuple[Policy, ...],
    options: Options,
    clock: Clock,
    listeners: tuple[Listener, ...],
) -> Pipeline:
    known = _copies.get(token)
    if known is None:
        copy = Pipeline(*policies, options=options, clock=clock, on_event=listeners)
        copy.token = token
        known = _copies.setdefault(token, copy)
        _kept.append(known)
    return known


class _Making:
    """The lock under which a pipeline that has a token from the beginning is made."""

    def __init__(self) -> None:
        self.after_fork()
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: whoever held the lock does not exist here."""
        self.lock = threading.Lock()


_making = _Making()


def one_for(token: str, make: Callable[[], Pipeline]) -> Pipeline:
    """Return the pipeline of this token: one in a process, made when it is first asked for."""
    with _making.lock:
        known = _copies.get(token)
        if known is None:
            made = make()
            made.token = token
            known = _copies.setdefault(token, made)
            # Who makes a client for each job must not get a new budget with it.
            _kept.append(known)
        return known


def _inside(run: Callable[[Call, Proceed], Outcome], proceed: Proceed) -> Callable[[Call], Outcome]:
    return lambda call: run(call, proceed)
