"""A key for each route: which template a path finds, and which templates are refused."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit import ConfigurationError
from ratekit.call import Call
from ratekit.keys import by_route
from tests.keys.calls import ORIGIN, a_call

TEMPLATES = (
    "/users/{id}",
    "/users/{id}/repos",
    "/users/me",
    "POST /users/{id}",
    "GET /search/{kind}",
    "/items/{id}.json",
    "/items/{id}",
    "/models/{model}:generate",
    "/files/{path:path}",
    "/files/{name}/meta",
    "/caf%C3%A9/{id}",
    "/a%20b",
    "/",
)


@pytest.mark.parametrize(
    ("method", "url", "end"),
    [
        ("GET", "/users/42", "/users/{id}"),
        ("GET", "/users/42/repos", "/users/{id}/repos"),
        ("GET", "/users/me", "/users/me"),
        ("POST", "/users/me", "/users/me"),
        ("POST", "/users/42", "POST /users/{id}"),
        ("GET", "/search/code", "GET /search/{kind}"),
        ("HEAD", "/search/code", "GET /search/{kind}"),
        ("POST", "/search/code", None),
        ("GET", "/items/1.json", "/items/{id}.json"),
        ("GET", "/items/1.xml", "/items/{id}"),
        ("GET", "/items/.json", "/items/{id}"),
        ("POST", "/models/m-1.5:generate", "/models/{model}:generate"),
        ("POST", "/models/m-1.5:count", None),
        ("GET", "/files", "/files/{path:path}"),
        ("GET", "/files/a", "/files/{path:path}"),
        ("GET", "/files/a/b/c.txt", "/files/{path:path}"),
        ("GET", "/files/a/meta", "/files/{name}/meta"),
        ("GET", "/files/a/b/meta", "/files/{path:path}"),
        # A placeholder is one segment, and never nothing.
        ("GET", "/users", None),
        ("GET", "/users/42/repos/7", None),
        # Slashes, query, fragment.
        ("GET", "/users/42/", "/users/{id}"),
        ("GET", "//users//42", "/users/{id}"),
        ("GET", "/users/42?next=/users/me", "/users/{id}"),
        ("GET", "/users/42#/repos", "/users/{id}"),
        ("GET", "/users/42?a#b?c", "/users/{id}"),
        ("GET", "", "/"),
        ("GET", "/", "/"),
        ("GET", "?a=/users/me", "/"),
        ("GET", "#/users/me", "/"),
        # Encoding: a path is its meaning, and an encoded slash is no separator.
        ("GET", "/%75sers/%6De", "/users/me"),
        ("GET", "/caf%c3%a9/1", "/caf%C3%A9/{id}"),
        ("GET", "/café/1", "/caf%C3%A9/{id}"),
        ("GET", "/a%20b", "/a%20b"),
        ("GET", "/users/a%2Fb", "/users/{id}"),
        ("GET", "/users%2F42", None),
        ("GET", "/users/%zz", "/users/{id}"),
        ("GET", "/users/%ff", "/users/{id}"),
        # Case matters in a path.
        ("GET", "/Users/42", None),
        (None, "/users/42", "/users/{id}"),
        (None, "/search/code", None),
    ],
)
def test_a_path_finds_its_template(method: str | None, url: str, end: str | None) -> None:
    """The most specific one, in whatever order they were given; without one, the origin's key."""
    call = a_call(ORIGIN + url, method)
    for templates in (TEMPLATES, TEMPLATES[::-1]):
        assert by_route(*templates)(call) == (ORIGIN if end is None else f"{ORIGIN} {end}")
        alone = by_route(*templates, others=False)
        assert alone(call) == (None if end is None else f"{ORIGIN} {end}")


@pytest.mark.parametrize("url", ["", "mailto:users/42", "about:blank"])
def test_what_has_no_path_has_no_route(url: str) -> None:
    """A plain function has no URL; its key is the one it has without templates."""
    call = Call(None, url, {}, key="")
    assert by_route("/", "/{path:path}")(call) == ""
    assert by_route("/", "/{path:path}", others=False)(call) is None


def test_templates_are_kept_in_one_spelling() -> None:
    """What differs only in how it is written is one key."""
    spelled = by_route("get  //caf\u00e9/{id}/")(a_call("/caf%C3%A9/1"))
    assert spelled == f"{ORIGIN} GET /caf%C3%A9/{{id}}"


@pytest.mark.parametrize(
    ("templates", "named"),
    [
        (("users",), "users"),
        ((f"{ORIGIN}/users",), ORIGIN),
        (("/users?page={n}",), "page"),
        (("/users#top",), "top"),
        (("/users /x",), "/users /x"),
        (("GET, POST /users",), "GET, POST"),
        (("",), "''"),
        (("/users/{id",), "{id"),
        (("/users/id}",), "id}"),
        (("/{a}{b}",), "{a}{b}"),
        (("/{}",), "{}"),
        (("/{1st}",), "{1st}"),
        (("/{id:int}",), "{id:int}"),
        (("/{id:}",), "{id:}"),
        (("/{rest...}",), "{rest...}"),
        (("/{+rest}",), "{+rest}"),
        (("/x{rest:path}",), "x{rest:path}"),
        (("/{rest:path}/x",), "at the end"),
        (("/users/:id",), ":id"),
        (("/users/<id>",), "<id>"),
        (("/users/*",), "'*'"),
        (("/users/../x",), "'..'"),
        (("/users/{id}", "/users/{name}"), "/users/{id}"),
        (("/users", "/users/"), "/users"),
        (("/caf\u00e9", "/caf%c3%a9"), "/caf%C3%A9"),
        (("GET /a", "get /a"), "GET /a"),
        (("/{a:path}", "/{b:path}"), "/{a:path}"),
        (("/{a}.js", "/{b}.js"), "/{a}.js"),
    ],
)
def test_a_template_that_cannot_be_right_is_refused(templates: Sequence[str], named: str) -> None:
    """With what is wrong about it and what would be right; so are two that match the same."""
    with pytest.raises(ConfigurationError, match=r"; use ") as caught:
        by_route(*templates)
    assert named in str(caught.value)
    assert repr(templates[-1]) in str(caught.value)


Route = tuple[str, tuple[str, ...], bool]
"""A method or none, the segments, and whether the rest of the path may follow."""

ROUTES = st.tuples(
    st.sampled_from(["", "GET", "POST"]),
    st.lists(st.sampled_from(["a", "b", "{x}", "{x}.b", "a{x}", "{x}b"]), max_size=3).map(tuple),
    st.booleans(),
)


def path_of(route: Route) -> str:
    """Return the path of a template."""
    _, words, rest = route
    return "/" + "/".join([*words, *["{r:path}"] * rest])


def fits(route: Route, method: str, words: Sequence[str]) -> bool:
    """Return whether a path matches, by an expression made of the template."""
    wanted, segments, rest = route
    expression = "".join(f"/{re.escape(one)}" for one in segments).replace(r"\{x\}", "[^/]+")
    path = "".join(f"/{word}" for word in words)
    return wanted in {"", method} and bool(re.fullmatch(expression + "(/.*)?" * rest, path))


def rank(route: Route) -> tuple[object, ...]:
    """Return what sorts templates from the most specific one to the least."""
    method, words, rest = route
    ranks: list[tuple[object, ...]] = []
    for word in words:
        before, placeholder, behind = word.partition("{x}")
        if not placeholder:
            ranks.append((1,))
        elif before or behind:
            ranks.append((2, -len(before + behind), before, behind))
        else:
            ranks.append((3,))
    return [*ranks, (4,) if rest else (0,)], method == ""


@given(
    routes=st.lists(ROUTES, min_size=1, max_size=8, unique=True),
    method=st.sampled_from(["GET", "POST", "PUT"]),
    words=st.lists(st.sampled_from(["a", "b", "a.b", "ab", "c"]), max_size=4),
)
def test_the_tree_finds_what_trying_every_template_would(
    routes: list[Route], method: str, words: list[str]
) -> None:
    """One after the other, the most specific first."""
    key_of = by_route(*(f"{route[0]} {path_of(route)}".strip() for route in routes), others=False)
    fit = sorted((route for route in routes if fits(route, method, words)), key=rank)
    found = key_of(a_call("/" + "/".join(words), method))
    assert found == (f"{ORIGIN} {fit[0][0]} {path_of(fit[0])}".replace("  ", " ") if fit else None)
