"""Tiers and keys: who has which limit, and what a change of it keeps."""

import logging
import pickle

import pytest

from ratekit import ConfigurationError, MemoryStore, Pipeline, RateLimited, RateLimiter, options
from ratekit.call import Call, Outcome
from ratekit.keys import by_route
from ratekit.testing import FakeClock

TIERS = {
    "free": "60/minute; 1000/hour",
    "basic": "300/minute; 10000/hour",
    "premium": "1000/minute; 50000/hour",
}
WINDOWS = {"free": "2/minute window", "premium": "5/minute window; 9/hour fixed"}


def limiter_of(limit: str, tiers: dict[str, str], clock: FakeClock | None = None) -> RateLimiter:
    """Return a limiter with tiers on a clock of its own."""
    store = MemoryStore(clock=FakeClock() if clock is None else clock)
    return RateLimiter(limit, tiers=tiers, store=store)


def ok(call: Call) -> Outcome:
    """Answer."""
    return Outcome(None, 200, {})


def call(path: str = "/", **chosen: object) -> Call:
    """Return a call with options."""
    return Call("GET", f"https://a{path}", {}, key="https://a", options=options(**chosen))


def test_each_tier_has_its_own_limits() -> None:
    """By name, or by the default where none is named."""
    limiter = limiter_of("free", WINDOWS)
    granted = dict.fromkeys(("free", "premium"), 0)
    for tier in granted:
        while limiter.check(tier, tier=tier):
            granted[tier] += 1
    assert granted == {"free": 2, "premium": 5}
    assert [bool(limiter.check("other")) for _ in range(3)] == [True, True, False]


def test_the_default_may_be_a_limit_of_its_own() -> None:
    """For whoever has no plan at all."""
    limiter = limiter_of("1/minute window", WINDOWS)
    assert [bool(limiter.check("k")) for _ in range(2)] == [True, False]
    assert limiter.limits[0].text == "1/minute window"


def test_a_key_that_changes_its_tier_keeps_what_it_has_spent() -> None:
    """Up and down again: nobody gets a fresh budget by a change of plan."""
    limiter = limiter_of("free", WINDOWS)
    assert limiter.check("k", tier="free")
    assert limiter.check("k", tier="free")
    assert not limiter.check("k", tier="free")
    assert limiter.check("k", tier="premium").remaining == 2
    while limiter.check("k", tier="premium"):
        pass
    assert limiter.peek("k", tier="free").remaining == 0
    assert not limiter.check("k", tier="free")


def test_what_only_another_tier_counts_is_counted_all_the_same() -> None:
    """The hour of the premium tier knows what the key spent as a free one."""
    clock = FakeClock()
    limiter = limiter_of("free", WINDOWS, clock)
    spent = 0
    while spent < 8:
        spent += bool(limiter.check("k", tier="free"))
        clock.advance(10)
    clock.advance(60)
    assert limiter.check("k", tier="premium")
    decision = limiter.check("k", tier="premium")
    assert not decision
    assert decision.limit == 9


def test_a_bucket_keeps_the_share_that_was_spent() -> None:
    """A key that emptied its bucket has an empty one in the next tier too."""
    clock = FakeClock()
    limiter = limiter_of("10/second burst 10", {"fast": "100/second burst 100"}, clock)
    assert limiter.check("k", cost=10)
    assert limiter.peek("k", tier="fast").remaining == 0
    clock.advance(0.5)
    assert limiter.peek("k", tier="fast").remaining == 49
    assert limiter.peek("k").remaining == 4


def test_a_bucket_of_another_tier_is_emptied_at_most() -> None:
    """Nobody comes back from a faster tier into hours of debt."""
    clock = FakeClock()
    limiter = limiter_of("1/minute; 10/hour", {"fast": "1000/second burst 1000"}, clock)
    assert limiter.check("k", cost=1000, tier="fast")
    assert limiter.peek("k").retry_after == pytest.approx(3600 / 9.9)
    assert limiter.acquire("k", tier="fast")


def test_those_who_wait_in_different_tiers_share_one_line() -> None:
    """Each at its own price."""
    clock = FakeClock()
    limiter = limiter_of("1/second smooth", {"fast": "10/second smooth"}, clock)
    begin = clock.now_ns()
    for tier in (None, "fast", "fast", None):
        limiter.acquire("k", tier=tier)
    assert (clock.now_ns() - begin) / 1e9 == pytest.approx(1.0101 + 0.101 + 0.101, rel=1e-3)


def test_a_tier_without_a_window_tells_the_others_when_it_went_late() -> None:
    """What is only charged counts from its real instant too."""
    store = MemoryStore(clock=FakeClock())
    tiers = RateLimiter("3/second", tiers={"b": "4/second window"}, store=store)._tiers
    assert not tiers.default.rule.is_punctual
    assert not tiers.get("b").rule.is_punctual


def test_a_hold_binds_every_tier_of_a_key() -> None:
    """Also one whose bucket is deeper than that of the tier that was refused."""
    clock = FakeClock()
    limiter = limiter_of("4/second burst 2", {"deep": "8/second burst 6"}, clock)
    limiter.hold("k", 0.1)
    assert not limiter.check("k", tier="deep")
    clock.advance(0.1)
    assert limiter.check("k")


def test_an_unknown_tier_falls_to_the_default_with_one_warning_per_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A new plan of the seller's must not stop the service, nor fill the log."""
    limiter = limiter_of("free", TIERS)
    with caplog.at_level(logging.WARNING, "ratekit"):
        for _ in range(3):
            for name in ("gold", "silver"):
                limiter.check(name, tier=name)
    assert [record.getMessage() for record in caplog.records] == [
        f"unknown tier {name!r}: the default limit holds for it (tiers: 'basic', 'premium', 'free')"
        for name in ("gold", "silver")
    ]
    assert limiter.peek("gold", tier="gold").limit == 60


def test_unknown_names_are_remembered_within_bounds() -> None:
    """They may be a stranger's."""
    limiter = limiter_of("free", TIERS)
    for number in range(3000):
        limiter.peek("k", tier=f"tier {number}")
    assert len(limiter._tiers._unknown) == 1000


def test_a_call_says_its_tier_or_a_function_does() -> None:
    """The option goes before the function."""
    limiter = RateLimiter(
        "free",
        tiers=WINDOWS,
        tier_of=lambda call: "premium" if "paid" in call.url else None,
        max_wait=0,
        store=MemoryStore(clock=FakeClock()),
    )
    for _ in range(2):
        limiter.run(call("/paid"), ok)
    assert limiter.peek("https://a", tier="premium").remaining == 3
    with pytest.raises(RateLimited):
        limiter.run(call(), ok)
    limiter.run(call(tier="premium"), ok)
    with pytest.raises(RateLimited):
        limiter.run(call("/paid", tier="free"), ok)


def test_a_function_that_returns_no_name_is_told_so() -> None:
    """A number is no tier."""
    limiter = RateLimiter("free", tiers=WINDOWS, tier_of=lambda call: 7)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigurationError, match="tier_of returned 7"):
        limiter.run(call(), ok)


@pytest.mark.parametrize(
    ("tiers", "match"),
    [
        ({"free": "60/fortnight"}, "tier 'free': limit '60/fortnight': unknown period"),
        ({"": "60/minute"}, "use a name, such as 'free'"),
        ({"free": 60}, "tier 'free': limit 60: it must be text"),
    ],
)
def test_a_wrong_tier_is_refused_by_name(tiers: dict[str, str], match: str) -> None:
    """The error says which one, and what would be right."""
    with pytest.raises(ConfigurationError, match=match):
        RateLimiter("1/second", tiers=tiers)


def test_limits_of_one_name_must_be_of_one_shape() -> None:
    """A bucket and a window can not share a budget; the error says what to do."""
    store = MemoryStore()
    RateLimiter("100/minute", name="api", store=store)
    RateLimiter("200/hour burst 7", name="api", store=store)
    with pytest.raises(ConfigurationError, match=r"'5/second window'.*keeps '100/minute'"):
        RateLimiter("5/second window", name="api", store=store)
    RateLimiter("5/second window", name="other", store=store)


def test_a_pickled_limiter_has_its_tiers() -> None:
    """In another process they mean the same."""
    limiter = RateLimiter("free", tiers=TIERS)
    copy = pickle.loads(pickle.dumps(limiter))  # noqa: S301  (our own bytes)
    assert copy.tiers == TIERS
    assert [limit.text for limit in copy.limits] == ["60/minute", "1000/hour"]


def test_a_narrow_limiter_outside_a_wide_one_holds_alone() -> None:
    """A refused search does not stop everything else, and no permit of the wide one is lost."""
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    search = RateLimiter(
        "30/minute burst 30",
        key_of=by_route("/search/{kind}", others=False),
        max_wait=0,
        store=store,
    )
    core = RateLimiter("5000/hour burst 100", max_wait=0, store=store)
    pipeline = Pipeline(search, core)

    def refuse(call: Call) -> Outcome:
        return Outcome(None, 429, {"retry-after": "60"})

    assert pipeline.run(call("/search/code"), refuse).status == 429
    with pytest.raises(RateLimited):
        pipeline.run(call("/search/users"), ok)
    for _ in range(50):
        assert pipeline.run(call("/users/7"), ok).status == 200
    assert core.peek("https://a").remaining == 100 - 51
    assert pipeline.run(call("/users/7"), refuse).status == 429
    with pytest.raises(RateLimited):
        pipeline.run(call("/users/7"), ok)


def test_a_permit_of_the_outer_limiter_comes_back_when_the_inner_one_refuses() -> None:
    """No permit is spent on one when another refuses."""
    store = MemoryStore(clock=FakeClock())
    outer = RateLimiter("10/minute burst 10", store=store)
    window = RateLimiter("10/minute window", store=store)
    inner = RateLimiter("1/minute", max_wait=0, store=store)
    pipeline = Pipeline(outer, window, inner)
    pipeline.run(call(), ok)
    for _ in range(5):
        with pytest.raises(RateLimited):
            pipeline.run(call(), ok)
    assert outer.peek("https://a").remaining == 9
    assert window.peek("https://a").remaining == 9


def test_none_as_a_key_is_a_call_that_is_not_limited_here() -> None:
    """The function says so, and no permit is taken."""
    limiter = RateLimiter("1/hour", key_of=lambda call: None, max_wait=0)
    for chosen in ({}, {"key": "mine"}, {}, {"key": "mine"}):
        assert limiter.run(call(**chosen), ok).status == 200
