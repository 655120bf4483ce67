"""What a hit, a miss and a full cache cost, beside the caches of others.

- `cache-hit`: a GET that is answered from the cache, one thread, a 2 KiB JSON answer; and the
  client's own floor: an adapter that builds a fresh response, a mock transport that returns one.
  All take turns one request at a time. Promised: at most 35 us over the floor
- `cache-miss`: a GET of an answer that says `no-store`, over loopback, through `Pipeline(Cache())`
  and through the bare client in turns. Promised: at most 40 us
- `cache-threads`: hits a second of 8 threads on httpx, in rounds. Promised: twice hishel's
- `cache-memory`: 10,000 URLs of 2 KiB through a cache of 1 MiB. Promised: no more than 2 MiB of
  memory that Python allocated, the tables themselves included
- `cache-permits`: 1000 hits of one URL under 10 a minute. Promised: one permit
"""

import gc
import io
import sqlite3
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import httpx2
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPHeaderDict, HTTPResponse

import ratekit.httpx
import ratekit.httpx2
from ratekit import Cache, Pipeline, RateLimiter
from ratekit.requests import RateKitAdapter
from ratekit.testing import Answer, ApiServer
from tests.benchmarks.measure import (
    Finding,
    Settings,
    installed,
    interleave,
    load,
    middle,
    peer,
    print_table,
)  # fmt: skip
from tests.benchmarks.overhead import COLUMNS, pairs

__all__ = ["run_hit", "run_memory", "run_miss", "run_permits", "run_threads"]

URL = "https://api.example.com/v1/users?page=2"
_BODY = b'{"text": "' + b"x" * 2036 + b'"}'
_THREADS = 8

Get = Callable[[str], Any]


def _fields() -> list[tuple[str, str]]:
    return [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(_BODY))),
        ("Cache-Control", "max-age=3600"),
        ("Date", formatdate(usegmt=True)),
        ("ETag", '"33a64df5"'),
        ("Server", "benchmark"),
    ]


class _Offline(HTTPAdapter):
    """An adapter with no server behind it: a fresh answer to every request."""

    fields = _fields()

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        headers = HTTPHeaderDict(self.fields)
        raw = HTTPResponse(io.BytesIO(_BODY), headers, 200, preload_content=False)
        return self.build_response(request, raw)


def _answering(library: Any) -> Any:
    fields = _fields()
    return library.MockTransport(
        lambda request: library.Response(200, headers=fields, content=_BODY)
    )


@contextmanager
def _on_requests(adapter: Any) -> Iterator[Get]:
    with requests.Session() as session:
        session.mount("https://", adapter)
        yield session.get


@contextmanager
def _with_requests_cache() -> Iterator[Get]:
    library = peer("requests_cache")
    with library.CachedSession(backend="memory", cache_control=True) as session:
        session.mount("https://", _Offline())
        yield session.get


def _with_cachecontrol() -> Any:
    library = peer("cachecontrol")
    # Above its own parent stands the adapter that it sends through.
    kind: Any = type("CacheControl", (library.CacheControlAdapter, _Offline), {})
    return _on_requests(kind(cache=peer("cachecontrol.cache").DictCache()))


@contextmanager
def _on_httpx(library: Any, transport: Any) -> Iterator[Get]:
    with library.Client(transport=transport) as client:
        yield client.get


def _hishel(folder: Path, *, rfc: bool, memory: bool) -> Any:
    hishel, edge = peer("hishel"), peer("hishel.httpx")
    if memory:
        storage = hishel.SqliteStorage(
            connection=sqlite3.connect(":memory:", check_same_thread=False)
        )
    else:
        storage = hishel.SqliteStorage(database_path=folder / f"hishel-{rfc}.db")
    return edge.CacheTransport(next_transport=_answering(httpx), storage=storage, rfc=rfc)


def _clients(folder: Path) -> dict[str, Any]:
    """Return every client by its name; "floor" is what the library itself costs."""
    ours = {
        "requests: floor": _on_requests(_Offline()),
        "requests: ratekit": _on_requests(RateKitAdapter(Pipeline(Cache()), adapter=_Offline())),
    }
    if installed("cachecontrol"):
        ours["requests: CacheControl, dictionary"] = _with_cachecontrol()
    if installed("requests_cache"):
        ours["requests: requests-cache, memory"] = _with_requests_cache()
    for library, edge in ((httpx, ratekit.httpx), (httpx2, ratekit.httpx2)):
        transport: Any = edge
        name = library.__name__
        ours[f"{name}: floor"] = _on_httpx(library, _answering(library))
        ours[f"{name}: ratekit"] = _on_httpx(
            library,
            transport.RateKitTransport(Pipeline(Cache()), transport=_answering(library)),
        )
    if installed("hishel"):
        for rfc in (True, False):
            kind = "rfc" if rfc else "default"
            ours[f"httpx: hishel {kind}, sqlite in memory"] = _on_httpx(
                httpx, _hishel(folder, rfc=rfc, memory=True)
            )
            ours[f"httpx: hishel {kind}, sqlite file"] = _on_httpx(
                httpx, _hishel(folder, rfc=rfc, memory=False)
            )
    return ours


def _time(get: Get, url: str) -> float:
    began = time.perf_counter_ns()
    get(url)
    return (time.perf_counter_ns() - began) / 1000


def run_hit(settings: Settings) -> list[Finding]:
    """Let every client make a request in turn."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        gets = {
            name: opened.enter_context(client) for name, client in _clients(Path(folder)).items()
        }
        for get in gets.values():
            for _ in range(20):
                get(URL)
        subjects = {name: (lambda get=get: _time(get, URL)) for name, get in gets.items()}
        times = interleave(subjects, settings.pick(4000, 400))
    print(f"us a hit, medians; load average {load()}")
    medians = {name: middle(one) for name, one in times.items()}
    over = {name: median - medians[_floor(name)] for name, median in medians.items()}
    print_table(
        ["", "median", "over the floor"],
        [[name, f"{median:.1f}", f"{over[name]:+.1f}"] for name, median in medians.items()],
    )
    names = ("requests", "httpx", "httpx2")
    return [
        Finding(f"{name}: over the floor", over[f"{name}: ratekit"], 35, "us") for name in names
    ]


def _floor(name: str) -> str:
    return f"{name.partition(':')[0]}: floor"


def run_miss(settings: Settings) -> list[Finding]:
    """Alternate requests that are not kept with those of the bare client."""
    deltas = {}
    libraries = (("requests", None), ("httpx", ratekit.httpx), ("httpx2", ratekit.httpx2))
    with ApiServer(rate=None, process=True) as server:
        for name, edge in libraries:
            count = settings.pick(4000, 600)
            answer = Answer(200, [("Cache-Control", "no-store")], _BODY)
            server.script("/a", *[answer] * (3 * count))
            with ExitStack() as opened:
                bare, cached = (
                    opened.enter_context(_real(name, edge, cached=cached))
                    for cached in (False, True)
                )
                deltas[name] = pairs(bare, cached, f"{server.url}/a", count)
            server.reset()
    print(f"us a request that is not kept, over loopback; load average {load()}")
    print_table(COLUMNS, [delta.row(name) for name, delta in deltas.items()])
    return [Finding(f"{name}: a miss, added", one.added, 40, "us") for name, one in deltas.items()]


@contextmanager
def _real(name: str, edge: Any, *, cached: bool) -> Iterator[Get]:
    if edge is None:
        with requests.Session() as session:
            if cached:
                session.mount("http://", RateKitAdapter(Pipeline(Cache())))
            yield session.get
        return
    transport = edge.RateKitTransport(Pipeline(Cache())) if cached else None
    with peer(name).Client(transport=transport) as client:
        yield client.get


def _rate(get: Get, seconds: float) -> float:
    """Return how many hits a second all threads make together."""
    counts = [0] * _THREADS
    barrier = threading.Barrier(_THREADS + 1)
    stop = threading.Event()

    def hit(at: int) -> None:
        barrier.wait()
        while not stop.is_set():
            get(URL)
            counts[at] += 1

    threads = [threading.Thread(target=hit, args=(at,)) for at in range(_THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def run_threads(settings: Settings) -> list[Finding]:
    """Give each client some rounds of 8 threads."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        gets = {
            name: opened.enter_context(client)
            for name, client in _clients(Path(folder)).items()
            if name.startswith("httpx:")
        }
        for get in gets.values():
            get(URL)
        seconds = 0.2 if settings.quick else 0.6
        subjects = {name: (lambda get=get: _rate(get, seconds)) for name, get in gets.items()}
        rates = interleave(subjects, settings.pick(9, 3))
    print(f"hits a second, {_THREADS} threads, httpx; load average {load()}")
    medians = {name: middle(one) for name, one in rates.items()}
    print_table(["", "hits/s"], [[name, f"{rate:.0f}"] for name, rate in medians.items()])
    rfc = [rate for name, rate in medians.items() if "hishel rfc" in name]
    if not rfc:
        return []
    ratio = medians["httpx: ratekit"] / max(rfc)
    return [Finding("8 threads: hits over those of hishel", ratio, 2, at_least=True)]


def run_memory(settings: Settings) -> list[Finding]:
    """Fill a small cache many times over."""
    cache = Cache(max_bytes=1 << 20)
    with ExitStack() as opened:
        get = opened.enter_context(
            _on_httpx(
                httpx,
                ratekit.httpx.RateKitTransport(Pipeline(cache), transport=_answering(httpx)),
            )
        )
        for at in range(100):
            get(f"https://api.example.com/warm/{at}")
        cache.clear()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for at in range(settings.pick(10_000, 3000)):
            get(f"https://api.example.com/items/{at}")
        gc.collect()
        grown = (tracemalloc.get_traced_memory()[0] - before) / (1 << 20)
        tracemalloc.stop()
    info = cache.info()
    print(
        f"{info['entries']} answers are kept, by its own count {info['bytes'] / (1 << 20):.2f} MiB"
    )
    return [Finding("memory after 10,000 URLs through 1 MiB", grown, 2, "MiB")]


def run_permits(settings: Settings) -> list[Finding]:
    """Ask for one URL more often than the limit allows."""
    limiter = RateLimiter("10/minute window", key_of=lambda call: "k")
    pipeline = Pipeline(Cache(), limiter)
    with _on_requests(RateKitAdapter(pipeline, adapter=_Offline())) as get:
        for _ in range(1001):
            get(URL)
    return [
        Finding("permits for 1000 hits and their first fetch", 10 - limiter.peek("k").remaining, 1)
    ]
