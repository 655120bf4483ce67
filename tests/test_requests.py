"""The edge to requests, where it differs from the others: adapters, timeouts, urllib3's retries."""

import io
import pickle
import socket
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import HTTPDigestAuth
from requests_toolbelt import MultipartEncoder
from requests_toolbelt.adapters.host_header_ssl import HostHeaderSSLAdapter
from requests_toolbelt.adapters.source import SourceAddressAdapter
from urllib3.util import Retry as Urllib3Retry
from urllib3.util import Timeout

import ratekit
from ratekit import (
    Backoff,
    ConfigurationError,
    MemoryStore,
    Pipeline,
    RateLimiter,
    Retry,
)
from ratekit.requests import RateKitAdapter
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import road
from tests.contracts.wire import read_head, serve


def session_on(adapter: BaseAdapter) -> requests.Session:
    """Return a session that sends everything through `adapter`."""
    session = requests.Session()
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def spent(limiter: Any, key: str, burst: int = 1000) -> int:
    """Return how many permits of `key` were taken."""
    left: int = limiter.peek(key).remaining
    return burst - left


class _Spy(HTTPAdapter):
    """Notes the arguments of each attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def send(self, request: requests.PreparedRequest, **arguments: Any) -> requests.Response:  # type: ignore[override]
        self.seen.append(arguments)
        return super().send(request, **arguments)


def test_it_is_a_real_adapter_with_a_pool_for_threads() -> None:
    """SDKs that ask for an HTTPAdapter get one; 64 threads keep their connections."""
    adapter = RateKitAdapter()
    assert isinstance(adapter, HTTPAdapter)
    assert adapter._pool_maxsize == 64
    assert RateKitAdapter(pool_maxsize=3)._pool_maxsize == 3


def test_arguments_of_an_attempt_reach_the_wrapped_adapter(
    server: ApiServer, clock: FakeClock
) -> None:
    """All of them, as the session passed them, on every attempt."""
    server.script("/items", Answer(503))
    spy = _Spy()
    with session_on(RateKitAdapter(road(clock), adapter=spy)) as session:
        session.get(
            f"{server.url}/items",
            stream=True,
            timeout=(3, 4),
            verify=False,
            cert=__file__,
            proxies={"ftp": "x"},
        ).close()
    assert len(spy.seen) == 2
    assert spy.seen[0] == spy.seen[1]
    assert {name: spy.seen[0][name] for name in ("stream", "timeout", "verify", "cert")} == {
        "stream": True, "timeout": (3, 4), "verify": False, "cert": __file__,
    }  # fmt: skip
    assert dict(spy.seen[0]["proxies"]) == {"ftp": "x"}


@pytest.mark.parametrize(
    ("options", "given", "used"),
    [
        ({}, None, (5.0, 30.0)),
        ({}, 7, 7),
        ({}, (1, 2), (1, 2)),
        ({"timeout": (8, 9)}, None, (8, 9)),
        ({"timeout": 8}, None, 8),
        ({"timeout": 8}, 7, 7),
        ({"timeout": False}, None, None),
        ({"timeout": False}, 7, 7),
        ({"deadline": 3}, None, (3.0, 3.0)),
        ({"deadline": 10}, None, (5.0, 10.0)),
        ({"deadline": 3, "timeout": False}, None, 3.0),
        ({"deadline": 3}, (None, 2), (3.0, 2)),
        ({"deadline": 3}, 50, 3.0),
        ({"deadline": 3}, 1, 1),
    ],
)
def test_timeouts_of_an_attempt(
    server: ApiServer, clock: FakeClock, options: dict[str, Any], given: Any, used: Any
) -> None:
    """(5, 30) s where the user gave none, the user's otherwise, and never past the deadline."""
    spy = _Spy()
    with (
        session_on(RateKitAdapter(road(clock), adapter=spy)) as session,
        ratekit.options(**options),
    ):
        session.get(f"{server.url}/items", timeout=given)
    assert spy.seen[0]["timeout"] == used


def test_a_urllib3_timeout_is_shortened_to_the_deadline(
    server: ApiServer, clock: FakeClock
) -> None:
    """Its own parts stay what they are."""
    spy = _Spy()
    given: Any = Timeout(connect=1, read=50)
    with session_on(RateKitAdapter(road(clock), adapter=spy)) as session:
        with ratekit.options(deadline=3):
            session.get(f"{server.url}/items", timeout=given)
        session.get(f"{server.url}/items", timeout=given)
    shortened, untouched = (seen["timeout"] for seen in spy.seen)
    assert (shortened.total, shortened.connect_timeout) == (3.0, 1)
    assert untouched is given


def test_a_timeout_given_as_an_option_ends_the_attempt(clock: FakeClock) -> None:
    """What the user gets is requests' own."""
    with (
        session_on(RateKitAdapter(Pipeline(clock=clock))) as session,
        ratekit.options(timeout=0.05),
        serve(lambda connection: read_head(connection) and connection.recv(1)) as wire,
        pytest.raises(requests.Timeout),
    ):
        session.get(wire.url)


@pytest.mark.parametrize(
    "retries",
    [
        3,
        Urllib3Retry(2),
        Urllib3Retry(),
        Urllib3Retry(total=None, connect=3),
        Urllib3Retry(total=None, status=3, status_forcelist=[503]),
    ],
    ids=["3", "total", "default", "connect alone", "status alone"],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_r1_retries_below_the_limiter_are_refused(retries: Any, *, wrapped: bool) -> None:
    """urllib3's repeats would pass by the limiter: 4 hits where 1 a second was promised."""
    arguments: dict[str, Any] = {"max_retries": retries}
    if wrapped:
        arguments = {"adapter": HTTPAdapter(max_retries=retries)}
    with pytest.raises(ConfigurationError, match=r"max_retries.*Retry\(attempts="):
        RateKitAdapter(RateLimiter("1/second"), **arguments)


@pytest.mark.parametrize(
    "retries",
    [0, Urllib3Retry(0), Urllib3Retry(0, read=False), Urllib3Retry(total=False), False],
    ids=["0", "Retry(0)", "requests' own", "total=False", "False"],
)
def test_retries_that_are_switched_off_are_accepted(retries: Any) -> None:
    """Whoever says so in urllib3's way is right too."""
    RateKitAdapter(max_retries=retries)
    RateKitAdapter(adapter=HTTPAdapter(max_retries=retries))


def test_r1_each_retry_takes_its_turn(server: ApiServer, clock: FakeClock) -> None:
    """At one permit a second four attempts take three seconds."""
    server.script("/items", *[Answer(503)] * 3)
    pipeline = road(clock, "1/second", backoff=Backoff("constant", base=0))
    began = clock.now_ns()
    with session_on(RateKitAdapter(pipeline)) as session:
        assert session.get(f"{server.url}/items").status_code == 200
    assert (clock.now_ns() - began) / 1e9 == 3.0


def test_r2_a_retry_after_is_obeyed_by_the_next_request_too(
    server: ApiServer, clock: FakeClock
) -> None:
    """A limiter that ignored it asked again after a second."""
    server.script("/items", Answer(429, [("Retry-After", "3")]))
    with session_on(RateKitAdapter(road(clock, "1/second"))) as session:
        with ratekit.options(retry=False):
            assert session.get(f"{server.url}/items").status_code == 429
        assert session.get(f"{server.url}/items").ratekit.waited >= 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["1.5", "2.0", "soon", "", "-1"])
def test_r3_an_odd_retry_after_is_no_error(server: ApiServer, clock: FakeClock, value: str) -> None:
    """urllib3 raises InvalidHeader and the 429 is lost."""
    server.script("/items", *[Answer(429, [("Retry-After", value)])] * 2)
    with session_on(RateKitAdapter(Pipeline(Retry(), clock=clock))) as session:
        assert session.get(f"{server.url}/items").status_code == 200
        with ratekit.options(retry=False):
            server.script("/items", Answer(429, [("Retry-After", value)]))
            response = session.get(f"{server.url}/items")
    assert (response.status_code, response.headers["Retry-After"]) == (429, value)


def test_r4_a_generator_is_never_sent_empty(server: ApiServer, clock: FakeClock) -> None:
    """urllib3's Retry made a 200 of `abc`, empty, empty, empty."""
    server.script("/items", *[Answer(503)] * 3)
    with session_on(RateKitAdapter(road(clock))) as session:
        response = session.put(f"{server.url}/items", data=(piece for piece in (b"a", b"bc")))
    assert response.status_code == 503
    assert [seen.body for seen in server.seen("/items")] == [b"abc"]


def test_a_file_is_rewound_to_where_it_stood(server: ApiServer, clock: FakeClock) -> None:
    """Not to its beginning: what was read before is not part of the body."""
    file = io.BytesIO(b"read already;body")
    file.seek(13)
    server.script("/items", Answer(503))
    with session_on(RateKitAdapter(road(clock))) as session:
        assert session.put(f"{server.url}/items", data=file).status_code == 200
    assert [seen.body for seen in server.seen("/items")] == [b"body"] * 2


def test_a_multipart_encoder_is_never_replayed(server: ApiServer, clock: FakeClock) -> None:
    """toolbelt's encoder can be read once; sent again it would be cut short and stall."""
    server.script("/items", Answer(429))
    encoder = MultipartEncoder({"name": "x", "file": ("a.txt", io.BytesIO(b"content"))})
    with session_on(RateKitAdapter(road(clock))) as session:
        response = session.post(
            f"{server.url}/items", data=encoder, headers={"Content-Type": encoder.content_type}
        )
    assert response.status_code == 429
    (seen,) = server.seen("/items")
    assert seen.body.endswith(b"--\r\n")


def test_an_answer_that_breaks_off_is_another_attempts(server: ApiServer, clock: FakeClock) -> None:
    """Without `stream=True` the body is read as part of the attempt."""
    server.script("/items", Answer(200, body=b"x" * 100, fault="truncate"))
    with session_on(RateKitAdapter(road(clock))) as session:
        response = session.get(f"{server.url}/items")
    assert response.json()["path"] == "/items"
    assert response.ratekit.attempts == 2  # type: ignore[attr-defined]


def test_a_streamed_answer_that_breaks_off_is_the_users(
    server: ApiServer, clock: FakeClock
) -> None:
    """Who reads in pieces has some of them already."""
    server.script("/items", Answer(200, body=b"x" * 100, fault="truncate"))
    with session_on(RateKitAdapter(road(clock))) as session:
        response = session.get(f"{server.url}/items", stream=True)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            response.content  # noqa: B018  (reads it)
    assert server.requests == 1


def test_toolbelts_adapters_can_be_wrapped(server: ApiServer, clock: FakeClock) -> None:
    """Each still does what it is for, on every attempt."""
    server.script("/items", Answer(503))
    source = SourceAddressAdapter("127.0.0.1")
    with session_on(RateKitAdapter(road(clock), adapter=source)) as session:
        assert session.get(f"{server.url}/items").status_code == 200
    with session_on(RateKitAdapter(road(clock), adapter=HostHeaderSSLAdapter())) as session:
        response = session.get(f"{server.url}/items", headers={"Host": "example.org"})
    assert response.status_code == 200
    assert ("Host", "example.org") in server.seen("/items")[-1].headers


CHALLENGE = ("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth"')


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_second_request_of_a_digest_pays_too(
    server: ApiServer, clock: FakeClock, *, wrapped: bool
) -> None:
    """requests sends it through the adapter that the response names: ours, not one below it."""
    server.script("/items", Answer(401, [CHALLENGE]))
    limiter = RateLimiter("1000/hour burst 1000", headroom=1, store=MemoryStore(clock=clock))
    adapter = RateKitAdapter(limiter, adapter=HTTPAdapter() if wrapped else None)
    with session_on(adapter) as session:
        response = session.get(f"{server.url}/items", auth=HTTPDigestAuth("user", "secret"))
    assert (response.status_code, server.requests) == (200, 2)
    assert spent(limiter, server.url) == 2


def test_hooks_of_the_user_run_once_and_see_the_right_elapsed(
    server: ApiServer, clock: FakeClock
) -> None:
    """Ours is gone before they run."""
    seen: list[requests.Response] = []

    def hook(response: requests.Response, **_: Any) -> None:
        seen.append(response)

    with session_on(RateKitAdapter(road(clock))) as session:
        response = session.get(f"{server.url}/items", hooks={"response": hook})
    assert seen == [response]
    assert response.request.hooks == {"response": [hook]}


def test_a_response_pickles(server: ApiServer, clock: FakeClock) -> None:
    """As one without ratekit does, to go to another process or into a cache."""
    with session_on(RateKitAdapter(road(clock))) as session:
        response = session.get(f"{server.url}/items")
    copy = pickle.loads(pickle.dumps(response))  # noqa: S301  (our own)
    assert copy.content == response.content


def test_our_hook_does_not_pile_up_where_there_is_no_session_to_run_it(
    server: ApiServer, clock: FakeClock
) -> None:
    """A digest's second request is sent past the session: at most one is left, which pickles."""
    adapter = RateKitAdapter(road(clock))
    request = requests.Request("GET", f"{server.url}/items").prepare()
    for _ in range(3):
        response = adapter.send(request)
    assert len(request.hooks["response"]) <= 1
    copy = pickle.loads(pickle.dumps(response))  # noqa: S301  (our own)
    assert (copy.content, copy.elapsed) == (response.content, response.elapsed)
    adapter.close()


def test_a_pickled_session_keeps_its_pipeline(server: ApiServer) -> None:
    """Not only the adapter: a session drops what its subclass adds, but not its adapters."""
    pipeline = Pipeline(Retry(), RateLimiter("1000/second burst 5"))
    with session_on(RateKitAdapter(pipeline, adapter=HTTPAdapter())) as session:
        copy = pickle.loads(pickle.dumps(session))  # noqa: S301  (our own)
        with copy:
            assert copy.adapters["http://"].pipeline is pipeline
            assert copy.get(f"{server.url}/items").ratekit.attempts == 1


def test_a_failed_name_look_up_is_never_sent(clock: FakeClock) -> None:
    """Also a POST is tried again: nobody received it."""

    class NoSuchHost(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
            raise requests.ConnectTimeout("no", request=request)

    with (
        session_on(RateKitAdapter(road(clock), adapter=NoSuchHost())) as session,
        pytest.raises(requests.ConnectTimeout) as caught,
    ):
        session.post("http://127.0.0.1:9/")
    assert caught.value.ratekit.attempts == 4  # type: ignore[attr-defined]


def test_a_mistake_of_the_user_is_raised_at_once(clock: FakeClock) -> None:
    """requests' own errors that no other attempt could mend pass through unchanged."""
    with session_on(RateKitAdapter(road(clock))) as session:
        with pytest.raises(requests.exceptions.InvalidURL):
            session.get("http://")
        with pytest.raises(requests.exceptions.InvalidHeader):
            session.get("http://127.0.0.1:9/", headers={"X-Bad": "a\nb"})


def test_connections_are_kept_alive(server: ApiServer, clock: FakeClock) -> None:
    """Ten calls, one connection; a stale one is replaced without the user's noticing."""
    with session_on(RateKitAdapter(road(clock))) as session:
        for _ in range(10):
            session.get(f"{server.url}/items")
        assert server.stats().connections == 1


def test_a_post_on_a_connection_that_went_stale_is_not_guessed_about(clock: FakeClock) -> None:
    """The server closed it while the request was under way: nobody knows what it did."""

    def handle(connection: socket.socket) -> None:
        read_head(connection)

    with (
        serve(handle) as wire,
        session_on(RateKitAdapter(road(clock))) as session,
        pytest.raises(requests.ConnectionError) as caught,
    ):
        session.post(wire.url)
    assert caught.value.ratekit.attempts == 1  # type: ignore[attr-defined]
