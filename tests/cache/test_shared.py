"""Answers that a fleet shares through memcached."""

import itertools
import logging
import os
import pickle
import signal
import subprocess
import sys
import uuid
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit import Cache, ConfigurationError, Dedup, MemcachedStore, Pipeline
from ratekit.cache import shared
from ratekit.cache.entry import Entry
from ratekit.cache.identity import Asked
from ratekit.cache.shared import MemcachedStorage, _entry, _value
from ratekit.cache.storage import Page
from ratekit.http.reply import Reply
from ratekit.stores.memcached.frame import Value
from ratekit.stores.memcached.wire import Get, Put
from ratekit.testing import Answer, ApiServer
from tests.conftest import Memcached, StartMemcached
from tests.contracts.edges import EDGES, Edge, until

REQUESTS = EDGES[0]
FRESH = (("Cache-Control", "max-age=60"), ("Content-Type", "text/plain"))
URL = "https://api.example.com/a"


@pytest.fixture
def name() -> str:
    """Give a name that no other test's cache has."""
    return uuid.uuid4().hex


@pytest.fixture
def storage(memcached: Memcached, name: str) -> MemcachedStorage:
    """Give a storage of one's own in the memcached that all tests share."""
    return MemcachedStorage(MemcachedStore(memcached.url, timeout=5), name)


@pytest.fixture
def other(memcached: Memcached, name: str) -> MemcachedStorage:
    """Give the same as another process has it."""
    return MemcachedStorage(MemcachedStore(memcached.url, timeout=5), name)


def asked(who: str = "", url: str = URL, **headers: str) -> Asked:
    """Return a request as the cache sees it."""
    return Asked(url, who, headers)


def entry(storage: MemcachedStorage, body: bytes = b"body", **changes: Any) -> Entry:
    """Return an answer that is fresh for a minute."""
    fields: dict[str, Any] = {
        "reply": Reply(200, [("Content-Type", "text/plain"), ("X", "é")], body, reason="OK"),
        "stored_at": storage.now(),
        "age": 1.5,
        "fresh_for": 60.0,
        "always": False,
        "never_stale": True,
        "if_error": 5.0,
        "while_revalidate": 0.0,
        "etag": '"e"',
        "modified": None,
    }
    return Entry(**{**fields, **changes})


def kept(storage: MemcachedStorage, what: Asked, body: bytes = b"body", *vary: str) -> bool:
    """Keep an answer to a request, as one that was just asked for."""
    page = storage.open(what)
    assert page is not None
    return storage.keep(what, page, frozenset(vary), entry(storage, body))


def body_of(storage: MemcachedStorage, what: Asked) -> bytes | None:
    """Return the body that is kept for a request."""
    found = storage.find(what)[1]
    return None if found is None else found.reply.body


def test_an_answer_comes_back_as_it_was(storage: MemcachedStorage, other: MemcachedStorage) -> None:
    """Every field and instant, the body byte by byte, in another process."""
    page = storage.open(asked())
    assert page is not None
    original = entry(storage, os.urandom(3000) + b"\r\nEND\r\n")
    assert storage.keep(asked(), page, frozenset(), original)
    _, found = other.find(asked())
    assert found is not None
    assert found.reply.headers == original.reply.headers
    assert (found.reply.status, found.reply.reason, found.reply.body) == (
        200,
        "OK",
        original.reply.body,
    )
    assert abs(found.stored_at - original.stored_at) < 0.002
    for field in ("age", "fresh_for", "always", "never_stale", "if_error", "etag", "modified"):
        assert getattr(found, field) == getattr(original, field)


def test_whoever_asks_finds_his_own_answer(storage: MemcachedStorage) -> None:
    """What is kept for one caller is not there for another."""
    assert kept(storage, asked("ann"), b"ann's")
    assert kept(storage, asked("bob"), b"bob's")
    assert body_of(storage, asked("ann")) == b"ann's"
    assert body_of(storage, asked("bob")) == b"bob's"
    assert body_of(storage, asked()) is None


def test_variants_are_kept_side_by_side(storage: MemcachedStorage, other: MemcachedStorage) -> None:
    """The page learns by which fields answers vary, whoever keeps them."""
    for accept, body in (("a", b"A"), ("b", b"B")):
        assert kept(storage, asked(accept=accept), body, "accept")
    assert kept(other, asked(accept="a", lang="x"), b"AX", "lang")
    page, _ = storage.find(asked())
    assert page is not None
    assert page.vary == ("accept", "lang")
    assert body_of(storage, asked(accept="a", lang="x")) == b"AX"
    assert body_of(storage, asked(accept="a", lang="y")) is None


def test_a_hit_is_one_conversation(storage: MemcachedStorage) -> None:
    """The page and the answer are looked at together, once the page has been seen."""
    kept(storage, asked())
    assert body_of(storage, asked()) == b"body"
    before = storage._store.round_trips
    for _ in range(10):
        assert body_of(storage, asked()) == b"body"
    assert storage._store.round_trips == before + 10


def test_what_was_dropped_does_not_come_back(
    storage: MemcachedStorage, other: MemcachedStorage
) -> None:
    """Not even by whoever asked before that and keeps his answer only now."""
    page = other.open(asked())
    kept(storage, asked())
    storage.drop(URL)
    assert body_of(other, asked()) is None
    assert page is not None
    other.keep(asked(), page, frozenset(), entry(other, b"old"))
    assert not other.keep(asked(), page, frozenset({"accept"}), entry(other, b"old"))
    assert body_of(other, asked()) is None
    assert body_of(storage, asked()) is None


def test_everything_can_be_dropped_in_all_processes(
    storage: MemcachedStorage, other: MemcachedStorage
) -> None:
    """`clear()` leaves other names alone, and what comes after it is kept."""
    kept(storage, asked())
    kept(storage, asked(url=URL + "/b"))
    assert body_of(other, asked()) == b"body"
    other.clear()
    assert body_of(storage, asked()) is None
    assert body_of(storage, asked(url=URL + "/b")) is None
    assert kept(storage, asked())
    assert body_of(other, asked()) == b"body"


def test_an_answer_too_large_removes_the_older_one(storage: MemcachedStorage) -> None:
    """What does not fit into memcached is not kept, nor what it was to replace."""
    assert kept(storage, asked())
    assert not kept(storage, asked(), os.urandom(1_100_000))
    assert body_of(storage, asked()) is None


def test_a_long_text_is_compressed(storage: MemcachedStorage) -> None:
    """3 MiB of JSON fit into an item of 1 MiB."""
    text = b'{"name": "value"}' * 180_000
    assert kept(storage, asked(), text)
    assert body_of(storage, asked()) == text


def test_while_the_server_is_gone_nothing_is_kept_and_nothing_fails(
    start_memcached: StartMemcached, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A miss each time; what was dropped meanwhile is dropped before it is read again."""
    memcached = start_memcached()
    storage = MemcachedStorage(MemcachedStore(memcached.url, timeout=0.05), name)
    kept(storage, asked())
    assert body_of(storage, asked()) == b"body"
    memcached.pause()
    try:
        with caplog.at_level(logging.WARNING, "ratekit"):
            assert storage.find(asked()) == (None, None)
            assert storage.open(asked()) is None
            assert not storage.keep(asked(), Page("m"), frozenset({"accept"}), entry(storage))
            storage.drop(URL)
            assert storage.take_lead("m")
            storage.give_up_lead("m", for_all=True)
    finally:
        os.kill(memcached.process.pid, signal.SIGCONT)
    until(lambda: storage.find(asked())[1] is None and not storage._store.servers[0].is_lost)
    assert body_of(storage, asked()) is None
    assert "could not be dropped yet" in caplog.text


@given(
    noise=st.binary(max_size=300),
    cut=st.integers(0, 400),
    place=st.integers(0, 400),
    what=st.sampled_from(["page", "answer"]),
)
def test_anything_odd_is_a_miss(
    memcached: Memcached, noise: bytes, cut: int, place: int, what: str
) -> None:
    """Whatever stands in memcached in place of a page or an answer, nothing raises."""
    storage = MemcachedStorage(MemcachedStore(memcached.url, timeout=5), "odd")
    request = asked(url=f"{URL}/{uuid.uuid4().hex}")
    kept(storage, request)
    page, _ = storage.find(request)
    assert page is not None
    key = (
        storage._key("page", request.url) if what == "page" else storage._answer_key(request, page)
    )
    server = storage._place(request.url)
    frame = server.talk([Get(key)])[0].value
    broken = (frame[:place] + noise + frame[place:])[: len(frame) + len(noise) - cut]
    server.talk([Put(key, broken, 60)])
    found = storage.find(request)[1]
    assert found is None or broken == frame
    storage._store.close()


ODD: list[dict[str, Any]] = [
    {"status": 42},
    {"status": "200"},
    {"headers": [["a"]]},
    {"headers": [["a", "b\r\nc: d"]]},
    {"headers": [["", "b"]]},
    {"headers": "ab"},
    {"age": -1},
    {"age": None},
    {"fresh_for": "1"},
    {"always": 1},
    {"etag": 1},
    {"reason": None},
]


@pytest.mark.parametrize("change", ODD, ids=str)
def test_a_valid_frame_with_other_contents_is_no_answer(
    storage: MemcachedStorage, change: dict[str, Any]
) -> None:
    """Who may write to the server may write a frame; what it says is looked at all the same."""
    good = _value(entry(storage))
    assert _entry(good) is not None
    assert _entry(_with_meta(good, {**good.meta, **change})) is None


def _with_meta(value: Value, meta: dict[str, Any]) -> Value:
    return Value(
        meta=meta,
        body=value.body,
        created_ms=value.created_ms,
        fresh_until_ms=value.fresh_until_ms,
        stale_until_ms=value.stale_until_ms,
    )


def test_one_of_all_that_ask_leads(storage: MemcachedStorage, other: MemcachedStorage) -> None:
    """The others wait until it gives up, or are told that there is nothing to wait for."""
    assert storage.take_lead("m")
    assert not other.take_lead("m")
    storage.give_up_lead("m", for_all=False)
    assert other.take_lead("m")
    assert not storage.take_lead("m")
    other.give_up_lead("m", for_all=True)
    assert storage.take_lead("m")
    assert other.take_lead("m")


def test_a_cache_needs_a_name() -> None:
    """Without one nobody could say whose answers they are."""
    with pytest.raises(ConfigurationError, match="name"):
        Cache(store="memcached://127.0.0.1:1", name="")


def test_a_pickled_cache_finds_the_same_answers(memcached: Memcached, name: str) -> None:
    """Also for those who have credentials: the hash is the same in every process."""
    cache = Cache(store=MemcachedStore(memcached.url), name=name)
    copy = pickle.loads(pickle.dumps(cache))  # noqa: S301  (made here)
    assert isinstance(copy._storage, MemcachedStorage)
    assert copy._identity._key == cache._identity._key is not None


WORKER = """
import importlib, sys, threading
from ratekit import Cache, Dedup, Pipeline

library, store, name, url = sys.argv[1:]
client, edge = importlib.import_module(library), importlib.import_module(f"ratekit.{library}")
pipeline = Pipeline(Cache(store=store, name=name), Dedup())
if library == "requests":
    session = client.Session()
    session.mount("http://", edge.RateKitAdapter(pipeline))
else:
    session = client.Client(transport=edge.RateKitTransport(pipeline, verify=False))

texts = []

def get():
    texts.append(session.get(url).text)

print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=get) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*texts)
session.close()
"""


@pytest.mark.parametrize(
    ("headers", "fetches"), [(FRESH, 1), ((("Cache-Control", "no-store"),), 16)]
)
def test_a_fleet_makes_one_request_of_a_herds(
    memcached: Memcached,
    server: ApiServer,
    name: str,
    headers: tuple[tuple[str, str], ...],
    fetches: int,
) -> None:
    """4 processes of 4 threads, one cold URL, three libraries: one fetch, if it may be kept."""
    server.script("/a", *[Answer(200, headers, b"body", delay=0.3)] * 16)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, library, memcached.url, name, server.url + "/a"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for library in ("requests", "httpx", "httpx2", "requests")
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        seen = [worker.communicate(timeout=30)[0].split() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert seen == [["body"] * 4] * 4
    assert len(server.seen("/a")) == fetches


def test_a_leader_elsewhere_that_dies_strands_nobody(
    storage: MemcachedStorage,
    memcached: Memcached,
    name: str,
    server: ApiServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a few seconds (one, here) another process asks; a deadline may come first."""
    monkeypatch.setattr(shared, "_LEAD", 1)
    cache = Cache(store=memcached.url, name=name)
    with REQUESTS.client(Pipeline(cache, Dedup())) as client:
        request = asked(url=server.url + "/a")
        page = storage.open(request)
        assert page is not None
        assert storage.take_lead(f"{page.mark} ")
        response = client.get(server.url + "/a")
        assert response.status_code == 200
        assert 0 < response.ratekit.waited < 5


def _hits(edge: Edge, cache: Cache, url: str, **headers: str) -> Generator[bool]:
    with edge.client(Pipeline(cache)) as client:
        for _ in itertools.count():
            yield edge.details(client.get(url, headers=headers)).from_cache


def test_no_credential_is_in_memcached(
    start_memcached: StartMemcached, server: ApiServer, edge: Edge
) -> None:
    """Neither a token nor a key in the URL, in what is kept and under what it is kept."""
    memcached = start_memcached("-vv")
    secrets = ("hunter2-token", "hunter3-cookie", "hunter4-key")
    server.script("/a", *[Answer(200, FRESH, b"x")])
    cache = Cache(store=memcached.url)
    hits = _hits(
        edge,
        cache,
        f"{server.url}/a?api_key={secrets[2]}",
        Authorization=f"Bearer {secrets[0]}",
        Cookie=f"s={secrets[1]}",
    )
    assert [next(hits), next(hits)] == [False, True]
    hits.close()
    storage = cache._storage
    assert isinstance(storage, MemcachedStorage)
    whole = b""

    def is_whole() -> bool:
        # Read once, an answer may still be on its way; and the crawler may not have come to it.
        nonlocal whole
        whole = memcached.ask(b"lru_crawler metadump all")
        return whole.endswith(b"END\r\n") and whole.count(b"cache-") == 2

    until(is_whole)
    for line in whole.splitlines():
        if line.startswith(b"key="):
            from urllib.parse import unquote_to_bytes

            key = unquote_to_bytes(line.split()[0][4:])
            value = storage._store.servers[0].talk([Get(key)])[0].value
            assert not any(secret.encode() in key + value for secret in secrets)
