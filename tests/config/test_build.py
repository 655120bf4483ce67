"""What a configuration becomes: each setting has its effect on the pipeline."""

import logging
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from ratekit import (
    Cache,
    CircuitBreaker,
    Concurrency,
    Config,
    Dedup,
    MemcachedStore,
    Pipeline,
    Policy,
    RateLimiter,
    Retry,
)
from ratekit.call import Call
from ratekit.config.build import shared
from ratekit.config.fields import SETTINGS
from ratekit.keys import by_credential

P = TypeVar("P", bound=Policy)

ORIGIN = "https://api.example.com"
SHARED = "memcached://127.0.0.1:1"
CALL = Call("GET", f"{ORIGIN}/users/7", {"Authorization": "Bearer of-somebody"}, key=ORIGIN)


def part(pipeline: Pipeline, kind: type[P]) -> P:
    """Return the one policy of a kind."""
    (found,) = [policy for policy in pipeline.policies if isinstance(policy, kind)]
    return found


def kinds(config: Config) -> list[str]:
    """Return what stands in a configuration's pipeline."""
    return [type(policy).__name__ for policy in config.pipeline().policies]


def key_of(pipeline: Pipeline) -> str | None:
    """Return the key that a call with a credential counts on."""
    return part(pipeline, RateLimiter)._key(CALL)


def test_without_a_setting_it_paces_and_repeats_and_changes_no_answer() -> None:
    """A limiter that learns, retries and a circuit; whose answer it is stays with the server."""
    assert kinds(Config()) == ["Retry", "CircuitBreaker", "RateLimiter"]
    pipeline = Config().pipeline()
    assert part(pipeline, RateLimiter).limit is None
    assert part(pipeline, RateLimiter).adapt == "headers"


def test_all_parts_stand_in_the_order_of_the_road() -> None:
    """The cache outermost, the slots innermost."""
    config = Config(limit="1/second", cache="rfc", dedup=True, concurrency=2)
    names = ["Cache", "Dedup", "Retry", "CircuitBreaker", "RateLimiter", "Concurrency"]
    assert kinds(config) == names


def test_what_is_off_is_left_out() -> None:
    """Without anything the pipeline is empty, and works."""
    off = Config(retry_attempts=0, breaker=None, adapt="off", cache="off", concurrency=None)
    assert kinds(off) == []
    assert kinds(Config(limit="1/second", adapt="off", breaker="off", retry_attempts="off")) == [  # type: ignore[arg-type]
        "RateLimiter"
    ]


EFFECTS: dict[str, tuple[dict[str, Any], Callable[[Pipeline], Any], Any]] = {
    "limit": ({"limit": "7/minute"}, lambda it: part(it, RateLimiter).limits[0].text, "7/minute"),
    "tiers": (
        {"tiers": {"a": "7/minute"}, "limit": "a"},
        lambda it: part(it, RateLimiter).limits[0].text,
        "7/minute",
    ),
    "key": ({"key": "/users/{id}"}, key_of, f"{ORIGIN} /users/{{id}}"),
    "name": ({"name": "n"}, lambda it: part(it, RateLimiter).name, "n"),
    "headroom": ({"headroom": 0.5}, lambda it: part(it, RateLimiter).headroom, 0.5),
    "max_wait": ({"max_wait": 5}, lambda it: it.options.max_wait, 5),
    "max_retry_after": ({"max_retry_after": 5}, lambda it: it.options.max_retry_after, 5),
    "adapt": ({"adapt": "aimd"}, lambda it: part(it, RateLimiter).adapt, "aimd"),
    "spend": ({"spend": "even"}, lambda it: part(it, RateLimiter).spend, "even"),
    "warn_below": ({"warn_below": 0.3}, lambda it: part(it, RateLimiter).warn_below, 0.3),
    "throttle_statuses": (
        {"throttle_statuses": [420]},
        lambda it: it.options.throttle_statuses,
        {420},
    ),
    "concurrency": ({"concurrency": 3}, lambda it: part(it, Concurrency).limit, 3),
    "cache": (
        {"cache": "ttl", "cache_ttl": 9},
        lambda it: part(it, Cache)._keeping.rules.override,
        True,
    ),
    "cache_ttl": (
        {"cache": "rfc", "cache_ttl": 9},
        lambda it: part(it, Cache)._keeping.rules.ttl,
        9,
    ),
    "cache_size": (
        {"cache": "rfc", "cache_size": 9000},
        lambda it: part(it, Cache)._storage._max_bytes,  # type: ignore[attr-defined]
        9000,
    ),
    "stale_if_error": (
        {"cache": "rfc", "stale_if_error": 9},
        lambda it: part(it, Cache)._keeping.grace.if_error,
        9,
    ),
    "read_bodies": ({"read_bodies": True}, lambda it: it.options.read_bodies, True),
    "dedup": ({"dedup": True}, lambda it: type(it.policies[0]), Dedup),
    "retry_attempts": ({"retry_attempts": 7}, lambda it: part(it, Retry).attempts, 7),
    "retry_base": ({"retry_base": 7}, lambda it: part(it, Retry).backoff.base, 7),  # type: ignore[attr-defined]
    "retry_cap": ({"retry_cap": 70}, lambda it: part(it, Retry).backoff.cap, 70),  # type: ignore[attr-defined]
    "retry_budget": ({"retry_budget": None}, lambda it: part(it, Retry).budget, None),
    "retry_statuses": ({"retry_statuses": [503]}, lambda it: part(it, Retry).statuses, {503}),
    "retry_methods": ({"retry_methods": ["get"]}, lambda it: part(it, Retry).methods, {"GET"}),
    "breaker": (
        {"breaker": "3 in a row"},
        lambda it: part(it, CircuitBreaker).trip,
        "3 in a row",
    ),
    "breaker_cooldown": (
        {"breaker_cooldown": 900},
        lambda it: (
            part(it, CircuitBreaker)._trip.cooldown_ns,
            part(it, CircuitBreaker)._trip.longest_ns,
        ),
        (900 * 10**9, 900 * 10**9),
    ),
    "refusal": ({"refusal": "response"}, lambda it: it.options.refusal, "response"),
    "timeout": ({"timeout": (1, 2)}, lambda it: it.options.timeout, (1, 2)),
    "deadline": ({"deadline": 5}, lambda it: it.options.deadline, 5),
    "store": ({"store": SHARED}, lambda it: type(part(it, RateLimiter).store), MemcachedStore),
    "namespace": (
        {"store": SHARED, "namespace": "n"},
        lambda it: part(it, RateLimiter).store.namespace,  # type: ignore[attr-defined]
        "n",
    ),
    "on_store_error": (
        {"store": SHARED, "on_store_error": "open"},
        lambda it: part(it, RateLimiter).store.on_error,  # type: ignore[attr-defined]
        "open",
    ),
    "secret": (
        {"key": "credential", "secret": "0123456789abcdef"},
        key_of,
        by_credential(secret=b"0123456789abcdef")(CALL),
    ),
    "log": ({"log": "error"}, lambda it: logging.getLogger("ratekit").level, logging.ERROR),
}


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    """Give the logger, and leave it as it was."""
    it = logging.getLogger("ratekit")
    before = it.level, it.handlers[:]
    yield it
    it.level, it.handlers[:] = before
    it.manager._clear_cache()  # type: ignore[attr-defined]


def test_every_setting_has_an_effect_that_is_tested() -> None:
    """None is accepted and ignored."""
    assert EFFECTS.keys() == SETTINGS.keys()


@pytest.mark.parametrize("name", EFFECTS)
def test_a_setting_reaches_what_it_sets(name: str) -> None:
    """And without it, something else is there."""
    settings, look, expected = EFFECTS[name]
    assert look(Config(limit="1/second", **BASE.get(name, {})).pipeline()) != expected
    assert look(Config(**settings).pipeline()) == expected


BASE: dict[str, Any] = {
    "cache": {"cache": "rfc"},
    "cache_ttl": {"cache": "rfc"},
    "cache_size": {"cache": "rfc"},
    "stale_if_error": {"cache": "rfc"},
    "concurrency": {"concurrency": 1},
    "secret": {"key": "credential"},
    "namespace": {"store": SHARED},
    "on_store_error": {"store": SHARED},
}
"""What must be on already so that there is something to look at."""


def test_a_section_changes_what_it_names_and_shares_the_rest() -> None:
    """One cache and one set of circuits, and a limiter of its own."""
    hosts: dict[str, Any] = {"api.example.com": {"limit": "1/second"}, "b.org": {"deadline": 5}}
    pipeline = Config(limit="9/second", cache="rfc", hosts=hosts).pipeline()
    here, usual = pipeline.at(ORIGIN), pipeline.at("https://c.org")
    assert [a is b for a, b in zip(here.policies, usual.policies, strict=True)] == [
        True, True, True, False,
    ]  # fmt: skip
    assert pipeline.at("https://b.org").policies == usual.policies
    assert pipeline.at("https://b.org").options.deadline == 5
    assert usual.options.deadline is None
    assert Config(hosts=hosts).pipeline("api.example.com:80").policies[-1].limit == "1/second"  # type: ignore[attr-defined]


def test_in_memcached_a_section_with_another_limit_has_another_name() -> None:
    """Limits of two forms cannot share a state; what is the same in both is shared."""
    hosts = {"api.example.com": {"limit": "1/second window"}}
    pipeline = Config(limit="9/second", store=SHARED, hosts=hosts).pipeline()
    here, usual = pipeline.at(ORIGIN), pipeline.at("https://c.org")
    assert part(usual, RateLimiter).name == "ratekit"
    assert part(here, RateLimiter).name == "ratekit api.example.com"
    assert part(here, CircuitBreaker) is part(usual, CircuitBreaker)
    assert part(here, RateLimiter).store is part(usual, RateLimiter).store


def test_a_pipeline_by_host_works_inside_another_and_copies() -> None:
    """Each call goes down the pipeline of its host."""
    hosts: dict[str, Any] = {"b.org": {"limit": "3/hour burst 3"}, "c.org": {"concurrency": 1}}
    inner = Config(hosts=hosts).pipeline()
    for pipeline in (inner, Pipeline(Dedup(), inner), pickle.loads(pickle.dumps(inner))):  # noqa: S301
        call = Call("GET", "https://b.org/", {}, key="https://b.org")
        with pytest.raises(ZeroDivisionError):
            pipeline.run(call, lambda call: 1 / 0)  # type: ignore[return-value, arg-type]
        assert call.limited_key == "https://b.org"
    limiter = part(inner.at("https://b.org"), RateLimiter)
    assert limiter.peek("https://b.org").remaining == 0
    for number in range(3000):
        inner.at(f"https://{number}.org")
    assert inner.at("https://b.org").policies[-1] is limiter


def test_one_configuration_is_one_pipeline_in_a_process() -> None:
    """Also when nobody holds on to it between two uses; the level of the log is none of it."""
    config = Config(limit="3/second")
    one = id(shared(config))
    assert id(shared(Config(limit="3/second", log="error"))) == one
    assert id(shared(pickle.loads(pickle.dumps(config)))) == one  # noqa: S301
    assert shared(Config(limit="4/second")) is not shared(config)
    assert Config(limit="3/second").pipeline() is not shared(config)
    assert pickle.loads(pickle.dumps(shared(config))) is shared(config)  # noqa: S301


def test_two_configurations_of_one_memcached_share_its_connections() -> None:
    """The same servers are the same store."""
    one = Config(limit="1/second", store=SHARED).pipeline()
    other = Config(limit="2/second", store=SHARED, name="other").pipeline()
    apart = Config(limit="2/second", store=SHARED, namespace="n").pipeline()
    assert part(one, RateLimiter).store is part(other, RateLimiter).store
    assert part(one, RateLimiter).store is not part(apart, RateLimiter).store


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_can_ask_for_a_pipeline_though_a_parent_thread_was_making_one() -> None:
    """The lock is the child's own; the pipeline is a copy of the parent's."""
    from ratekit.policy import _making

    known = shared(Config(limit="5/second"))
    with _making.lock:
        child = os.fork()
        if not child:
            code = 1
            try:
                code = int(shared(Config(limit="5/second")) is not known)
                shared(Config(limit="6/second"))
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_log_goes_to_standard_error_until_the_program_says_where(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program with logging of its own has each line once."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    Config(log="info").pipeline()
    Config(log="info").pipeline()
    logging.getLogger("ratekit.limits").info("first")
    logging.getLogger("ratekit.limits").debug("too much")
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])
    logging.getLogger("ratekit.limits").info("second")
    assert capsys.readouterr().err == "INFO ratekit.limits: first\n"
    Config(log="off").pipeline()
    assert not logging.getLogger("ratekit.limits").isEnabledFor(logging.CRITICAL)
