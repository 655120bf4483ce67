"""What is true of every key function: short, printable, copied as it is, several as one."""

import copy
import itertools
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit import ConfigurationError, Pipeline
from ratekit.call import Call
from ratekit.keys import (
    KeyFunction,
    by_credential,
    by_each,
    by_origin,
    by_route,
)
from tests.keys.calls import ORIGIN, PLAIN, SECRET, Noted, a_call


@pytest.mark.parametrize("origin", [ORIGIN, "http://127.0.0.1:8080", "http://[::1]:80", ""])
def test_the_origin_is_the_key_that_a_call_has(origin: str) -> None:
    """What a limiter does without any key function; a plain function has the empty key."""
    assert by_origin(a_call(key=origin)) == origin


@pytest.mark.parametrize("host", ["ä", "a b", "a\nb", "a\x7f", "a#b", "\ud800", "a" * 100_000])
def test_an_origin_that_is_none_becomes_a_short_one_that_prints(host: str) -> None:
    """It is still one key for one origin."""
    key = by_origin(a_call(key=f"http://{host}"))
    assert key.startswith("http://")
    assert PLAIN.fullmatch(key)
    assert len(key) <= 300
    assert key == by_origin(a_call(key=f"http://{host}"))
    assert key != by_origin(a_call(key=f"http://{host}x"))


ANY_TEXT = st.text(max_size=60) | st.sampled_from(["/" * 10_000, "/%" * 10_000, "/a" * 10_000])


@given(url=ANY_TEXT, value=st.text(min_size=12, max_size=40) | st.binary(min_size=12, max_size=40))
def test_whatever_is_asked_for_the_key_is_short_and_prints(url: str, value: str | bytes) -> None:
    """And there are few: a URL chooses between the templates, and no more."""
    templates = ("/a/{b}", "/{c}/%7Bd%7D/e", "/files/{path:path}")
    routes = by_route(*templates)
    credential = by_credential(params=["key"])
    both = by_each(routes, credential)
    for asked in (url, ORIGIN + url, f"{ORIGIN}/?key={url}"):
        call = a_call(Authorization=value)
        call._url = asked
        assert routes(call) in {ORIGIN, *(f"{ORIGIN} {template}" for template in templates)}
        for key in (credential(call), both(call)):
            assert key is not None
            assert PLAIN.fullmatch(key)
            assert len(key) < 100


def test_calls_share_a_key_where_they_share_every_part() -> None:
    """Route by credential: the origin is said once, and a part without a word of its own not."""
    key_of = by_each(by_route("/users/{id}", "POST /users"), by_credential(secret=SECRET))
    hashed = "37c7597409402ec0"
    assert key_of(a_call("/users/1", X_Api_Key="a")) == f"{ORIGIN} /users/{{id}} + {hashed}"
    assert key_of(a_call("/users", "POST")) == f"{ORIGIN} POST /users"
    assert key_of(a_call("/others", X_Api_Key="a")) == f"{ORIGIN} + {hashed}"
    assert key_of(a_call("/others")) == ORIGIN


def test_a_part_that_does_not_apply_makes_the_whole_not_apply() -> None:
    """The parts behind it are not even asked."""

    def never(call: Call) -> str:
        pytest.fail("asked all the same")

    key_of = by_each(by_route("/search/{kind}", others=False), by_credential())
    assert key_of(a_call("/users/1")) is None
    assert key_of(a_call("/search/code")) == f"{ORIGIN} /search/{{kind}}"
    assert by_each(lambda _: None, never)(a_call()) is None


def test_parts_cannot_be_mistaken_for_one_another() -> None:
    """Whatever text a user's function returns, other parts make another key, short and printing."""
    texts = ["", "a", "a + b", "b", " + ", "#", "x" * 400, "x" * 399 + "y", "\n", "é", ORIGIN]
    texts += [f"{ORIGIN} a", "https://other.example", "https://other.example a"]
    keys = set()
    for pair in itertools.product(texts, repeat=2):
        first, second = (by_text(text) for text in pair)
        key = by_each(first, second)(a_call())
        assert key is not None
        assert len(key) < 700
        assert PLAIN.fullmatch(key.replace("#", ""))
        keys.add(key)
    # Behind the origin a text means the same with the origin before it and without.
    assert len(keys) == len(texts) ** 2 - 2


def by_text(text: str) -> Callable[[Call], str]:
    """Return a key function that always returns `text`."""
    return lambda _: text


def test_a_decorated_function_counts_on_the_empty_key() -> None:
    """It has no URL, no header and no origin."""
    noted = Noted(by_each(by_route("/"), by_credential(params=["key"])))
    assert Pipeline(noted)(lambda: 42)() == 42
    assert noted.keys == [""]


@pytest.mark.parametrize(
    "key_of",
    [
        by_credential(),
        by_credential(["X-A"], params=["a"], cookies=["b"], secret=SECRET),
        by_route("/users/{id}", "POST /", others=False),
        by_each(by_route("/users/{id}"), by_origin, by_credential()),
    ],
    ids=repr,
)
def test_a_copy_finds_the_same_keys(key_of: KeyFunction) -> None:
    """Pickled and copied, in this process."""
    calls = [
        a_call(path, Authorization="Bearer a", X_A="b", Cookie="b=c")
        for path in ("/users/1", "/?a=1", "/other")
    ]
    for other in (pickle.loads(pickle.dumps(key_of)), copy.copy(key_of), copy.deepcopy(key_of)):  # noqa: S301
        assert [other(call) for call in calls] == [key_of(call) for call in calls]
        assert repr(other) == repr(key_of)
        assert other.portable == key_of.portable


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: by_credential(a_call()),  # type: ignore[arg-type]
        lambda: by_credential([]),
        lambda: by_credential([""]),
        lambda: by_credential(["X Y"]),
        lambda: by_credential(["Cookie"]),
        lambda: by_credential(params=[1]),  # type: ignore[list-item]
        lambda: by_credential(secret=b"short"),
        lambda: by_credential(secret=b""),
        by_each,
        lambda: by_each("origin"),  # type: ignore[arg-type]
        lambda: by_each(by_credential)(a_call()),  # type: ignore[arg-type]
        lambda: by_each(lambda _: 1)(a_call()),  # type: ignore[arg-type, return-value]
        by_route,
        lambda: by_route(a_call()),  # type: ignore[arg-type]
        lambda: by_route(["/a", "/b"]),  # type: ignore[arg-type]
        lambda: by_route("/a", others=None),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_right_is_refused_with_what_is(wrong: Callable[[], object]) -> None:
    """Also a call in the place of what should be built first: `key_of=by_credential`."""
    with pytest.raises(ConfigurationError, match=r"\buse |returns text"):
        wrong()
