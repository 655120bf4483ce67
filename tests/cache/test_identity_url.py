"""Which answer is meant: the URL, the variant, the body, and what a request says besides."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from ratekit.call import Call
from tests.cache.asking import OF_BOTH, ORIGIN, PLAIN, asked, described, key

# The URL (RFC 3986, 6.2.2).


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://api.example.com", "/"),
        ("https://api.example.com?a", "/?a"),
        ("HTTPS://API.Example.com:443/a", "/a"),
        ("/a#top", "/a"),
        ("/a?b=1#c?d", "/a?b=1"),
        ("/%7ea%2Db%5f%2e%41", "/~a-b_.A"),
        ("/%c3%a9", "/%C3%A9"),
        ("/a%2fb", "/a%2Fb"),
        ("/a?x=%7e&y=%2f", "/a?x=~&y=%2F"),
        ("/a%", "/a%"),
        ("/a%zz", "/a%zz"),
        ("/a%25%37e", "/a%257e"),
    ],
)
def test_6_2_2_what_is_called_differently_and_the_same(url: str, same: str) -> None:
    """The case of the host, its usual port, an empty path, percent-encoding that is not needed."""
    assert asked(url).url == ORIGIN + same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/a?x=1&y=2", "/a?y=2&x=1"),
        ("/a?x=1&x=2", "/a?x=2&x=1"),
        ("/a", "/a?"),
        ("/a", "/a/"),
        ("/a", "/A"),
        ("/a//b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a?x=1", "/a?x=1&"),
        ("/a?x", "/a?x="),
        ("/a?x=1+2", "/a?x=1%202"),
        ("/a%2Fb", "/a/b"),
        ("/a%3Fb", "/a?b"),
        ("/a", "http://api.example.com/a"),
        ("/a", "https://api.example.com:444/a"),
        ("/" + "a" * 5000, "/" + "a" * 5001),
    ],
)
def test_6_2_2_what_may_be_another_is_another(one: str, other: str) -> None:
    """The order of a query above all."""
    assert asked(one).url != asked(other).url


def test_where_a_credential_stands_in_a_query_counts() -> None:
    """Its order is not changed for that."""
    assert key("/a?token=x&b=1") != key("/a?b=1&token=x")
    assert key("/a?token=x&key=y") != key("/a?key=y&token=x")


def test_a_long_url_is_kept_short() -> None:
    """And still its own, with the hash of what was in it."""
    long = asked(f"/a?api_key=x&q={'z' * 100_000}")
    assert len(long.url) < 200
    assert long.url == asked(f"/a?q={'z' * 100_000}").url


# Variants (RFC 9111, 4.1).


@OF_BOTH
def test_4_1_the_fields_that_vary_say_which_variant_it_is(kind: Any) -> None:
    """Each by its name and value; one that is absent is like no other."""
    requests = [
        {},
        {"Accept": ""},
        {"Accept": "a"},
        {"Accept": "b"},
        {"Accept": "A"},
        {"X-Plain": "a"},
        {"Accept": "a", "X-Plain": "a"},
        {"Accept": "-"},
        {"Accept": "a,b"},
        {"Accept": "b,a"},
        {"Accept": "ab"},
    ]
    seen = {key(headers=one, kind=kind) for one in requests}
    assert len(seen) == len(requests)


@OF_BOTH
def test_4_1_white_space_around_what_is_listed_counts_not(kind: Any) -> None:
    """Nor how the field is called; what has no Vary has one variant."""
    first = key(headers={"Accept": "a, b;q=1"}, kind=kind)
    assert first == key(headers={"ACCEPT": " a ,b;q=1"}, kind=kind)
    assert first != key(headers={"Accept": "a, b; q=1"}, kind=kind)
    assert asked(headers={"Accept": "a"}, kind=kind).variant(()) == ""


def test_4_1_text_and_bytes_are_the_same() -> None:
    """requests takes both."""
    assert key(headers={"Accept": b"\xe9"}) == key(headers={"Accept": "\xe9"})
    assert key(headers={"Cookie": b"\xe9"}) == key(headers={"Cookie": "\xe9"})


def test_4_1_who_asks_counts_beside_the_variant() -> None:
    """The variants of two callers have nothing in common."""
    ann, bob = (asked(headers={"Cookie": who, "Accept": "a"}) for who in ("ann", "bob"))
    assert ann.variant(("accept",)) != bob.variant(("accept",))
    assert ann.variant(("cookie",)) != bob.variant(("cookie",))


# Bodies.


def test_a_body_counts_only_where_that_was_asked_for_or_it_is_announced() -> None:
    """A GET that has none is not read; a request of another method is kept by what it sends."""
    assert key(body=b"x") == key()
    seen = {
        key(method=method, body=body, with_body=True)
        for method in ("POST", "QUERY")
        for body in (b"", b"[1, 2]", b"[2, 1]")
    }
    assert len(seen | {key()}) == 7


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding"])
def test_a_get_with_a_body_is_told_by_it(name: str) -> None:
    """Some searches are asked so; one of no length has none."""
    seen = [key(headers={name: "5"}, body=body) for body in (b"first", b"other")]
    assert len({*seen, key()}) == 3
    assert described(headers={name: "5"}) is None
    assert key(headers={"Content-Length": "0"}, body=b"never read") == key()


@pytest.mark.parametrize("body", [None, b'{"query": "mutation { pay }"}'])
def test_a_body_that_is_not_there_or_writes_is_no_question(body: bytes | None) -> None:
    """Such a request passes by."""
    assert described(method="POST", body=body, with_body=True) is None


def test_a_secret_in_a_body_is_in_no_key() -> None:
    """Nor a credential of a request that has a body."""
    whole = key(
        "/a?sig=geheim", {"Cookie": "geheim"}, method="POST", body=b"geheim", with_body=True
    )
    assert "geheim" not in whole


# What it says besides.


@OF_BOTH
@pytest.mark.parametrize("more", [{}, {"Cookie": "a"}, {"Cookie": "a", "Content-Length": "0"}])
def test_what_a_request_asks_of_caches_is_read(kind: Any, more: dict[str, str]) -> None:
    """Whoever asks: directives, conditions, and what can be answered by the server alone."""
    said = asked(headers={**more, "cache-control": "max-age=5"}, kind=kind).said
    assert said.max_age == 5
    assert asked(headers={**more, "Pragma": "No-Cache"}, kind=kind).said.no_cache
    both = asked(headers={**more, "Pragma": "no-cache", "Cache-Control": "x"}, kind=kind).said
    assert not both.no_cache
    assert asked(headers={**more, "Range": "bytes=0-1"}, kind=kind).unanswerable
    assert asked(headers={**more, "IF-MATCH": "*"}, kind=kind).unanswerable
    one = asked(headers={**more, "If-None-Match": '"a"'}, kind=kind)
    assert one.conditions == {"if-none-match": '"a"'}
    assert not one.unanswerable
    assert asked(headers=more, kind=kind).conditions is None


@given(st.text(max_size=60), st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_nothing_raises(url: str, headers: dict[str, str]) -> None:
    """Whatever is asked for, and with whatever."""
    call = Call("GET", f"{ORIGIN}{url}", CaseInsensitiveDict(headers), key=ORIGIN)
    found = PLAIN.describe(call, "GET")
    assert found is None or found.variant(("accept", "x"))
