"""What a whole pipeline adds to a request that needed none of it.

`Pipeline(Retry(), RateLimiter(...))` with a limit that is never reached, for requests, httpx and
httpx2, in microseconds of median over the bare client. Measured twice:

- loopback: GETs over one kept connection to a server in a process of its own
- no network: the innermost adapter or transport builds an answer and returns it. This leaves out
  sockets, and the timeouts that ratekit sets on them where the user gave none

Bare and surrounded requests alternate one by one, and which of them goes first alternates too. "In
pairs" is the median of each pair's difference: what the same moment made of both. The CPU time is
that of the calling thread, which other programs disturb less than the clock.

Promised: at most 30 us.
"""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import httpx2
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

import ratekit.httpx
import ratekit.httpx2
from ratekit import Pipeline, RateLimiter, Retry
from ratekit.requests import RateKitAdapter
from ratekit.testing import ApiServer
from tests.benchmarks.measure import Finding, Settings, load, middle, print_table

__all__ = ["COLUMNS", "Get", "Offline", "pairs", "run"]

_BODY = b'{"items": [1, 2, 3], "next": null}'
_TYPE = {"Content-Type": "application/json", "Content-Length": str(len(_BODY))}
_TARGET = 30

COLUMNS = ["", "bare", "surrounded", "added", "ratio", "in pairs", "added, CPU"]

Get = Callable[[str], Any]


class Times(NamedTuple):
    """Microseconds of each request, by the clock and by the CPU time of the thread."""

    wall: list[float]
    cpu: list[float]


class Delta(NamedTuple):
    """Bare and surrounded requests, pair by pair."""

    bare: Times
    surrounded: Times

    @property
    def added(self) -> float:
        """Return the difference of the medians."""
        return middle(self.surrounded.wall) - middle(self.bare.wall)

    def row(self, name: str) -> list[str]:
        """Return the line of a table."""
        bare, surrounded = middle(self.bare.wall), middle(self.surrounded.wall)
        both = zip(self.bare.wall, self.surrounded.wall, strict=True)
        return [
            name,
            f"{bare:.1f}",
            f"{surrounded:.1f}",
            f"{self.added:.1f}",
            f"{surrounded / bare:.3f}",
            f"{middle(second - first for first, second in both):.1f}",
            f"{middle(self.surrounded.cpu) - middle(self.bare.cpu):.1f}",
        ]


class Offline(HTTPAdapter):
    """An adapter with no server behind it: a fresh answer to every request."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Answer."""
        raw = HTTPResponse(io.BytesIO(_BODY), _TYPE, 200, preload_content=False)
        return self.build_response(request, raw)


def _pipeline() -> Pipeline:
    return Pipeline(Retry(), RateLimiter("1000000000/second burst 1000"))


@contextmanager
def _requests(*, network: bool) -> Iterator[tuple[Get, Get]]:
    with requests.Session() as bare, requests.Session() as surrounded:
        if network:
            surrounded.mount("http://", RateKitAdapter(_pipeline()))
        else:
            bare.mount("http://", Offline())
            surrounded.mount("http://", RateKitAdapter(_pipeline(), adapter=Offline()))
        yield bare.get, surrounded.get


@contextmanager
def _httpx(library: Any, edge: Any, *, network: bool) -> Iterator[tuple[Get, Get]]:
    def answer(request: Any) -> Any:
        return library.Response(200, headers=_TYPE, content=_BODY)

    inner = None if network else library.MockTransport(answer)
    around = edge.RateKitTransport(_pipeline(), transport=inner)
    with library.Client(transport=inner) as bare, library.Client(transport=around) as surrounded:
        yield bare.get, surrounded.get


def pairs(bare: Get, surrounded: Get, url: str, count: int) -> Delta:
    """Let both make so many requests in turns; which of them goes first alternates too."""
    wall_ns, cpu_ns = time.perf_counter_ns, time.thread_time_ns
    delta = Delta(Times([], []), Times([], []))
    order = [(bare, delta.bare), (surrounded, delta.surrounded)]
    for turn in range(-(count // 10), count):
        order.reverse()
        for get, times in order:
            wall, cpu = wall_ns(), cpu_ns()
            get(url)
            cpu, wall = cpu_ns() - cpu, wall_ns() - wall
            if turn >= 0:
                times.wall.append(wall / 1000)
                times.cpu.append(cpu / 1000)
    return delta


def run(settings: Settings) -> list[Finding]:
    """Alternate bare and surrounded requests."""
    deltas = {}
    with ApiServer(rate=None, process=True) as server:
        for network in (True, False):
            count = settings.pick(6000, 600) if network else settings.pick(10000, 1500)
            where = "loopback" if network else "no network"
            clients = {
                "requests": _requests(network=network),
                "httpx": _httpx(httpx, ratekit.httpx, network=network),
                "httpx2": _httpx(httpx2, ratekit.httpx2, network=network),
            }
            for name, client in clients.items():
                with client as (bare, surrounded):
                    deltas[f"{name}, {where}"] = pairs(
                        bare, surrounded, f"{server.url}/items", count
                    )
    print(f"Pipeline(Retry(), RateLimiter(...)), us a request; load average {load()}")
    print_table(COLUMNS, [delta.row(name) for name, delta in deltas.items()])
    return [Finding(f"{name}: added", delta.added, _TARGET, "us") for name, delta in deltas.items()]
