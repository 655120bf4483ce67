"""RFC 9111 through real clients: what is kept, when it is used again, and what drops it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from ratekit import Cache, Dedup, Pipeline, options
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.caching import PATH, Api, Place, api, date, reply, said
from tests.contracts.edges import Edge

MINUTE = "max-age=60"


@pytest.fixture
def make(edge: Edge, server: ApiServer, clock: FakeClock, store: Place) -> Callable[..., Any]:
    """Give a function that makes a client whose cache takes these arguments."""

    def made(**arguments: Any) -> AbstractContextManager[Api]:
        return api(edge, server, clock, store=store, **arguments)

    return made


@pytest.fixture
def one(make: Callable[..., Any]) -> Any:
    """Give a client with a cache of its own."""
    with make() as made:
        yield made


# 3: storing.


def test_3_a_fresh_answer_is_used_again(one: Api, clock: FakeClock) -> None:
    """One request, and then none until it is no longer fresh."""
    one.answers(reply(b"1", cache_control=MINUTE), reply(b"2", cache_control=MINUTE))
    assert one.get() == (b"1", "fwd=uri-miss; fwd-status=200; stored")
    clock.advance(59.5)
    assert one.get() == (b"1", "hit; ttl=0")
    clock.advance(1)
    assert one.get() == (b"2", "fwd=stale; fwd-status=200; stored")
    assert one.asked == 2


NOT_KEPT: list[tuple[Answer, dict[str, str], str]] = [
    (reply(cache_control="no-store"), {}, "no-store"),
    (reply(cache_control="max-age=60, no-store"), {}, "no-store"),
    (reply(cache_control='private="x, max-age=60'), {}, "no-store"),
    (reply(), {}, "no-freshness"),
    (reply(cache_control="public"), {}, "no-freshness"),
    (reply(vary="*", cache_control=MINUTE), {}, "vary"),
    (reply(status=500, cache_control=MINUTE), {}, "status"),
    (reply(status=429, cache_control=MINUTE), {}, "status"),
    (reply(status=206, cache_control=MINUTE), {}, "status"),
    (reply(status=201, etag='"a"'), {}, "status"),
    (reply(cache_control=MINUTE), {"cache_control": "no-store"}, "request-no-store"),
    (reply(cache_control="must-understand, max-age=60", status=299), {}, "must-understand"),
]


@pytest.mark.parametrize(("answer", "fields", "why"), NOT_KEPT, ids=str)
def test_3_what_may_not_be_kept_is_not(
    one: Api, answer: Answer, fields: dict[str, str], why: str
) -> None:
    """Each time the server is asked, and the answer says why."""
    one.answers(answer, answer)
    for _ in range(2):
        assert said(one.send(**fields)).endswith(f"; detail={why}")
    assert one.asked == 2


KEPT: list[Answer] = [
    reply(cache_control="max-age=60"),
    reply(cache_control="MAX-AGE=60 , private"),
    reply(cache_control='max-age="60"'),
    reply(cache_control="private, max-age=60", x_any="a=b"),
    reply(cache_control="must-understand, no-store, max-age=60"),
    reply(status=404, cache_control=MINUTE),
    reply(status=201, cache_control=MINUTE),
    reply(status=204, body=b"", cache_control=MINUTE),
]


@pytest.mark.parametrize("answer", KEPT, ids=str)
def test_3_what_may_be_kept_is(one: Api, answer: Answer) -> None:
    """Also an answer with credentials, a cookie, or an error that has a lifetime."""
    one.answers(answer)
    first = one.send(authorization="Bearer a")
    second = one.send(authorization="Bearer a")
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert said(second) == "hit; ttl=60"


def test_3_1_fields_of_one_connection_are_not_kept(one: Api) -> None:
    """`Connection` and what it names belong to the connection that they came over."""
    one.answers(
        reply(cache_control=MINUTE, connection="X-Hop, keep-alive", x_hop="1", x_end="1"),
    )
    assert "x-hop" in one.send().headers
    again = one.send().headers
    assert "x-hop" not in again
    assert "connection" not in again
    assert again["x-end"] == "1"


# 4: constructing an answer.


def test_4_1_variants_are_kept_side_by_side(one: Api) -> None:
    """Each combination of the fields that `Vary` names has its answer."""
    for body in (b"de", b"en", b"-"):
        one.answers(reply(body, cache_control=MINUTE, vary="Accept-Language"))
    assert one.get(accept_language="de")[1].startswith("fwd=uri-miss")
    assert one.get(accept_language="en")[1].startswith("fwd=vary-miss")
    assert one.get()[1].startswith("fwd=vary-miss")
    for language, body in (("de", b"de"), ("en", b"en")):
        assert one.get(accept_language=language) == (body, "hit; ttl=60")
    assert one.body() == b"-"
    assert one.asked == 3


def test_4_1_white_space_in_a_list_makes_no_variant(one: Api) -> None:
    """Nothing else is taken for equal."""
    one.answers(*[reply(cache_control=MINUTE, vary="accept")] * 2)
    one.send(accept="a, b")
    assert said(one.send(accept="a ,b")) == "hit; ttl=60"
    assert said(one.send(accept="b, a")).startswith("fwd=vary-miss")


@pytest.mark.parametrize(
    ("fields", "fresh"),
    [
        ({"cache_control": "max-age=60", "expires": "0"}, 60),
        ({"cache_control": "s-maxage=5, max-age=60"}, 60),
        ({"cache_control": "max-age=60, max-age=30"}, 30),
        ({"expires": "+60"}, 60),
        ({"expires": "+60", "date": "+10"}, 50),
        ({"expires": "+60 rfc850"}, 60),
        ({"last_modified": "-1000"}, 100),
        ({"last_modified": "-1000", "cache_control": "max-age=5"}, 5),
    ],
    ids=str,
)
def test_4_2_1_freshness(one: Api, clock: FakeClock, fields: dict[str, str], fresh: int) -> None:
    """max-age, then Expires, then a tenth of the age since the last change."""
    made = {name: _dated(clock, value) for name, value in fields.items()}
    made.setdefault("date", date(clock))
    one.answers(reply(etag='"a"', **made))
    one.send()
    assert said(one.send()) == f"hit; ttl={fresh}"


def _dated(clock: FakeClock, value: str) -> str:
    if value[0] not in "+-" or value == "0":
        return value
    text = date(clock, float(value.split(maxsplit=1)[0]))
    if value.endswith("rfc850"):
        day, month, year, time = text[5:7], text[8:11], text[14:16], text[17:25]
        text = f"Monday, {day}-{month}-{year} {time} GMT"
    return text


@pytest.mark.parametrize(
    "fields",
    [
        {"cache_control": "max-age=abc"},
        {"cache_control": "max-age=-1"},
        {"cache_control": "max-age=1.5"},
        {"cache_control": "max-age"},
        {"cache_control": "max-age=60, max-age=x"},
        {"expires": "0"},
        {"expires": "-1"},
        {"expires": "Mon, 12 Jan 2099 13:46:40 +0000"},
        {"expires": "2099-01-12T13:46:40Z"},
        {"cache_control": "no-cache, max-age=60"},
    ],
    ids=str,
)
def test_4_2_1_what_is_doubtful_is_not_fresh(one: Api, fields: dict[str, str]) -> None:
    """A lifetime that is none is over, and is not guessed in its place."""
    one.answers(*[reply(etag='"a"', last_modified="Mon, 01 Jan 1900 00:00:00 GMT", **fields)] * 2)
    one.send()
    assert said(one.send()).startswith("fwd=stale")


def test_4_2_3_an_age_that_was_received_counts(one: Api, clock: FakeClock) -> None:
    """What was 50 seconds old is fresh for 10 more, and says how old it is."""
    one.answers(reply(age="50", cache_control=MINUTE), reply(b"2"))
    one.send()
    clock.advance(1.2)
    again = one.send()
    assert said(again) == "hit; ttl=8"
    assert again.headers["age"] == "51"
    clock.advance(9)
    assert one.body() == b"2"


def test_4_2_3_an_old_date_counts_as_age(one: Api, clock: FakeClock) -> None:
    """What was dated a minute ago is a minute old."""
    one.answers(reply(date=date(clock, -50), cache_control=MINUTE))
    one.send()
    assert said(one.send()) == "hit; ttl=10"


# 4.3: validation.


def test_4_3_a_304_renews_what_is_kept(one: Api, clock: FakeClock) -> None:
    """The fields of the 304 replace the kept ones, and the body stays."""
    one.answers(
        reply(b"1", etag='"a"', last_modified="x", cache_control=MINUTE, x_a="1", x_b="1"),
        reply(b"", 304, etag='"a"', cache_control="max-age=90", x_a="2", content_length="0"),
    )
    one.send()
    clock.advance(61)
    renewed = one.send()
    assert (renewed.status_code, renewed.content) == (200, b"1")
    assert said(renewed) == "fwd=stale; fwd-status=304; stored"
    assert one.fields()["if-none-match"] == '"a"'
    assert one.fields()["if-modified-since"] == "x"
    clock.advance(89)
    again = one.send()
    assert said(again) == "hit; ttl=1"
    assert (again.headers["x-a"], again.headers["x-b"]) == ("2", "1")
    assert again.headers["content-length"] == "1"
    assert again.content == b"1"


def test_4_3_a_new_answer_replaces_what_is_kept(one: Api, clock: FakeClock) -> None:
    """A 200 in place of the 304 is the answer from then on."""
    one.answers(
        reply(b"1", etag='"a"', cache_control=MINUTE), reply(b"2", etag='"b"', cache_control=MINUTE)
    )
    one.send()
    clock.advance(61)
    assert one.body() == b"2"
    assert one.get() == (b"2", "hit; ttl=60")


def test_4_3_no_cache_is_validated_each_time(one: Api) -> None:
    """It is kept, and asked for all the same."""
    one.answers(
        reply(b"1", etag='"a"', cache_control="no-cache"), reply(b"", 304, etag='"a"'), reply(b"2")
    )
    assert [one.body() for _ in range(3)] == [b"1", b"1", b"2"]


def test_4_3_2_a_users_own_condition_is_answered_with_304(one: Api, clock: FakeClock) -> None:
    """From what is kept while that is fresh, and by the server afterwards."""
    one.answers(
        reply(b"1", etag='"a"', cache_control=MINUTE, x_quota="9"),
        reply(b"", 304, etag='"a"', cache_control=MINUTE),
    )
    one.send()
    mine = one.send(if_none_match='"z", W/"a"')
    assert (mine.status_code, mine.content, said(mine)) == (304, b"", "hit; ttl=60")
    assert mine.headers["etag"] == '"a"'
    assert mine.headers["x-quota"] == "9"
    assert one.send(if_none_match='"z"').status_code == 200
    assert one.asked == 1
    clock.advance(61)
    mine = one.send(if_none_match='"a"')
    assert mine.status_code == 304
    assert one.fields()["if-none-match"] == '"a"'
    assert "if-modified-since" not in one.fields()
    # It was true of what is kept as well.
    assert one.get() == (b"1", "hit; ttl=60")


def test_4_3_2_a_304_to_another_tag_renews_nothing(one: Api, clock: FakeClock) -> None:
    """The user holds another answer than the one that is kept."""
    one.answers(reply(b"1", etag='"a"', cache_control=MINUTE), reply(b"", 304), reply(b"2"))
    one.send()
    clock.advance(61)
    assert one.send(if_none_match='"b"').status_code == 304
    assert one.body() == b"2"


# 4.4: invalidation.


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
@pytest.mark.parametrize(("status", "dropped"), [(200, True), (303, True), (400, False)])
def test_4_4_an_unsafe_method_drops_what_is_kept(
    one: Api, method: str, status: int, *, dropped: bool
) -> None:
    """For every user and variant, unless the server refused it."""
    first, second = (reply(body, cache_control=MINUTE, vary="accept") for body in (b"1", b"2"))
    one.answers(first, first, reply(b"", status), second, second)
    one.send(authorization="a")
    one.send(accept="x")
    one.send(method, PATH, authorization="b")
    assert one.body(authorization="a") == (b"2" if dropped else b"1")
    assert one.body(accept="x") == (b"2" if dropped else b"1")


def test_4_4_where_it_says_that_the_result_is_is_dropped_too(one: Api) -> None:
    """`Location` and `Content-Location`, if they are of the same origin."""
    for path in ("/b", "/c", "/d"):
        one.answers(*[reply(cache_control=MINUTE)] * 2, path=path)
        one.send("GET", path)
    elsewhere = f"http://127.0.0.1:1{'/d'}"
    one.answers(reply(b"", 201, location="/b", content_location=one.url.replace(PATH, "/c")))
    one.send("POST", PATH)
    one.answers(reply(b"", 201, location=elsewhere))
    one.send("POST", PATH)
    states = [said(one.send("GET", path))[:3] for path in ("/b", "/c", "/d")]
    assert states == ["fwd", "fwd", "hit"]


# 5.2.1: what a request may say.


@pytest.mark.parametrize(
    ("asks", "after", "status"),
    [
        ("max-age=10", 5, "hit; ttl=55"),
        ("max-age=10", 11, "fwd=request; fwd-status=200; stored"),
        ("max-age=x", 5, "fwd=request; fwd-status=200; stored"),
        ("min-fresh=50", 5, "hit; ttl=55"),
        ("min-fresh=50", 11, "fwd=request; fwd-status=200; stored"),
        ("no-cache", 0, "fwd=request; fwd-status=200; stored"),
        ("max-stale", 1000, "hit; ttl=-940"),
        ("max-stale=10", 65, "hit; ttl=-5"),
        ("max-stale=10", 75, "fwd=stale; fwd-status=200; stored"),
        ("max-stale=x", 65, "fwd=stale; fwd-status=200; stored"),
        ("only-if-cached", 0, "hit; ttl=60"),
        ("only-if-cached", 61, "fwd=stale; detail=only-if-cached"),
    ],
)
def test_5_2_1_what_a_request_asks_for(
    one: Api, clock: FakeClock, asks: str, after: float, status: str
) -> None:
    """A request may want less than what is fresh, or more."""
    one.answers(*[reply(cache_control=MINUTE)] * 2)
    one.send()
    clock.advance(after)
    response = one.send(cache_control=asks)
    assert said(response) == status
    assert response.status_code == (504 if "detail" in status else 200)


def test_5_4_pragma_is_no_cache_where_nothing_else_is_said(one: Api) -> None:
    """As clients of long ago said it."""
    one.answers(*[reply(cache_control=MINUTE)] * 2)
    one.send()
    assert said(one.send(pragma="no-cache")).startswith("fwd=request")


@pytest.mark.parametrize("said_so", ["must-revalidate", "no-cache"])
def test_4_2_4_what_must_be_validated_is_never_stale(
    one: Api, clock: FakeClock, said_so: str
) -> None:
    """Not even for a request that would take it."""
    one.answers(*[reply(etag='"a"', cache_control=f"max-age=60, {said_so}")] * 2)
    one.send()
    clock.advance(61)
    assert said(one.send(cache_control="max-stale")).startswith("fwd=stale")


# Methods, parts, bodies.


def test_a_head_is_answered_from_what_a_get_left(one: Api) -> None:
    """With the fields of the GET's answer and no body."""
    one.answers(reply(b"123", cache_control=MINUTE))
    one.send()
    response = one.send("HEAD", PATH)
    assert (response.content, said(response)) == (b"", "hit; ttl=60")
    assert response.headers["content-length"] == "3"


def test_a_head_leaves_nothing(one: Api) -> None:
    """Its answer has no body to keep."""
    one.answers(*[reply(b"", cache_control=MINUTE)] * 2)
    assert said(one.send("HEAD", PATH)) == "fwd=uri-miss; fwd-status=200"
    assert said(one.send()).startswith("fwd=uri-miss")


@pytest.mark.parametrize("name", ["range", "if_range", "if_match", "if_unmodified_since"])
def test_a_part_passes_by(one: Api, name: str) -> None:
    """No parts are kept, and none is cut out of what is kept."""
    one.answers(reply(b"123", cache_control=MINUTE), reply(b"12", 206, cache_control=MINUTE))
    one.send()
    assert said(one.send(**{name: "bytes=0-1"})) == "fwd=bypass"
    assert one.body() == b"123"


@pytest.mark.parametrize("fault", ["truncate", "reset-body"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_breaks_off_is_not_kept(one: Api, fault: Any, *, chunked: bool) -> None:
    """The error is the user's, and the next request is asked."""
    fields = [("Cache-Control", MINUTE)]
    fields += [("Transfer-Encoding", "chunked")] if chunked else []
    body = b"5\r\n12345\r\n5\r\n12345\r\n0\r\n\r\n" if chunked else b"1234567890"
    one.answers(Answer(200, fields, body, fault=fault), reply(b"whole", cache_control=MINUTE))
    with pytest.raises((one.edge.error, OSError)):
        one.body()
    assert one.get() == (b"whole", "fwd=uri-miss; fwd-status=200; stored")


def test_a_body_that_ends_with_its_connection_is_not_kept(one: Api) -> None:
    """Nobody can tell whether that was all of it."""
    raw = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\n\r\nhalf"
    one.answers(*[Answer(body=raw, fault="garbage")] * 2)
    for _ in range(2):
        assert one.get() == (b"half", "fwd=uri-miss; fwd-status=200; detail=length")


def test_what_was_kept_goes_when_a_new_answer_may_not_be(one: Api) -> None:
    """It is older than what the server said last."""
    one.answers(reply(b"1", cache_control=MINUTE), reply(b"2", cache_control="no-store"), reply())
    one.send()
    one.send(cache_control="no-cache")
    assert said(one.send()).startswith("fwd=uri-miss")


def test_a_cache_status_of_others_stays(one: Api) -> None:
    """Ours is added at the end (RFC 9211)."""
    one.answers(reply(cache_control=MINUTE, cache_status="cdn; hit"))
    assert one.send().headers["cache-status"].startswith("cdn; hit, ratekit; fwd=uri-miss")
    assert one.send().headers["cache-status"] == "cdn; hit, ratekit; hit; ttl=60"


# Whose answer.


def test_nobody_gets_an_answer_of_somebody_else(one: Api) -> None:
    """Tokens, cookies, keys in fields and in the URL: each has its own, and each is kept."""
    callers: list[dict[str, str]] = [
        {"authorization": "Bearer a"},
        {"authorization": "Bearer b"},
        {"cookie": "s=a"},
        {"cookie": "s=b"},
        {"x_api_key": "a"},
        {"x_api_key": "b"},
        {},
    ]
    one.answers(*[reply(b"%d" % n, cache_control=MINUTE) for n in range(len(callers) + 2)])
    for _ in range(2):
        bodies = [one.body(**caller) for caller in callers]
        bodies += [one.send("GET", f"{PATH}?api_key={key}").content for key in "ab"]
        assert bodies == [b"%d" % n for n in range(len(callers) + 2)]
    assert one.asked == len(callers) + 2


def test_the_order_of_a_query_counts(one: Api) -> None:
    """Only what RFC 3986 calls the same URL is taken for the same."""
    one.answers(*[reply(b"%d" % n, cache_control=MINUTE) for n in range(4)])
    assert one.send("GET", f"{PATH}?x=1&y=2").content == b"0"
    assert one.send("GET", f"{PATH}?y=2&x=1").content == b"1"
    assert one.send("GET", f"{PATH}?x=%7e1&y=%c3%a9").content == b"2"
    assert one.send("GET", f"{PATH}?x=~1&y=%C3%A9").content == b"2"


def test_a_shared_cache_keeps_what_it_may(make: Callable[..., Any], clock: FakeClock) -> None:
    """RFC 9111, 3.5: with credentials only what the server opens; nothing that is private."""
    with make(shared=True) as one:
        one.answers(
            reply(cache_control=MINUTE),
            reply(cache_control="private, max-age=60"),
            reply(cache_control=MINUTE, set_cookie="a=1"),
            reply(b"all", cache_control="max-age=5, s-maxage=60"),
        )
        assert said(one.send(authorization="a")).endswith("detail=authorization")
        assert said(one.send()).endswith("detail=private")
        assert said(one.send()).endswith("detail=set-cookie")
        assert said(one.send(authorization="a")).endswith("stored")
        clock.advance(10)
        assert one.get(authorization="b") == (b"all", "hit; ttl=50")


# What the user says.


def test_a_time_to_live_of_the_users(make: Callable[..., Any], clock: FakeClock) -> None:
    """Where the server says nothing; what it says goes first."""
    with make(ttl=300) as one:
        one.answers(reply(b"1"), reply(b"2", cache_control="max-age=5"), reply(b"3", status=404))
        one.send()
        clock.advance(299)
        assert one.get() == (b"1", "hit; ttl=1")
        clock.advance(2)
        one.send()
        assert one.get() == (b"2", "hit; ttl=5")
        clock.advance(6)
        assert one.get()[1] == "fwd=stale; fwd-status=404; detail=no-freshness"


def test_a_user_who_knows_better(make: Callable[..., Any], clock: FakeClock) -> None:
    """`override` holds against `no-store` and its kin, and its age begins when it is received."""
    with make(ttl=300, override=True) as one:
        one.answers(reply(b"1", cache_control="no-store, no-cache", age="100"), reply(b"2"))
        one.send()
        clock.advance(299)
        assert one.get() == (b"1", "hit; ttl=1")


def test_rules_by_url(make: Callable[..., Any], server: ApiServer) -> None:
    """The first that matches counts; 0 keeps nothing."""
    rules = {f"{server.url}/a/*": 10, f"{server.url}/a*": 20, f"{server.url}/*": 0}
    with make(ttl=300, rules=rules) as one:
        for path in ("/a/x", "/ab?q=1", "/b"):
            one.send("GET", path)
        states = [said(one.send("GET", path)) for path in ("/a/x", "/ab?q=1", "/b")]
        assert states == ["hit; ttl=10", "hit; ttl=20", "fwd=uri-miss; fwd-status=200; detail=ttl"]


def test_what_one_call_may_choose(one: Api) -> None:
    """`ttl`, `refresh`, `cached_only` and `no_cache`, for a block of calls."""
    one.answers(*[reply(b"%d" % n) for n in range(6)])
    with options(cached_only=True):
        assert one.send().status_code == 504
    with options(ttl=60):
        assert one.body() == b"0"
    assert one.get() == (b"0", "hit; ttl=60")
    with options(no_cache=True):
        assert one.get() == (b"1", "fwd=bypass")
    assert one.body() == b"0"
    with options(refresh=True, ttl=30):
        assert one.get() == (b"2", "fwd=request; fwd-status=200; stored")
    with options(cached_only=True):
        assert one.get() == (b"2", "hit; ttl=30")


def test_posts_are_kept_by_their_bodies_where_the_user_asks_for_that(
    make: Callable[..., Any],
) -> None:
    """An order of values that differs is another question (a peer's cache sorts them)."""
    with make(ttl=60, methods=["GET", "POST"]) as one:
        bodies = [b"[1, 2]", b"[2, 1]"]
        one.answers(*[reply(body) for body in bodies])
        for _ in range(2):
            seen = [one.client.send("POST", one.url, body=body) for body in bodies]
            assert [response.content for response in seen] == bodies
        assert one.asked == 2


def test_a_write_of_graphql_is_always_made(make: Callable[..., Any]) -> None:
    """Whatever was asked to be cached: a mutation is not left out."""
    with make(ttl=60, methods=["GET", "POST"]) as one:
        for _ in range(2):
            one.client.send("POST", one.url, body=b'{"query": "mutation { pay }"}')
        assert one.asked == 2


def test_what_the_user_forgets(
    edge: Edge, server: ApiServer, clock: FakeClock, store: Place
) -> None:
    """`forget` drops a URL for everybody, `clear` all of it."""
    cache = Cache(clock=clock, store=store)
    headers = [{"Authorization": "a"}, {}]
    with edge.client(Pipeline(cache, Dedup())) as client:
        url = server.url + PATH
        server.script(PATH, *[reply(cache_control=MINUTE)] * 6)

        def states() -> set[str]:
            return {said(client.get(url, headers=header)) for header in headers}

        assert states() == {"fwd=uri-miss; fwd-status=200; stored"}
        cache.forget(url.upper().replace(PATH.upper(), PATH))
        assert states() == {"fwd=uri-miss; fwd-status=200; stored"}
        assert states() == {"hit; ttl=60"}
        cache.clear()
        assert states() == {"fwd=uri-miss; fwd-status=200; stored"}
        info = cache.info()
        assert (info["hits"], info["misses"]) == (2, 6)


def test_a_cache_in_memory_knows_what_it_holds(edge: Edge, server: ApiServer) -> None:
    """`info` says how many answers there are, and how large they are together."""
    # In memory only: memcached does not say which of all that it holds is this cache's.
    cache = Cache()
    with edge.client(Pipeline(cache)) as client:
        server.script(PATH, *[reply(cache_control=MINUTE)] * 2)
        for header in ({"Authorization": "a"}, {}):
            client.get(server.url + PATH, headers=header)
        assert cache.info()["entries"] == 2
        assert cache.info()["bytes"] > 0
        cache.clear()
        assert (cache.info()["entries"], cache.info()["bytes"]) == (0, 0)
