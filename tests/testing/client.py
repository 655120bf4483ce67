"""Clients of the loopback API server that show what is on the wire, for the tests around here."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any

from ratekit.testing import ApiServer

__all__ = [
    "SOON",
    "Reply",
    "ask",
    "client",
    "connect",
    "drain",
    "get",
    "send",
    "statuses",
    "until",
]

SOON = 5.0  # seconds for what takes milliseconds


def connect(server: ApiServer) -> socket.socket:
    """Open a connection to `server`."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=SOON)


@contextlib.contextmanager
def client(server: ApiServer) -> Iterator[http.client.HTTPConnection]:
    """Give a client that keeps one connection."""
    one = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=SOON)
    with contextlib.closing(one):
        yield one


class Reply:
    """An answer, read."""

    def __init__(self, status: int, headers: Message, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """Read the body."""
        return json.loads(self.body)


def send(one: http.client.HTTPConnection, path: str = "/", method: str = "GET") -> Reply:
    """Send one request and read the answer whole."""
    one.request(method, path)
    response = one.getresponse()
    return Reply(response.status, response.headers, response.read())


def get(path: str = "/", *more: str) -> bytes:
    """Write a request as bytes."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: api", *more, "", ""]).encode("latin-1")


def drain(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def ask(server: ApiServer, data: bytes) -> bytes:
    """Send bytes and read until the other side closes."""
    with connect(server) as connection:
        connection.sendall(data)
        return drain(connection)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what is about to happen."""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def statuses(server: ApiServer, count: int) -> list[int]:
    """Send so many requests, one after another."""
    with client(server) as one:
        return [send(one).status for _ in range(count)]
