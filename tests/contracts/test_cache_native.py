"""A hit is what the server's own answer was, in every way that a user can see."""

import gzip
import json
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ratekit import Cache, Pipeline, RateLimiter
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.caching import PATH, Api, Place, api, reply, said
from tests.contracts.edges import Client, Edge

MINUTE = "max-age=60"
DATA = {"name": "Zoë", "n": list(range(200))}
TEXT = json.dumps(DATA, ensure_ascii=False).encode()
GZIPPED = gzip.compress(TEXT)


@pytest.fixture
def one(edge: Edge, server: ApiServer, clock: FakeClock, store: Place) -> Any:
    """Give a client with a cache of its own."""
    with api(edge, server, clock, store=store) as made:
        yield made


def chunked(body: bytes, size: int = 100) -> bytes:
    """Return a body in the chunked coding (RFC 9112, 7.1), with an extension and a trailer."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return coded + b"0\r\nX-Trailer: 1\r\n\r\n"


BODIES: dict[str, Answer] = {
    "json": Answer(
        200, [("Cache-Control", MINUTE), ("Content-Type", "application/json")], TEXT
    ),
    "latin": Answer(
        200, [("Cache-Control", MINUTE), ("Content-Type", "text/plain; charset=latin-1")], b"\xe9"
    ),
    "gzip": Answer(
        200,
        [
            ("Cache-Control", MINUTE), ("Content-Type", "application/json"),
            ("Content-Encoding", "gzip"),
        ],
        GZIPPED,
    ),
    "chunked": Answer(
        200, [("Cache-Control", MINUTE), ("Transfer-Encoding", "chunked")], chunked(TEXT)
    ),
    "chunked gzip": Answer(
        200,
        [
            ("Cache-Control", MINUTE), ("Transfer-Encoding", "chunked"),
            ("Content-Encoding", "gzip"),
        ],
        chunked(GZIPPED, 7),
    ),
    "chunks that are line ends": Answer(
        200, [("Cache-Control", MINUTE), ("Transfer-Encoding", "chunked")], chunked(b"\r\n" * 9, 2)
    ),
    "empty": Answer(200, [("Cache-Control", MINUTE)], b""),
    "204": Answer(204, [("Cache-Control", MINUTE)], b""),
    "404": Answer(404, [("Cache-Control", MINUTE)], b"none"),
    "fields": Answer(
        200,
        [
            ("Cache-Control", MINUTE), ("Link", "<b>; rel=next"), ("Link", "<c>; rel=last"),
            ("X-Odd", "\xe9\xff"), ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Path=/"),
        ],
        b"x",
    ),
}  # fmt: skip


def without(face: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a cache adds, and what belongs to one connection."""
    ours = {"cache-status", "age", "date", "connection", "transfer-encoding"}
    headers = {name: text for name, text in face["headers"].items() if name.lower() not in ours}
    return {**face, "headers": headers, "extensions": None}


@pytest.mark.parametrize("kind", BODIES)
def test_a_hit_is_what_the_answer_was(
    edge: Edge, server: ApiServer, store: Place, kind: str
) -> None:
    """Status, fields, body, encoding, cookies, reason, version, links, request, type."""
    with edge.client(Pipeline(Cache(store=store))) as client:
        server.script(PATH, BODIES[kind])
        # The second request must not carry the first one's cookies: that is another caller.
        who = {"Authorization": "Bearer a"}
        first = client.get(server.url + PATH, headers=who)
        seen = without(edge.face(first))
        client.native.cookies.clear()
        again = client.get(server.url + PATH, headers=who)
        assert said(again) == "hit; ttl=60" or said(again) == "hit; ttl=59"
        assert without(edge.face(again)) == seen
        assert again.text == first.text
        assert edge.details(again).from_cache
        assert not edge.details(first).from_cache
        assert (edge.details(again).attempts, edge.details(first).attempts) == (0, 1)
    assert len(server.seen(PATH)) == 1


def is_from_cache(edge: Edge, response: Any) -> bool:
    """Return what stands where each library's users look for it."""
    if edge.name == "requests":
        return response.from_cache  # type: ignore[no-any-return]
    return response.extensions["from_cache"]  # type: ignore[no-any-return]


def test_an_answer_says_whether_it_was_kept(one: Api) -> None:
    """`response.from_cache`, `extensions["from_cache"]`: False and then True."""
    one.answers(reply(cache_control=MINUTE))
    assert [is_from_cache(one.edge, one.send()) for _ in range(3)] == [False, True, True]


@pytest.mark.parametrize("kind", ["json", "gzip", "chunked", "chunked gzip", "empty"])
@pytest.mark.parametrize("first", ["read", "streamed"])
def test_a_hit_streams(edge: Edge, server: ApiServer, store: Place, kind: str, first: str) -> None:
    """Piece by piece, decoded and raw, whichever way the first answer was read."""
    with edge.client(Pipeline(Cache(store=store))) as client:
        server.script(PATH, BODIES[kind])
        url = server.url + PATH
        if first == "read":
            body = client.get(url).content
        else:
            with client.stream("GET", url) as response:
                body = b"".join(_decoded(edge, response))
        for read in (_decoded, _decoded_at_once, _by_lines):
            with client.stream("GET", url) as response:
                assert said(response).startswith("hit")
                assert b"".join(read(edge, response)) == body
        with client.stream("GET", url) as response:
            raw = b"".join(_raw(edge, response))
        assert raw == (GZIPPED if "gzip" in kind else body)
    assert len(server.seen(PATH)) == 1


def _decoded(edge: Edge, response: Any) -> Any:
    return response.iter_content(7) if edge.name == "requests" else response.iter_bytes(7)


def _decoded_at_once(edge: Edge, response: Any) -> Any:
    return response.iter_content(None) if edge.name == "requests" else response.iter_bytes()


def _by_lines(edge: Edge, response: Any) -> Any:
    lines = response.iter_lines()
    return lines if edge.name == "requests" else [line.encode() for line in lines]


def _raw(edge: Edge, response: Any) -> Any:
    if edge.name == "requests":
        return [response.raw.read(decode_content=False)]
    return response.iter_raw()


def test_a_streamed_answer_is_kept_once_it_was_read_to_its_end(one: Api) -> None:
    """Who stops early leaves nothing."""
    big = reply(b"x" * 300_000, cache_control=MINUTE)
    one.answers(big, big)
    with one.client.stream("GET", one.url) as response:
        next(iter(_decoded(one.edge, response)))
    with one.client.stream("GET", one.url) as response:
        assert said(response).startswith("fwd=uri-miss")
        assert len(b"".join(_decoded(one.edge, response))) == 300_000
    assert len(one.body()) == 300_000
    assert one.asked == 2


@pytest.mark.parametrize("coded", [False, True])
def test_beyond_the_cap_it_only_streams(
    edge: Edge, server: ApiServer, clock: FakeClock, store: Place, *, coded: bool
) -> None:
    """A body longer than `max_entry` reaches its user whole, and is not kept."""
    body = b"x" * 5000
    fields = [("Cache-Control", MINUTE)]
    fields += [("Transfer-Encoding", "chunked")] if coded else []
    with api(edge, server, clock, store=store, max_entry=4999) as one:
        one.answers(*[Answer(200, fields, chunked(body) if coded else body)] * 2)
        for _ in range(2):
            response = one.send()
            assert response.content == body
            assert said(response).startswith("fwd=uri-miss")
        assert one.asked == 2


def test_a_body_is_not_held_back_while_it_is_kept(one: Api) -> None:
    """Its pieces reach the user as they come."""
    with one.client.stream("GET", f"{one.server.url}/stream/3?interval=0.05") as response:
        pieces = list(one.edge.chunks(response))
    assert len(pieces) == 3


def test_redirects_are_kept_each_for_itself(edge: Edge, server: ApiServer, store: Place) -> None:
    """The history of a hit is that of the first time."""
    with edge.client(Pipeline(Cache(store=store))) as client:
        server.script("/from", reply(b"", 301, location=PATH, cache_control=MINUTE))
        server.script(PATH, reply(b"there", cache_control=MINUTE))
        first, again = (client.get(server.url + "/from") for _ in range(2))
        assert again.content == b"there"
        assert edge.face(again)["history"] == edge.face(first)["history"] != []
        assert edge.face(again)["url"] == server.url + PATH
    assert len(server.seen("/from")) == len(server.seen(PATH)) == 1


def test_a_hit_costs_no_permit(edge: Edge, server: ApiServer) -> None:
    """1000 hits of one URL under 10 a minute spend one."""
    limiter = RateLimiter("10/minute window", key_of=lambda call: "k")
    with edge.client(Pipeline(Cache(), limiter)) as client:
        server.script(PATH, reply(cache_control=MINUTE))
        for _ in range(1001):
            assert client.get(server.url + PATH).content == b"1"
        assert limiter.peek("k").remaining == 9
    assert len(server.seen(PATH)) == 1


def test_what_a_user_does_to_an_answer_is_done_to_that_one(one: Api) -> None:
    """The kept answer is nobody's to change."""
    one.answers(reply(cache_control=MINUTE, x_a="1"))
    for _ in range(3):
        response = one.send()
        assert response.headers["x-a"] == "1"
        response.headers["x-a"] = "2"
        del response.headers["cache-control"]
        if one.edge.name == "requests":
            response.raw.headers["x-a"] = "3"


def test_many_threads_hit_at_once(one: Api) -> None:
    """Every one of them gets the whole of it."""
    one.answers(BODIES["gzip"])
    one.send()
    seen: list[Any] = []

    def get() -> None:
        seen.extend(one.send().json() for _ in range(50))

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [DATA] * 400
    assert one.asked == 1


def test_clients_of_all_libraries_share_a_cache(server: ApiServer, store: Place) -> None:
    """What one of them fetched is a hit for the others."""
    from tests.contracts.edges import EDGES

    pipeline = Pipeline(Cache(store=store))
    server.script(PATH, BODIES["gzip"])
    for edge in EDGES * 2:
        with edge.client(pipeline) as client:
            assert client.get(server.url + PATH, headers=_same(client)).json() == DATA
    assert len(server.seen(PATH)) == 1


def _same(client: Client) -> dict[str, str]:
    return {"User-Agent": "test", "Accept": "*/*", "Accept-Encoding": "gzip"}


def test_a_pickled_response_is_whole(one: Api) -> None:
    """Where the library's responses pickle, a hit does."""
    one.answers(reply(b"body", cache_control=MINUTE))
    for _ in range(2):
        copy: Any = pickle.loads(pickle.dumps(one.send()))  # noqa: S301  (made here)
        assert copy.content == b"body"


def stand_in(edge: Edge, handler: Callable[[], Any]) -> Any:
    """Return an adapter or transport that answers without a network."""
    if edge.name != "requests":
        return edge.library.MockTransport(lambda request: handler())
    from requests.adapters import BaseAdapter

    class Mock(BaseAdapter):
        def send(self, request: Any, *_: Any, **__: Any) -> Any:
            response = handler()
            response.request, response.url = request, request.url
            return response

        def close(self) -> None:
            """There is nothing to close."""

    return Mock()


def test_a_stand_ins_answer_is_kept_too(edge: Edge, store: Place) -> None:
    """Also one whose body was there from the beginning."""
    made = []

    def handler() -> Any:
        made.append(1)
        if edge.name != "requests":
            return edge.library.Response(200, headers={"cache-control": MINUTE}, json=DATA)
        response = edge.library.Response()
        response.status_code = 200
        response.headers["cache-control"] = MINUTE
        response._content, response._content_consumed = TEXT, True
        return response

    transport = edge.around(stand_in(edge, handler), Pipeline(Cache(store=store)))
    with edge.on(transport) as client:
        for _ in range(3):
            assert client.get("http://api.example.com/a").json() == DATA
    assert made == [1]
