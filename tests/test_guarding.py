"""The limiter on the other side: it guards Flask and Starlette, and real clients read its headers.

The limiter of the server runs on a clock of the test's own, so a minute's refusal is over at once.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import http_sf
import pytest
from requests.structures import CaseInsensitiveDict

from ratekit import MemoryStore, Pipeline, RateLimiter, Retry
from ratekit.clock import SECOND
from ratekit.quota import retry_after
from ratekit.testing import FakeClock
from tests.contracts.edges import EDGES, Edge
from tests.sites import FlaskSite, Site, StarletteSite

TIERS = {
    "free": "3/minute window; 100/hour window",
    "premium": "6/minute window; 1000/hour window",
}


@pytest.fixture(scope="module", params=[FlaskSite, StarletteSite])
def shared_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Serve each application once, for all tests."""
    site: Site = request.param()
    with site.serving():
        yield site


@pytest.fixture
def site(shared_site: Site, clock: FakeClock) -> Site:
    """Give each served application in turn, guarded by three a minute and by tiers."""
    shared_site.limiter = RateLimiter("free", tiers=TIERS, store=MemoryStore(clock=clock))
    return shared_site


class Visitor:
    """A client of some library, without ratekit."""

    def __init__(self, client: Any, site: Site) -> None:
        self._client = client
        self._site = site

    def get(self, account: str = "", path: str = "/items") -> Any:
        """Return the answer to a request of `account`, or of this address."""
        headers = {"X-Api-Key": account} if account else None
        return self._client.get(self._site.url + path, headers=headers)

    def statuses(self, count: int, account: str = "") -> list[int]:
        """Return the statuses of so many answers."""
        return [self.get(account).status_code for _ in range(count)]


@pytest.fixture
def visitor(edge: Edge, site: Site) -> Iterator[Visitor]:
    """Give a visitor by each HTTP library in turn."""
    with edge.bare() as client:
        yield Visitor(client, site)


def test_the_first_are_answered_and_the_next_is_told_when_to_come_back(
    visitor: Visitor, clock: FakeClock
) -> None:
    """What is left counts down; a nanosecond before the promised instant it is no, then yes."""
    answers = [visitor.get() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert [answer.headers["X-RateLimit-Limit"] for answer in answers] == ["3", "3", "3"]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0"]
    assert [answer.headers.get("Retry-After") for answer in answers] == [None, None, None]

    refused = visitor.get()
    assert refused.status_code == 429
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert refused.headers["X-RateLimit-Reset"] == str(round(clock.wall()) + 60)
    assert refused.headers["Retry-After"] == "60"

    clock.advance_ns(60 * SECOND - 1)
    assert visitor.get().headers["Retry-After"] == "1"
    clock.advance_ns(1)
    assert visitor.get().status_code == 200


@pytest.mark.parametrize("pause", [0.001, 0.25, 7.3, 19.999])
def test_who_waits_as_long_as_it_is_told_is_answered_and_who_waits_less_is_not(
    visitor: Visitor, clock: FakeClock, pause: float
) -> None:
    """Retry-After is whole seconds: the true time, rounded up."""
    for _ in range(3):
        assert visitor.get().status_code == 200
        clock.advance(pause)
    for _ in range(5):
        told = int(visitor.get().headers["Retry-After"])
        clock.advance(told - 1)
        assert visitor.get().status_code == 429
        clock.advance(1)
        assert visitor.get().status_code == 200
        while visitor.get().status_code == 200:
            pass


def test_a_refusal_costs_nothing(visitor: Visitor, clock: FakeClock) -> None:
    """However often a client knocks, its window is open again at the same instant."""
    assert visitor.statuses(23) == [200] * 3 + [429] * 20
    clock.advance(60)
    assert visitor.statuses(4) == [200] * 3 + [429]


def test_an_answer_that_nothing_was_found_counts_and_says_so(visitor: Visitor) -> None:
    """The guard stands before the routes."""
    lost = visitor.get(path="/nowhere")
    assert lost.status_code == 404
    assert lost.headers["X-RateLimit-Remaining"] == "2"


def test_two_api_keys_do_not_share(visitor: Visitor) -> None:
    """Nor does an address share with either."""
    assert visitor.statuses(4, "ann") == [200, 200, 200, 429]
    assert visitor.statuses(4, "bob") == [200, 200, 200, 429]
    assert visitor.statuses(4) == [200, 200, 200, 429]


def test_two_tiers_differ(visitor: Visitor) -> None:
    """Each key has the limits of its own plan, and its headers tell of these."""
    assert visitor.statuses(4, "ann") == [200] * 3 + [429]
    assert visitor.statuses(7, "vip") == [200] * 6 + [429]
    assert visitor.get("ann").headers["RateLimit-Policy"] == (
        '"3/minute window";q=3;w=60, "100/hour window";q=100;w=3600'
    )
    assert visitor.get("vip").headers["RateLimit-Policy"] == (
        '"6/minute window";q=6;w=60, "1000/hour window";q=1000;w=3600'
    )


def test_an_unknown_tier_has_the_default_limits_and_one_warning(
    visitor: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    """A plan that somebody forgot to configure refuses nobody and opens no hole."""
    with caplog.at_level(logging.WARNING, "ratekit.limits"):
        assert visitor.statuses(4, "odd") == [200] * 3 + [429]
    (warning,) = caplog.messages
    assert "'platinum'" in warning


def test_the_ietf_fields_parse_as_structured_fields(visitor: Visitor) -> None:
    """Both are lists of named policies with integers, on an answer and on a refusal."""
    answer = visitor.get("ann")
    policies = [("3/minute window", {"q": 3, "w": 60}), ("100/hour window", {"q": 100, "w": 3600})]
    assert parsed(answer.headers["RateLimit-Policy"]) == policies
    assert parsed(answer.headers["RateLimit"]) == [
        ("3/minute window", {"r": 2, "t": 60}),
        ("100/hour window", {"r": 99, "t": 3600}),
    ]
    assert retry_after(answer.headers) is None

    visitor.statuses(2, "ann")
    refused = visitor.get("ann")
    assert refused.status_code == 429
    assert parsed(refused.headers["RateLimit-Policy"]) == policies
    assert parsed(refused.headers["RateLimit"]) == [
        ("3/minute window", {"r": 0, "t": 60}),
        ("100/hour window", {"r": 97, "t": 3600}),
    ]
    assert retry_after(refused.headers) == 60.0


@pytest.mark.parametrize(
    "limit",
    ["7/2 seconds window", "10/minute", "10/second burst 2", "5/hour fixed", "2/day smooth"],
)
def test_every_form_of_a_limit_is_told_in_fields_that_parse(clock: FakeClock, limit: str) -> None:
    """Their numbers are integers that are not negative, and the window is the limit's period."""
    limiter = RateLimiter(limit, store=MemoryStore(clock=clock))
    decision = limiter.check()
    while decision:
        decision = limiter.check()
    for fields in (limiter.peek("new").headers(), decision.headers()):
        ((policy, promised),) = parsed(fields["RateLimit-Policy"])
        ((name, now),) = parsed(fields["RateLimit"])
        assert name == policy == limiter.limits[0].label
        period = limiter.limits[0].period_ns // SECOND
        assert promised == {"q": limiter.limits[0].count, "w": period}
        assert 0 <= now["r"] <= promised["q"]
        assert now["t"] >= 0
    told = CaseInsensitiveDict(decision.headers())
    assert retry_after(told) == int(told["Retry-After"])


def test_a_policy_whose_window_is_no_whole_seconds_goes_without_it(clock: FakeClock) -> None:
    """The draft's `w` is an integer, and may be left out."""
    fields = RateLimiter("3/0.5 seconds window", store=MemoryStore(clock=clock)).check().headers()
    assert parsed(fields["RateLimit-Policy"]) == [("3/0.5 seconds window", {"q": 3})]


def parsed(field: str) -> Any:
    """Return the structured field, a list, or fail."""
    return http_sf.parse(field.encode("ascii"), tltype="list")


def test_a_flood_of_addresses_shares_one_budget_and_takes_nobodys(
    visitor: Visitor, site: Site, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixteen places: who has one keeps it, all who come later are together one client."""
    store = MemoryStore(max_keys=16, clock=clock)
    site.limiter = RateLimiter("free", tiers={"free": "3/minute window"}, store=store)
    assert visitor.statuses(1, "ann") == [200]
    flood = (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(20_000))
    with caplog.at_level(logging.WARNING, "ratekit.stores"):
        assert sum(bool(site.limiter.check(address)) for address in flood) == 15 + 3
    assert len(caplog.messages) == 1
    assert len(site.limiter._space) == 16 + 1

    assert visitor.statuses(3, "ann") == [200, 200, 429]
    assert visitor.get("bob").headers["Retry-After"] == "60"
    clock.advance(60)
    assert visitor.statuses(4, "bob") == [200, 200, 200, 429]


def test_many_threads_are_granted_the_limit_and_not_one_more(
    visitor: Visitor, site: Site, clock: FakeClock
) -> None:
    """Threads of the server and its event loop ask one limiter."""
    site.limiter = RateLimiter("50/minute window", store=MemoryStore(clock=clock))
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: visitor.get().status_code, range(80)))
    assert sorted(statuses) == [200] * 50 + [429] * 30


def test_a_client_with_the_servers_limit_is_never_refused(
    edge: Edge, site: Site, clock: FakeClock
) -> None:
    """Two hundred calls take the nine seconds that the limit makes them take."""
    limit = "20/second window"
    site.limiter = RateLimiter(limit, store=MemoryStore(clock=clock))
    pipeline = Pipeline(Retry(), RateLimiter(limit, store=MemoryStore(clock=clock)), clock=clock)
    began = clock.now_ns()
    with edge.client(pipeline) as client:
        answers = [client.get(f"{site.url}/items") for _ in range(200)]
    assert [answer.status_code for answer in answers] == [200] * 200
    assert [edge.details(answer).attempts for answer in answers] == [1] * 200
    assert clock.now_ns() - began == 9 * SECOND


def test_a_client_that_believes_in_a_higher_limit_waits_as_it_is_told(
    edge: Edge, site: Site, clock: FakeClock
) -> None:
    """It is refused, obeys Retry-After, and every call comes to a good end."""
    site.limiter = RateLimiter("20/second window", store=MemoryStore(clock=clock))
    store = MemoryStore(clock=clock)
    bold = RateLimiter("1000/second burst 1000", store=store, adapt="off")
    with edge.client(Pipeline(Retry(), bold, clock=clock)) as client:
        answers = [client.get(f"{site.url}/items") for _ in range(100)]
    assert [answer.status_code for answer in answers] == [200] * 100
    assert max(edge.details(answer).attempts for answer in answers) > 1


def test_a_client_that_listens_is_not_refused(edge: Edge, site: Site, clock: FakeClock) -> None:
    """The endpoint's own headers tell it the limit, before it is refused."""
    site.limiter = RateLimiter("20/second window", store=MemoryStore(clock=clock))
    bold = RateLimiter("1000/second burst 1000", store=MemoryStore(clock=clock))
    with edge.client(Pipeline(Retry(), bold, clock=clock)) as client:
        answers = [client.get(f"{site.url}/items") for _ in range(100)]
    assert [answer.status_code for answer in answers] == [200] * 100
    assert [edge.details(answer).attempts for answer in answers] == [1] * 100


# (What the libraries do with it is the same; each of these takes 3 s.)
@pytest.mark.parametrize("edge", EDGES[:1], ids=repr)
def test_threads_of_a_client_complete_a_job_by_the_real_clock(edge: Edge, site: Site) -> None:
    """Both sides keep the same small window, and no call fails."""
    limit = "20/0.25 seconds window"
    site.limiter = RateLimiter(limit)
    with ExitStack() as stack:
        client = stack.enter_context(edge.client(Pipeline(Retry(), RateLimiter(limit))))
        pool = stack.enter_context(ThreadPoolExecutor(4))
        statuses = pool.map(lambda _: client.get(f"{site.url}/items").status_code, range(60))
        assert list(statuses) == [200] * 60
