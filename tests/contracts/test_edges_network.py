"""Proxies, TLS and HTTP/2 at every edge: what the library offers is there, and works as before."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from ratekit import Pipeline, Retry
from ratekit.testing import ApiServer, FakeClock
from tests.contracts.edges import Client, Edge, road
from tests.contracts.wire import OK, read_head, serve


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give an authority that no machine trusts of itself."""
    return trustme.CA()


@pytest.fixture(scope="module")
def served_by(authority: trustme.CA) -> ssl.SSLContext:
    """Give a server's side of TLS, with a certificate of that authority's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> Path:
    """Give the authority's certificate as a file."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@contextlib.contextmanager
def trusting(edge: Edge, pipeline: Pipeline, verify: Path | bool) -> Iterator[Any]:  # noqa: FBT001
    """Give a function that sends a GET, with the library's own option for certificates."""
    if edge.name == "requests":
        with edge.client(pipeline) as client:
            yield lambda url: client.get(url, verify=verify if verify is False else str(verify))
    else:
        context: Any = verify
        if isinstance(verify, Path):
            context = ssl.create_default_context(cafile=str(verify))
        with edge.client(pipeline, verify=context) as client:
            yield client.get


def answer_ok(connection: socket.socket) -> None:
    """Answer one request."""
    read_head(connection)
    connection.sendall(OK)


def test_a_trusted_certificate_is_trusted(
    edge: Edge, clock: FakeClock, served_by: ssl.SSLContext, trusted: Path
) -> None:
    """`verify=` reaches the library: on requests with the request, on httpx with the transport."""
    with serve(answer_ok, served_by) as wire, trusting(edge, road(clock), trusted) as get:
        assert get(wire.url).status_code == 200


def test_certificates_may_be_left_unchecked(
    edge: Edge, clock: FakeClock, served_by: ssl.SSLContext
) -> None:
    """`verify=False` reaches the library too."""
    with serve(answer_ok, served_by) as wire, trusting(edge, road(clock), verify=False) as get:
        if edge.name == "requests":
            with pytest.warns(match="Unverified HTTPS request"):
                assert get(wire.url).status_code == 200
        else:
            assert get(wire.url).status_code == 200


def test_an_untrusted_certificate_is_not_tried_again(
    edge: Edge, clock: FakeClock, served_by: ssl.SSLContext
) -> None:
    """It would be no better the second time: the library's own error at once."""
    with serve(answer_ok, served_by) as wire, edge.client(road(clock)) as client:
        with pytest.raises(edge.unreachable, match="CERTIFICATE_VERIFY_FAILED") as caught:
            client.get(wire.url)
        assert wire.accepted == 1
    assert edge.details(caught.value).attempts == 1


def test_http2_is_spoken_where_it_is_asked_for(
    edge: Edge, clock: FakeClock, authority: trustme.CA
) -> None:
    """`http2=True` on the transport; the response tells the version, and a 503 is repeated."""
    if edge.name == "requests":
        pytest.skip("requests speaks HTTP/1.1 only")
    connection_of = pytest.importorskip("h2.connection")
    config_of = pytest.importorskip("h2.config")
    events = pytest.importorskip("h2.events")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    authority.issue_cert("localhost").configure_cert(context)
    statuses = ["200", "503"]

    def handle(connection: socket.socket) -> None:
        http2 = connection_of.H2Connection(config_of.H2Configuration(client_side=False))
        http2.initiate_connection()
        connection.sendall(http2.data_to_send())
        while data := connection.recv(65536):
            for event in http2.receive_data(data):
                if isinstance(event, events.StreamEnded):
                    http2.send_headers(event.stream_id, [(":status", statuses.pop())])
                    http2.send_data(event.stream_id, b"two", end_stream=True)
            connection.sendall(http2.data_to_send())

    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with (
        serve(handle, context) as wire,
        edge.client(road(clock), http2=True, verify=trust) as client,
    ):
        response = client.get(wire.url)
    assert (response.status_code, response.http_version, response.content) == (
        200, "HTTP/2", b"two",
    )  # fmt: skip
    assert edge.details(response).attempts == 2


@pytest.fixture
def proxy() -> Iterator[ApiServer]:
    """Give a server that answers in place of whoever is asked for through it."""
    with ApiServer(rate=None) as server:
        yield server


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "http_proxy": {"http_proxy": "{proxy}"},
    "HTTP_PROXY": {"HTTP_PROXY": "{proxy}"},
    "without a scheme": {"HTTP_PROXY": "{bare}"},
    "ALL_PROXY": {"ALL_PROXY": "{proxy}"},
    "HTTPS_PROXY": {"HTTPS_PROXY": "{proxy}"},
    "NO_PROXY": {"HTTP_PROXY": "{proxy}", "NO_PROXY": "example.org, localhost"},
    "no_proxy": {"HTTP_PROXY": "{proxy}", "no_proxy": "localhost"},
    "NO_PROXY of all": {"ALL_PROXY": "{proxy}", "NO_PROXY": "*"},
    "NO_PROXY of others and all": {"ALL_PROXY": "{proxy}", "NO_PROXY": "example.org,*"},
    "NO_PROXY of others": {"HTTP_PROXY": "{proxy}", "NO_PROXY": "example.org"},
    "NO_PROXY with the end of a name": {"HTTP_PROXY": "{proxy}", "NO_PROXY": "host"},
    "NO_PROXY with a scheme": {"HTTP_PROXY": "{proxy}", "NO_PROXY": "http://localhost"},
    "NO_PROXY with addresses": {"HTTP_PROXY": "{proxy}", "NO_PROXY": "10.0.0.0/8,::1,127.0.0.1"},
    "NO_PROXY with the port": {"HTTP_PROXY": "{proxy}", "NO_PROXY": "localhost:{port}"},
    "NO_PROXY with another port": {"HTTP_PROXY": "{proxy}", "NO_PROXY": "localhost:1"},
    "NO_PROXY with a dot": {"HTTP_PROXY": "{proxy}", "NO_PROXY": ".localhost"},
}
DIRECT = {"nothing", "HTTPS_PROXY", "NO_PROXY", "no_proxy", "NO_PROXY of all"}
PROXIED = {"http_proxy", "HTTP_PROXY", "without a scheme", "ALL_PROXY", "NO_PROXY of others"}


@pytest.mark.parametrize("case", ENVIRONMENTS)
def test_the_environments_proxies_are_used_as_a_bare_client_uses_them(
    edge: Edge,
    server: ApiServer,
    proxy: ApiServer,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    """With ratekit and without it a request takes the same road."""
    url = server.url.replace("127.0.0.1", "localhost")
    words = {"bare": proxy.url.removeprefix("http://"), "port": url.rpartition(":")[2]}
    for name, value in ENVIRONMENTS[case].items():
        monkeypatch.setenv(name, value.format(proxy=proxy.url, **words))

    def road_taken(client: Client) -> str:
        server.reset()
        proxy.reset()
        client.get(f"{url}/items")
        return {(1, 0): "direct", (0, 1): "proxied"}[server.requests, proxy.requests]

    with edge.bare() as bare, edge.client(road(clock)) as rated:
        expected = road_taken(bare)
        assert road_taken(rated) == expected
    if case in DIRECT | PROXIED:
        assert expected == ("direct" if case in DIRECT else "proxied")


def test_a_proxy_may_be_named(
    edge: Edge, server: ApiServer, proxy: ApiServer, clock: FakeClock
) -> None:
    """On requests with the request, on httpx with the transport."""
    if edge.name == "requests":
        with edge.client(road(clock)) as client:
            client.get(f"{server.url}/items", proxies={"http": proxy.url})
    else:
        with edge.client(road(clock), proxy=proxy.url) as client:
            client.get(f"{server.url}/items")
    assert (server.requests, proxy.requests) == (0, 1)


def test_the_environment_may_be_left_alone(
    edge: Edge,
    server: ApiServer,
    proxy: ApiServer,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`trust_env=False`: on requests of the session, on httpx of the transport."""
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    of_transport = {} if edge.name == "requests" else {"trust_env": False}
    with edge.client(road(clock), **of_transport) as client:
        if edge.name == "requests":
            client.native.trust_env = False
        client.get(f"{server.url}/items")
    assert (server.requests, proxy.requests) == (1, 0)


def test_the_key_is_the_servers_and_not_the_proxys(
    edge: Edge,
    server: ApiServer,
    proxy: ApiServer,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A limit is kept for whoever is asked, on whatever road."""
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    with edge.client(road(clock)) as client:
        assert edge.details(client.get(f"{server.url}/items")).key == server.url


def test_a_proxy_that_is_away_is_tried_again(
    edge: Edge,
    server: ApiServer,
    proxy: ApiServer,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing was sent: also a POST is repeated, and then the native error is the user's."""
    proxy.stop()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    with edge.client(road(clock)) as client, pytest.raises(edge.error) as caught:
        client.send("POST", f"{server.url}/items", body=b"x")
    assert edge.details(caught.value).attempts == 4


def test_a_unix_socket_is_reached_past_the_environments_proxies(
    edge: Edge, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`uds=` of an httpx transport."""
    if edge.name == "requests":
        pytest.skip("requests has no such option")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                answer_ok(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        with edge.client(Pipeline(Retry(), clock=clock), uds=path) as client:
            assert client.get("http://localhost/").content == b"ok"
        thread.join()
