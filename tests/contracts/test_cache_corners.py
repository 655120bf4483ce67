"""RFC 9111 at its edges: ages, validators, variants, invalidation, directives."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from ratekit import options
from ratekit.call import Call, Outcome, Proceed
from ratekit.policy import Policy
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.caching import PATH, Api, Place, api, date, reply, said
from tests.contracts.edges import Edge

MINUTE = "max-age=60"

Make = Callable[..., AbstractContextManager[Api]]


@pytest.fixture
def make(edge: Edge, server: ApiServer, clock: FakeClock, store: Place) -> Make:
    """Give a function that makes a client with these policies behind a cache so made."""

    def made(*policies: Policy, **arguments: Any) -> AbstractContextManager[Api]:
        return api(edge, server, clock, *policies, store=store, **arguments)

    return made


@pytest.fixture
def one(make: Make) -> Iterator[Api]:
    """Give a client with a cache of its own."""
    with make() as made:
        yield made


class _Slow(Policy):
    """Lets five seconds go by before each answer."""

    def __init__(self, clock: FakeClock) -> None:
        self._fake = clock

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        self._fake.advance(5)
        return proceed(call)


# 3: storing.


@pytest.mark.parametrize("status", [302, 307])
def test_3_a_redirect_that_may_change_is_not_kept(one: Api, status: int) -> None:
    """Unless the server says for how long (RFC 9110, 15.4.3)."""
    one.answers(*[reply(b"", status, location="/b", etag='"a"')] * 2)
    one.answers(*[reply(b"b", cache_control=MINUTE)] * 2, path="/b")
    assert [one.send().content for _ in range(2)] == [b"b"] * 2
    assert one.asked == 2
    one.answers(reply(b"", status, location="/b", cache_control=MINUTE))
    assert [one.send().content for _ in range(2)] == [b"b"] * 2
    assert one.asked == 3


def test_3_an_answer_that_may_not_be_kept_ends_the_one_before(one: Api) -> None:
    """What a later answer forbids is forbidden for what was kept before it."""
    one.answers(
        reply(b"1", etag='"a"', cache_control=MINUTE),
        reply(b"2", etag='"b"', cache_control="no-store"),
        reply(b"3"),
    )
    one.send()
    with options(refresh=True):
        assert one.body() == b"2"
    assert one.body() == b"3"
    assert "if-none-match" not in one.fields()


def test_3_1_a_304_brings_no_fields_of_its_connection(one: Api, clock: FakeClock) -> None:
    """What `Connection` names in it is not kept either."""
    one.answers(
        reply(b"1", etag='"a"', cache_control=MINUTE),
        reply(b"", 304, etag='"a"', connection="X-Hop, keep-alive", x_hop="1", x_end="1"),
    )
    one.send()
    clock.advance(61)
    headers = one.send().headers
    assert "x-hop" not in headers
    assert headers["x-end"] == "1"


# 4.1: Vary.


def test_4_1_each_field_counts_also_where_it_is_absent(one: Api) -> None:
    """A field that is absent is like none that is there, nor like one that is empty."""
    callers: list[dict[str, str]] = [
        {"x_a": "1", "x_b": "2"},
        {"x_a": "2", "x_b": "1"},
        {"x_a": "1"},
        {"x_b": "1"},
        {"x_a": ""},
        {},
    ]
    bodies = [b"%d" % n for n in range(len(callers))]
    one.answers(*[reply(body, vary="X-A, x-b", cache_control=MINUTE) for body in bodies])
    for _ in range(2):
        assert [one.body(**caller) for caller in callers] == bodies
    assert one.asked == len(callers)


def test_4_1_what_varies_by_another_field_later_is_kept_apart(one: Api) -> None:
    """An answer is used for a request only if it would be by all that the server has said."""
    one.answers(
        reply(b"de", vary="accept-language", cache_control=MINUTE),
        reply(b"en", vary="accept-language, x-a", cache_control=MINUTE),
        reply(b"en 2", vary="accept-language, x-a", cache_control=MINUTE),
    )
    one.send(accept_language="de")
    assert one.body(accept_language="en", x_a="1") == b"en"
    assert one.body(accept_language="en", x_a="2") == b"en 2"
    assert one.get(accept_language="en", x_a="1") == (b"en", "hit; ttl=60")


# 4.2: freshness and age.


@pytest.mark.parametrize(
    ("control", "seconds"),
    [("max-age=99999999999999999999", 1 << 31), ("max-age=4294967296", 1 << 31)],
)
def test_1_2_2_what_is_too_large_a_number_is_a_very_long_time(
    one: Api, control: str, seconds: int
) -> None:
    """2^31 seconds stand for all of them."""
    one.answers(reply(cache_control=control))
    one.send()
    assert said(one.send()) == f"hit; ttl={seconds}"


def test_4_2_2_a_guess_is_never_longer_than_a_day(one: Api, clock: FakeClock) -> None:
    """However long ago it was changed."""
    one.answers(reply(date=date(clock), last_modified="Thu, 01 Jan 1970 00:00:00 GMT"))
    one.send()
    assert said(one.send()) == "hit; ttl=86400"


def test_4_2_1_expires_in_the_form_of_asctime(one: Api, clock: FakeClock) -> None:
    """The third of the forms that a recipient must accept (RFC 9110, 5.6.7)."""
    text = date(clock, 60)
    day, month, year, time = int(text[5:7]), text[8:11], text[12:16], text[17:25]
    one.answers(reply(date=date(clock), expires=f"{text[:3]} {month} {day:2} {time} {year}"))
    one.send()
    assert said(one.send()) == "hit; ttl=60"


@pytest.mark.parametrize("age", ["0", "5"])
@pytest.mark.parametrize(
    "fields",
    [{"expires": "Fri, 31 Dec 9999 23:59:59 GMT"}, {"cache_control": "max-age=4294967296"}],
)
def test_4_2_1_what_never_ends_is_fresh(one: Api, fields: dict[str, str], age: str) -> None:
    """Servers say so in either way, and caches on the road have kept it a while."""
    one.answers(reply(b"1", age=age, **fields), reply(b"2"))
    one.send()
    assert one.body() == b"1"


def test_what_a_user_keeps_for_ever_may_be_old_already(make: Make) -> None:
    """Its time begins when it is received."""
    with make(ttl=float("inf")) as one:
        one.answers(reply(b"1", age="5"), reply(b"2"))
        one.send()
        assert one.body() == b"1"


def test_4_2_3_the_time_that_an_answer_took_counts_as_age(make: Make, clock: FakeClock) -> None:
    """It may have been made as soon as it was asked for."""
    with make(_Slow(clock)) as one:
        one.answers(reply(age="10", cache_control=MINUTE))
        one.send()
        again = one.send()
        assert (said(again), again.headers["age"]) == ("hit; ttl=45", "15")


def test_5_1_a_hit_has_one_age(one: Api, clock: FakeClock) -> None:
    """Its own, and not the one that was received as well."""
    one.answers(reply(age="7", cache_control=MINUTE))
    one.send()
    clock.advance(3)
    assert one.send().headers["age"] == "10"


def test_4_2_3_a_304_counts_its_own_age(one: Api, clock: FakeClock) -> None:
    """The age of the answer before it is over."""
    one.answers(
        reply(b"1", etag='"a"', age="50", cache_control=MINUTE),
        reply(b"", 304, etag='"a"', age="20", cache_control=MINUTE),
    )
    one.send()
    clock.advance(11)
    renewed = one.send()
    assert (renewed.content, renewed.headers["age"]) == (b"1", "20")
    assert said(one.send()) == "hit; ttl=40"


# 4.3: validation.


def test_4_3_1_the_fields_that_we_add_are_not_in_the_users_request(
    one: Api, clock: FakeClock
) -> None:
    """What he sent is what he finds on the answer, and sends again."""
    one.answers(
        reply(b"1", etag='"a"', cache_control=MINUTE), reply(b"", 304, etag='"a"'), reply(b"2")
    )
    one.send()
    clock.advance(61)
    renewed = one.send()
    assert one.fields()["if-none-match"] == '"a"'
    assert "if-none-match" not in renewed.request.headers


def test_4_3_a_date_alone_validates(one: Api, clock: FakeClock) -> None:
    """`If-Modified-Since` is what the server said itself, to the letter."""
    changed = date(clock, -1000)
    one.answers(
        reply(b"1", last_modified=changed, cache_control=MINUTE),
        reply(b"", 304, cache_control=MINUTE),
    )
    one.send()
    clock.advance(61)
    assert one.get() == (b"1", "fwd=stale; fwd-status=304; stored")
    assert one.fields()["if-modified-since"] == changed
    assert "if-none-match" not in one.fields()


def test_4_3_what_has_no_validator_is_asked_for_as_it_is(one: Api, clock: FakeClock) -> None:
    """No condition can be made of nothing."""
    one.answers(reply(b"1", cache_control=MINUTE), reply(b"2"))
    one.send()
    clock.advance(61)
    assert one.body() == b"2"
    assert not {"if-none-match", "if-modified-since"} & set(one.fields())


@pytest.mark.parametrize(
    ("seconds", "status"), [(0, 304), (1, 304), (-1, 200), (None, 200)], ids=str
)
def test_4_3_2_a_users_date_is_compared_with_that_of_what_is_kept(
    one: Api, clock: FakeClock, seconds: float | None, status: int
) -> None:
    """One that is no date is as if it were not there."""
    one.answers(reply(b"1", last_modified=date(clock, -1000), cache_control=MINUTE))
    one.send()
    text = "yesterday" if seconds is None else date(clock, -1000 + seconds)
    response = one.send(if_modified_since=text)
    assert (response.status_code, said(response)) == (status, "hit; ttl=60")


@pytest.mark.parametrize(
    ("known", "status"), [("*", 304), ('"a"', 304), ('W/"a"', 304), ('"b"', 200), ("a", 200)]
)
def test_4_3_2_a_tag_goes_before_a_date(
    one: Api, clock: FakeClock, known: str, status: int
) -> None:
    """Where both are there the date is not looked at (RFC 9110, 13.2.2); tags compare weakly."""
    changed = date(clock, -1000)
    one.answers(reply(b"1", etag='W/"a"', last_modified=changed, cache_control=MINUTE))
    one.send()
    response = one.send(if_none_match=known, if_modified_since=changed)
    assert response.status_code == status
    assert response.content == (b"" if status == 304 else b"1")


def test_4_3_4_a_304_of_another_answer_is_not_said_to_be_stored(one: Api, clock: FakeClock) -> None:
    """It renews nothing, and the next request asks again."""
    one.answers(
        reply(b"1", etag='"a"', cache_control=MINUTE),
        reply(b"", 304, etag='"b"', cache_control=MINUTE),
        reply(b"2"),
    )
    one.send()
    clock.advance(61)
    assert "stored" not in said(one.send())
    assert one.body() == b"2"


# 4.4: invalidation.


def test_4_4_what_may_have_been_done_drops_what_is_kept(one: Api) -> None:
    """A POST that was sent and not answered may have changed everything."""
    one.answers(reply(b"1", cache_control=MINUTE), Answer(fault="reset"), reply(b"2"))
    one.send()
    with pytest.raises(one.edge.error):
        one.send("POST", PATH)
    assert one.body() == b"2"


def test_4_4_what_was_surely_not_done_drops_nothing(
    edge: Edge, clock: FakeClock, store: Place
) -> None:
    """Nobody listened."""
    with ApiServer(rate=None) as server, api(edge, server, clock, store=store) as one:
        one.answers(reply(b"1", cache_control=MINUTE))
        one.send()
        server.stop()
        with pytest.raises(edge.unreachable):
            one.send("POST", PATH)
        assert one.get() == (b"1", "hit; ttl=60")


@pytest.mark.parametrize("name", ["location", "content_location"])
def test_4_4_another_origin_is_never_dropped(one: Api, name: str) -> None:
    """Else any server could empty the cache of all others: the same host by name is another."""
    elsewhere = one.url.replace("127.0.0.1", "localhost")
    one.answers(reply(b"1", cache_control=MINUTE), reply(b"", 201, **{name: one.url}))
    one.answers(reply(b"", 201, **{name: elsewhere}), path="/b")
    one.send()
    # From there to here, and from here to what is only called the same there.
    one.client.send("POST", elsewhere)
    one.send("POST", "/b")
    assert one.get() == (b"1", "hit; ttl=60")


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_4_4_a_safe_method_drops_nothing(one: Api, method: str) -> None:
    """Whatever it is answered with."""
    one.answers(*[reply(cache_control=MINUTE)] * 2)
    one.send()
    with options(refresh=True):
        assert said(one.send(method, PATH)).startswith("fwd=")
    assert said(one.send()) == "hit; ttl=60"


def test_4_4_a_write_to_a_host_that_the_field_names_drops_what_is_kept_of_it(one: Api) -> None:
    """Asked for by the same field it is the same URL."""
    one.answers(reply(b"1", cache_control=MINUTE), reply(b""), reply(b"2"))
    one.send(host="a.example")
    one.send("POST", PATH, host="a.example")
    assert one.body(host="a.example") == b"2"


# 5.2.1: what a request may say.


def test_5_2_1_7_what_is_not_kept_is_a_504(one: Api) -> None:
    """Nothing is sent, and the status says why."""
    response = one.send(cache_control="only-if-cached")
    assert (response.status_code, response.content) == (504, b"")
    assert said(response) == "fwd=uri-miss; detail=only-if-cached"
    assert one.edge.details(response).attempts == 0
    assert one.asked == 0


def test_5_2_1_5_a_request_that_is_not_to_be_stored_leaves_what_is_kept(one: Api) -> None:
    """It is answered from there, and its own answer is not put there."""
    one.answers(reply(b"1", cache_control=MINUTE), reply(b"2", cache_control=MINUTE))
    one.send()
    assert one.body(cache_control="no-store") == b"1"
    assert one.body() == b"1"
