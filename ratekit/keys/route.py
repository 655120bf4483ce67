"""A key for each route: "/users/{id}" is one, whatever stands in the place of `{id}`.

The templates are one tree, a level for each segment of a path. A path is looked for along its own
segments, so the time it takes does not grow with the number of templates.
"""

import re
from functools import partial
from typing import Any

from ratekit.call import Call
from ratekit.errors import ConfigurationError
from ratekit.keys.function import KeyFunction, by_origin

__all__ = ["by_route"]

# Compiled by whoever first uses them: most programs that import ratekit have no templates.
_TEMPLATE = r"(?:([A-Za-z]+)[ \t]+)?(/[^\s?#]*)"
_SEGMENT = r"([^{}]*)(?:\{([^{}:]*)(?::([^{}]*))?\}([^{}]*))?"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*"
# How others write a placeholder. As plain text it would match nothing, ever.
_FOREIGN = r":|.*[<>*]"

Ends = dict[str | None, str]
"""By method (None: any), what follows the origin in the key."""


def by_route(*templates: str, others: bool = True) -> KeyFunction:
    """Return a key function: each route counts on its own, at each origin.

    A template is a path, or a method and a path: "/users/{id}", "POST /search/{kind}". `{name}`
    stands for one segment, or for part of one ("/items/{id}.json"); `{name:path}`, at the end, for
    all the rest, also for none (the spelling is Starlette's). The most specific template wins, in
    whatever order they are given: from left to right plain text goes before text with a
    placeholder, that before `{name}`, that before `{name:path}`; then a method before none. HEAD
    counts as GET, unless there is a template for it. Doubled and trailing slashes, the query and
    the fragment do not matter.

    A call that matches none counts on the key of its origin; with `others=False` the limiter does
    not apply to it.

    Raises `ConfigurationError` for what is no template, and for two that match the same.
    """
    if not templates:
        raise ConfigurationError(
            "by_route has no templates; use by_route('/users/{id}', 'POST /search/{kind}')"
        )
    if not isinstance(others, bool):
        raise ConfigurationError(
            f"by_route: others {others!r}: use True to count what matches no template by its "
            "origin, False where the limiter does not apply to it"
        )
    return _ByRoute(templates, others=others)


class _ByRoute(KeyFunction):
    __slots__ = ("_root", "others", "templates")

    portable = True

    def __init__(self, templates: tuple[str, ...], *, others: bool) -> None:
        self.templates = templates
        self.others = others
        self._root = _Node()
        for template in templates:
            _plant(self._root, template)

    def __call__(self, call: Call) -> str | None:
        segments = _segments(call.url)
        end = None if segments is None else self._root.find(segments, 0, call.method)
        if end is not None:
            return by_origin(call) + end
        return by_origin(call) if self.others else None

    def __repr__(self) -> str:
        said = [repr(template) for template in self.templates]
        return f"by_route({', '.join(said if self.others else [*said, 'others=False'])})"

    def __reduce__(self) -> tuple[object, ...]:
        return partial(by_route, others=self.others), self.templates


class _Node:
    """What may follow a beginning of a path. Not changed any more once it is in use."""

    __slots__ = ("ends", "partial", "plain", "tails", "whole")

    def __init__(self) -> None:
        self.plain: dict[str, _Node] = {}
        self.partial: list[tuple[str, str, _Node]] = []
        self.whole: _Node | None = None
        self.ends: Ends = {}
        self.tails: Ends = {}

    def find(self, segments: list[str], at: int, method: str | None) -> str | None:
        """Return the end of the key of the most specific template, None where none matches."""
        found = None
        if at == len(segments):
            found = _end_for(self.ends, method)
        else:
            segment = segments[at]
            child = self.plain.get(segment)
            if child is not None:
                found = child.find(segments, at + 1, method)
            if found is None and self.partial:
                for before, behind, child in self.partial:
                    if (
                        len(segment) > len(before) + len(behind)
                        and segment.startswith(before)
                        and segment.endswith(behind)
                    ):
                        found = child.find(segments, at + 1, method)
                        if found is not None:
                            break
            if found is None and self.whole is not None:
                found = self.whole.find(segments, at + 1, method)
        return _end_for(self.tails, method) if found is None else found


def _end_for(ends: Ends, method: str | None) -> str | None:
    if not ends:
        return None
    end = ends.get(method)
    if end is None and method == "HEAD":
        end = ends.get("GET")
    return ends.get(None) if end is None else end


def _segments(url: str) -> list[str] | None:
    """Return the segments of a URL's path, decoded; None where it has no path."""
    url = url.partition("?")[0].partition("#")[0]
    _, separator, rest = url.partition("://")
    if not separator and not url.startswith("/"):
        # No URL at all (a plain function has none), or one such as "mailto:".
        return None
    path = rest.partition("/")[2] if separator else url
    segments = path.split("/")
    if "" in segments:
        segments = [segment for segment in segments if segment]
    if "%" in path:
        # After the split: an encoded slash is part of its segment.
        segments = [_unquoted(segment) for segment in segments]
    return segments


def _unquoted(segment: str) -> str:
    if "%" not in segment:
        return segment
    from urllib.parse import unquote  # slow to import, and seldom needed

    return unquote(segment, errors="surrogateescape")


def _plant(node: _Node, template: Any) -> None:
    """Add a template to the tree."""
    if not isinstance(template, str):
        raise ConfigurationError(
            f"by_route: {template!r} is no template; use text, one template after the other, as in "
            "key_of=by_route('/users/{id}', 'POST /search/{kind}')"
        )
    match = re.fullmatch(_TEMPLATE, template.strip())
    if match is None:
        raise _wrong(
            template,
            "it is no path, nor a method and a path",
            "'/users/{id}' or 'POST /search/{kind}', with no origin, query or space in it",
        )
    method = match[1] and match[1].upper()
    path = ""
    tail = False
    for text in filter(None, match[2].split("/")):
        if tail:
            raise _wrong(template, "something follows the rest of the path", "':path' at the end")
        node, said, tail = _step(node, template, text)
        path += f"/{said}"
    ends = node.tails if tail else node.ends
    if method in ends:
        raise _wrong(template, f"{ends[method].strip()!r} matches the same calls", "one of the two")
    ends[method] = f" {method} {path or '/'}" if method else f" {path or '/'}"


def _step(node: _Node, template: str, text: str) -> tuple[_Node, str, bool]:
    """Return where a segment leads, how keys have it, and whether it is all the rest."""
    before, name, kind, behind = _parts(template, text)
    if name is None:
        return node.plain.setdefault(before, _Node()), _quoted(before), False
    if kind is not None:
        return node, f"{{{name}:path}}", True
    said = f"{_quoted(before)}{{{name}}}{_quoted(behind)}"
    if not before and not behind:
        node.whole = node.whole or _Node()
        return node.whole, said, False
    for known in node.partial:
        if known[:2] == (before, behind):
            return known[2], said, False
    child = _Node()
    node.partial.append((before, behind, child))
    # The most text first; beyond that any order will do that is not the user's.
    node.partial.sort(key=lambda known: (-len(known[0] + known[1]), known[:2]))
    return child, said, False


def _parts(template: str, text: str) -> tuple[str, str | None, str | None, str]:
    """Return a segment's text before the placeholder, its name and kind, and the text behind it.

    Raises `ConfigurationError` for what is no segment of a template.
    """
    match = re.fullmatch(_SEGMENT, text)
    if match is None:
        raise _wrong(
            template,
            f"{text!r} has a brace without its other half, or two placeholders",
            "one '{name}' in a segment, and %7B for a brace",
        )
    before, name, kind, behind = match.groups("")
    is_named = match[2] is not None
    if (
        re.match(_FOREIGN, text)
        or (is_named and not re.fullmatch(_NAME, name))
        or (match[3] is not None and (kind != "path" or before or behind))
    ):
        raise _wrong(
            template,
            f"{text!r} is no placeholder",
            "'{name}', or '{name:path}' on its own for all the rest",
        )
    if text in {".", ".."}:
        raise _wrong(template, f"clients do not send {text!r}", "the path that it leads to")
    return _unquoted(before), name if is_named else None, kind or None, _unquoted(behind)


def _quoted(text: str) -> str:
    from urllib.parse import quote  # slow to import, and needed once for each template

    return quote(text, safe="!$&'()*+,;=:@", errors="surrogateescape")


def _wrong(template: str, what: str, right: str) -> ConfigurationError:
    return ConfigurationError(f"by_route: template {template!r}: {what}; use {right}")
