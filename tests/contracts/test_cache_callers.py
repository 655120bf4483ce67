"""Whose answer it is: what tells two callers apart, and two requests."""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from ratekit import Cache, ConfigurationError, Dedup, options
from ratekit._httpx_bodies import RecordedStream
from ratekit.http.reply import Recording
from ratekit.testing import ApiServer, FakeClock
from tests.contracts.caching import PATH, Api, Place, api, reply, said
from tests.contracts.edges import Edge

MINUTE = "max-age=60"
Make = Callable[..., AbstractContextManager[Api]]


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that stands."""
    return FakeClock()


@pytest.fixture
def make(edge: Edge, server: ApiServer, clock: FakeClock, store: Place) -> Make:
    """Give what makes a client of one URL through a cache."""
    return lambda *policies, **cache: api(edge, server, clock, *policies, store=store, **cache)


@pytest.mark.parametrize(
    "field",
    [
        "X-Token", "Access-Token", "X-Session-Id", "X-Auth", "X-Api-Secret", "xi-api-key",
        "X-Tableau-Auth", "X-Tenant-Id", "Stripe-Account", "X-N8N-API-KEY", "CB-ACCESS-PASSPHRASE",
        "DD-APPLICATION-KEY", "Sudo", "OpenAI-Organization", "X-Forwarded-User", "X-On-Behalf-Of",
    ],
)  # fmt: skip
def test_a_field_that_says_who_asks_tells_callers_apart(make: Make, field: str) -> None:
    """No list has them all: the name speaks for itself."""
    with make() as one:
        one.answers(reply(b"ann", cache_control=MINUTE), reply(b"bob", cache_control=MINUTE))
        assert one.client.send("GET", one.url, headers={field: "ann"}).content == b"ann"
        assert one.client.send("GET", one.url, headers={field: "bob"}).content == b"bob"
        assert one.client.send("GET", one.url, headers={field: "ann"}).content == b"ann"


def test_a_field_that_the_user_names_comes_to_the_others(make: Make) -> None:
    """One name may be given as text, and the usual ones count still."""
    with make(headers="X-Who") as one:
        one.answers(*(reply(text, cache_control=MINUTE) for text in (b"1", b"2", b"3")))
        assert one.body(x_who="ann") == b"1"
        assert one.body(x_who="bob") == b"2"
        assert one.body(x_api_key="carl") == b"3"


def test_a_get_with_a_body_is_another_request(make: Make) -> None:
    """Some search APIs ask so."""
    with make() as one:
        one.answers(reply(b"1", cache_control=MINUTE), reply(b"2", cache_control=MINUTE))
        for body, answer in ((b"a", b"1"), (b"b", b"2"), (b"a", b"1")):
            assert one.client.send("GET", one.url, body=body).content == answer


def test_a_shared_cache_keeps_what_the_url_says_apart(make: Make) -> None:
    """`?key=apple` may be what is looked for."""
    with make(shared=True) as one:
        one.answers(*(reply(text, cache_control=f"public, {MINUTE}") for text in (b"1", b"2")))
        assert one.send("GET", f"{PATH}?key=apple").content == b"1"
        assert one.send("GET", f"{PATH}?key=banana").content == b"2"


def test_a_session_that_is_opened_for_one_is_not_anothers(make: Make) -> None:
    """Nobody can tell one caller without a credential from another."""
    with make() as one:
        one.answers(
            reply(cache_control=MINUTE, set_cookie="sid=1"),
            reply(cache_control=MINUTE, set_cookie="sid=2"),
        )
        assert said(one.send()).endswith("detail=set-cookie")
        assert one.send().headers["set-cookie"] == "sid=2"


def test_a_session_that_a_304_opens_is_not_anothers(make: Make, clock: FakeClock) -> None:
    """It is that of whoever asked whether the answer still holds."""
    with make() as one:
        one.answers(
            reply(b"1", cache_control="max-age=1", etag='"a"'),
            reply(b"", 304, cache_control=MINUTE, etag='"a"', set_cookie="sid=anna"),
        )
        one.send()
        clock.advance(2)
        one.send()
        assert one.asked == 2
        one.client.native.cookies.clear()
        assert "set-cookie" not in one.send().headers
        assert one.asked == 2


def test_to_know_better_for_how_long_is_not_to_know_for_whom(make: Make) -> None:
    """A user's own time to live opens nobody's session to others, nor what is private."""
    with make(ttl=60, override=True) as one:
        one.answers(reply(set_cookie="sid=1"))
        assert said(one.send()).endswith("detail=set-cookie")
    with make(ttl=60, override=True, shared=True) as one:
        one.answers(reply(cache_control="private"), reply(b"anna"))
        assert said(one.send()).endswith("detail=private")
        assert said(one.send(authorization="anna")).endswith("detail=authorization")


def test_a_mutation_drops_what_was_read_before(make: Make) -> None:
    """RFC 9111, 4.4: it passes by, and it is a write."""
    with make(ttl=60, methods=["GET", "POST"]) as one:
        one.answers(*(reply(text) for text in (b"1", b"done", b"2")))
        query, mutation = b'{"query": "{a}"}', b'{"query": "mutation {b}"}'
        assert one.client.send("POST", one.url, body=query).content == b"1"
        assert one.client.send("POST", one.url, body=query).content == b"1"
        assert one.client.send("POST", one.url, body=mutation).content == b"done"
        assert one.client.send("POST", one.url, body=query).content == b"2"


def test_what_changes_something_each_time_is_never_kept() -> None:
    """A second DELETE must reach the server."""
    with pytest.raises(ConfigurationError, match="DELETE"):
        Cache(methods=["GET", "DELETE"])


def test_another_host_is_another_answer(make: Make) -> None:
    """Where the user names it apart from the URL."""
    with make() as one:
        one.answers(reply(b"a", cache_control=MINUTE), reply(b"b", cache_control=MINUTE))
        assert one.body(host="a.example") == b"a"
        assert one.body(host="b.example") == b"b"


def test_a_location_that_is_none_breaks_nothing(make: Make) -> None:
    """The request has been acted on: its answer is the user's."""
    with make() as one:
        one.answers(reply(b"made", 201, location="http://[bad/x"))
        assert one.send("POST").status_code == 201


def test_an_answer_that_may_be_kept_no_longer_is_not(make: Make, clock: FakeClock) -> None:
    """RFC 9111, 3: a 304 says so as well as a 200."""
    with make() as one:
        one.answers(
            reply(b"1", cache_control="max-age=1", etag='"a"'),
            reply(b"", 304, cache_control="no-store", etag='"a"'),
            reply(b"2", cache_control=MINUTE),
        )
        one.send()
        clock.advance(2)
        assert one.get() == (b"1", "fwd=stale; fwd-status=304; detail=no-store")
        assert one.body() == b"2"


def test_infinity_is_as_long_as_it_gets(make: Make) -> None:
    """And no error in the midst of a call."""
    with make(ttl=float("inf"), stale_if_error=float("inf")) as one:
        one.answers(reply(b"1"))
        one.send()
        assert one.body() == b"1"
        with options(ttl=10**400):
            assert one.body() == b"1"


@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
def test_cached_only_makes_no_attempt_of_any_kind(make: Make, method: str) -> None:
    """Not even where nothing could be kept."""
    with make() as one, options(cached_only=True):
        assert one.send(method).status_code == 504
        assert one.send(range="bytes=0-1").status_code == 504
        assert one.asked == 0


def test_a_rule_of_nothing_keeps_nothing(make: Make, server: ApiServer) -> None:
    """Whatever the server says."""
    with make(rules={server.url + PATH: 0}) as one:
        one.answers(reply(b"1", cache_control=MINUTE), reply(b"2", cache_control=MINUTE))
        assert one.body() == b"1"
        assert one.body() == b"2"


def test_a_body_that_is_left_in_the_midst_leaves_nothing() -> None:
    """A stream that its user stopped to read, and dropped."""
    recording = Recording(1000, None)
    for _ in RecordedStream([b"1", b"2", b"3"], recording):
        break
    gc.collect()
    assert recording.is_over
    assert recording.body is None


def test_a_very_long_url_is_kept_under_its_hash(make: Make) -> None:
    """Memory is bounded by the answers, not by what asks for them."""
    long = f"{PATH}?{'x' * 5000}"
    with make() as one:
        one.answers(reply(b"1", cache_control=MINUTE), path=PATH)
        assert one.send("GET", long).content == b"1"
        assert one.send("GET", long).content == b"1"


def test_one_method_may_be_given_as_text() -> None:
    """And is not taken letter by letter."""
    assert Cache(methods="GET")._methods == {"GET"}
    assert Dedup(methods="GET")._methods == {"GET"}
