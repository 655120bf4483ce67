"""Bodies at every edge: what can be replayed is replayed whole, what cannot is never replayed."""

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge, road

BODY = b"a body of some length"


class _Pipe(io.BytesIO):
    """A file that can only be read forwards, such as a pipe."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation("seek")

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")


def generator() -> Iterator[bytes]:
    """Yield the body in pieces, once."""
    yield BODY[:7]
    yield BODY[7:]


REPLAYABLE: dict[str, Callable[[], Any]] = {
    "bytes": lambda: BODY,
    "text": BODY.decode,
    "file": lambda: io.BytesIO(BODY),
}
ONE_SHOT: dict[str, Callable[[], Any]] = {
    "generator": generator,
    "pipe": lambda: _Pipe(BODY),
    "iterator": lambda: iter([BODY]),
}


@pytest.mark.parametrize("make", REPLAYABLE.values(), ids=REPLAYABLE)
def test_a_body_that_can_be_replayed_is_sent_whole_each_time(
    edge: Edge, server: ApiServer, clock: FakeClock, make: Callable[[], Any]
) -> None:
    """Files are taken back to where they stood."""
    server.script("/items", Answer(503), Answer(429))
    with edge.client(road(clock)) as client:
        assert client.send("PUT", f"{server.url}/items", body=make()).status_code == 200
    assert [seen.body for seen in server.seen("/items")] == [BODY] * 3


def test_a_real_file_is_taken_back_to_its_beginning(
    edge: Edge, server: ApiServer, clock: FakeClock, tmp_path: Path
) -> None:
    """Also after an attempt that got no answer."""
    path = tmp_path / "body"
    path.write_bytes(BODY * 1000)
    server.script("/items", Answer(fault="reset"), Answer(503))
    with path.open("rb") as file, edge.client(road(clock)) as client:
        assert client.send("PUT", f"{server.url}/items", body=file).status_code == 200
    assert [seen.body for seen in server.seen("/items")] == [BODY * 1000] * 3


@pytest.mark.parametrize(
    "arguments",
    [{"json": {"a": [1, 2]}}, {"data": {"a": "1", "b": "2"}}],
    ids=["json", "form"],
)
def test_json_and_forms_are_sent_whole_each_time(
    edge: Edge, server: ApiServer, clock: FakeClock, arguments: dict[str, Any]
) -> None:
    """The same body and content type on every attempt."""
    server.script("/items", Answer(429), Answer(429))
    with edge.client(road(clock)) as client:
        assert client.send("POST", f"{server.url}/items", **arguments).status_code == 200
    sent = {(seen.body, dict(seen.headers).get("Content-Type")) for seen in server.seen("/items")}
    assert len(server.seen("/items")) == 3
    assert len(sent) == 1
    assert next(iter(sent))[0]


def test_a_multipart_upload_is_sent_whole_each_time(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Its files are read again from their beginning."""
    server.script("/items", Answer(429), Answer(429))
    files = {"one": ("one.txt", io.BytesIO(BODY)), "two": ("two.txt", BODY)}
    with edge.client(road(clock)) as client:
        response = client.send("POST", f"{server.url}/items", data={"name": "x"}, files=files)
    assert response.status_code == 200
    bodies = [seen.body for seen in server.seen("/items")]
    assert len(bodies) == 3
    assert len(set(bodies)) == 1
    assert bodies[0].count(BODY) == 2


@pytest.mark.parametrize("answer", [Answer(503, body=b"no"), Answer(429, body=b"no")], ids=repr)
@pytest.mark.parametrize("make", ONE_SHOT.values(), ids=ONE_SHOT)
def test_a_one_shot_body_is_never_replayed(
    edge: Edge, server: ApiServer, clock: FakeClock, make: Callable[[], Any], answer: Answer
) -> None:
    """The user gets the server's own refusal, and the server saw exactly one body."""
    server.script("/items", answer)
    headers = {"Idempotency-Key": "it would be allowed to"}
    with edge.client(road(clock)) as client:
        response = client.send("PUT", f"{server.url}/items", body=make(), headers=headers)
    assert (response.status_code, response.content) == (answer.status, b"no")
    assert [seen.body for seen in server.seen("/items")] == [BODY]


def test_a_one_shot_body_that_may_have_been_read_is_not_sent_again(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A reset after the body went out is the user's."""
    server.script("/items", Answer(fault="reset"))
    with edge.client(road(clock)) as client, pytest.raises(edge.error) as caught:
        client.send("PUT", f"{server.url}/items", body=generator())
    assert edge.details(caught.value).attempts == 1
    assert [seen.body for seen in server.seen("/items")] == [BODY]


def test_a_one_shot_body_may_follow_a_refused_connection(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Nothing of it was read, so it can still be sent."""
    server.stop()
    started = threading.Event()

    def sleep(seconds: float) -> None:
        if not started.is_set():
            started.set()
            server.start()

    clock.sleep = sleep  # type: ignore[method-assign]
    try:
        with edge.client(road(clock)) as client:
            response = client.send("PUT", f"{server.url}/items", body=generator())
        assert edge.details(response).attempts == 2
        assert [seen.body for seen in server.seen("/items")] == [BODY]
    finally:
        sleep(0)


class _Stubborn(io.BytesIO):
    """A file that says where it stands, and cannot go back there."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation("seek")


def test_a_file_that_cannot_go_back_is_never_replayed(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """The user gets the 503, not an error about rewinding."""
    server.script("/items", Answer(503))
    with edge.client(road(clock)) as client:
        response = client.send("PUT", f"{server.url}/items", body=_Stubborn(BODY))
    assert response.status_code == 503
    assert [seen.body for seen in server.seen("/items")] == [BODY]
