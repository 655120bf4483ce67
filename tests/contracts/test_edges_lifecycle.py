"""How long things live at every edge: shared pipelines, closing, pickling, wrapping, mistakes."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ratekit import (
    ConfigurationError,
    MemoryStore,
    Pipeline,
    RateLimited,
    RateLimiter,
    Retry,
)
from ratekit.testing import Answer, ApiServer, FakeClock, instant
from tests.contracts.edges import EDGES, Edge, road, until

OTHERS = {"requests": "httpx", "httpx": "httpx2", "httpx2": "requests"}


def other(edge: Edge) -> Edge:
    """Return another edge than this one."""
    return next(one for one in EDGES if one.name == OTHERS[edge.name])


def test_two_edges_on_one_pipeline_share_one_budget(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A permit taken through one library is missing at the other: both name the key alike."""
    pipeline = road(clock, "1/minute", max_wait=1)
    with edge.client(pipeline) as one, other(edge).client(pipeline) as two:
        one.get(f"{server.url}/items")
        with pytest.raises(RateLimited) as caught:
            two.get(f"{server.url}/items")
    assert caught.value.key == server.url


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://Host.Example:80/a?b#c", "http://host.example"),
        ("https://host.example:443", "https://host.example"),
        ("https://host.example:8443/", "https://host.example:8443"),
        ("http://user:secret@host.example/", "http://host.example"),
        ("http://[::1]:80/", "http://[::1]"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://bücher.example/", "http://xn--bcher-kva.example"),
    ],
)
def test_a_key_is_spelt_the_same_at_every_edge(
    edge: Edge, clock: FakeClock, url: str, key: str
) -> None:
    """Scheme, host and port in one form, and no password in it."""
    limiter = RateLimiter("1/minute", max_wait=0, store=MemoryStore(clock=clock))
    limiter.hold(key, 60)
    with edge.client(limiter) as client, pytest.raises(RateLimited) as caught:
        client.get(url)
    assert caught.value.key == key


def test_state_outlives_adapters(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """A client made anew counts on with the pipeline it is given."""
    pipeline = road(clock, "1/minute", max_wait=1)
    with edge.client(pipeline) as client:
        client.get(f"{server.url}/items")
    with edge.client(pipeline) as client, pytest.raises(RateLimited):
        client.get(f"{server.url}/items")


def test_limiters_of_one_name_and_store_share_one_budget(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Two pipelines, one name: one budget."""
    store = MemoryStore(clock=clock)
    limiters = [RateLimiter("1/minute", name="api", max_wait=1, store=store) for _ in range(2)]
    with edge.client(limiters[0]) as one, other(edge).client(limiters[1]) as two:
        one.get(f"{server.url}/items")
        with pytest.raises(RateLimited):
            two.get(f"{server.url}/items")


def test_a_client_that_is_closed_hurts_no_call_in_flight_elsewhere(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Others on the same pipeline go on: before, during and after."""
    pipeline = road(clock)
    server.script("/slow", Answer(200, body=b"slow", delay=0.2))
    got: list[Any] = []
    with edge.client(pipeline) as staying:
        thread = threading.Thread(target=lambda: got.append(staying.get(f"{server.url}/slow")))
        with edge.client(pipeline) as leaving:
            leaving.get(f"{server.url}/items")
            thread.start()
            until(lambda: server.seen("/slow"))
        thread.join()
        assert got[0].content == b"slow"
        assert staying.get(f"{server.url}/items").status_code == 200
        assert edge.details(got[0]).attempts == 1


def test_closing_twice_is_the_same_as_once(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """As it is with the library's own."""
    transport = edge.transport(road(clock))
    with edge.on(transport) as client:
        client.get(f"{server.url}/items")
    transport.close()


def test_closing_gives_up_the_idle_connections(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A client made anew opens its own; none is left open behind it."""
    pipeline = road(clock)
    for _ in range(3):
        with edge.client(pipeline) as client:
            client.get(f"{server.url}/items")
            client.get(f"{server.url}/items")
    assert server.stats().connections == 3


class Recording:
    """Notes what is called on a wrapped adapter or transport."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls: list[str] = []

    def watch(self, *names: str) -> Any:
        """Return `inner`, whose methods `names` are noted."""
        for name in names:
            setattr(self.inner, name, self._noted(name, getattr(self.inner, name)))
        return self.inner

    def _noted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            return method(*args, **kwargs)

        return noted


def test_a_wrapped_transport_makes_every_attempt_and_is_closed(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Each attempt is sent through it; closing the outer one closes it."""
    send = "send" if edge.name == "requests" else "handle_request"
    wrapped = Recording(edge.plain())
    server.script("/items", Answer(503))
    transport = edge.around(wrapped.watch(send), road(clock))
    with edge.on(transport) as client:
        assert client.get(f"{server.url}/items").status_code == 200
    assert wrapped.calls == [send, send]
    closed = Recording(edge.plain())
    edge.around(closed.watch("close")).close()
    assert closed.calls == ["close"]


def test_a_pickled_transport_shares_the_pipeline_in_this_process(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A copy counts on the same budget, and works."""
    transport = edge.picklable(Pipeline(Retry(), RateLimiter("1/minute", max_wait=1)))
    copied = pickle.loads(pickle.dumps(transport))  # noqa: S301  (our own)
    assert copied.pipeline is transport.pipeline
    assert copy.deepcopy(transport).pipeline is transport.pipeline
    with edge.on(transport) as one, edge.on(copied) as two:
        assert one.get(f"{server.url}/items").status_code == 200
        with pytest.raises(RateLimited):
            two.get(f"{server.url}/items")


def test_a_transport_pickles_while_waits_take_no_time_and_afterwards(edge: Edge) -> None:
    """`instant()` changes the clock of this process, and nothing that is pickled."""
    transport = edge.picklable(Pipeline(Retry(), RateLimiter("1/minute")))
    with instant():
        pickled = pickle.dumps(transport)
    assert pickle.dumps(transport) == pickled
    assert pickle.loads(pickled).pipeline is transport.pipeline  # noqa: S301  (our own)


IN_A_CHILD = """
import pickle, sys
transports, url, name = pickle.load(sys.stdin.buffer)
one, two = transports
print(one.pipeline is two.pipeline)
library = __import__(name)
if name == "requests":
    client = library.Session()
    client.mount("http://", one)
else:
    client = library.Client(transport=one)
with client:
    for _ in range(2):
        try:
            print(client.get(url).status_code)
        except Exception as refusal:
            print(type(refusal).__name__)
"""


def test_a_transport_pickled_to_another_process_gets_a_pipeline_of_its_own(
    edge: Edge, server: ApiServer
) -> None:
    """All copies that arrive there share one, and it starts with a full bucket."""
    pipeline = Pipeline(Retry(), RateLimiter("1/minute", max_wait=1))
    with edge.client(pipeline) as client:
        client.get(f"{server.url}/items")
        pair = (edge.picklable(pipeline), edge.picklable(pipeline))
        child = subprocess.run(
            [sys.executable, "-c", IN_A_CHILD],
            input=pickle.dumps((pair, f"{server.url}/items", edge.name)),
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    assert child.stdout.decode().split() == ["True", "200", "RateLimited"], child.stderr.decode()


MISTAKES: dict[str, tuple[Callable[[Edge], Any], str]] = {
    "a transport in the pipeline's place": (
        lambda edge: edge.transport(edge.plain()),
        "named: adapter=..., transport=...",
    ),
    "a limit's text in the pipeline's place": (
        lambda edge: edge.transport("100/minute"),  # type: ignore[arg-type]
        "'100/minute' is not a pipeline",
    ),
    "a list of policies": (
        lambda edge: edge.transport([Retry()]),  # type: ignore[arg-type]
        "is not a pipeline",
    ),
    "a client wrapped": (lambda edge: edge.around(edge.native(None)), "use a"),
    "a class wrapped": (lambda edge: edge.around(type(edge.plain())), "use a"),
    "a limit wrapped": (lambda edge: edge.around("100/minute"), "use a"),
    "ratekit wrapped in ratekit": (
        lambda edge: edge.around(edge.transport()),
        "put all policies in one",
    ),
    "another library's transport wrapped": (lambda edge: edge.around(other(edge).plain()), "use"),
}


@pytest.mark.parametrize(("make", "right"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_at_construction_says_what_would_be_right(
    edge: Edge, make: Callable[[Edge], Any], right: str
) -> None:
    """`ConfigurationError` at once, not at the first request."""
    with pytest.raises(ConfigurationError) as caught:
        make(edge)
    assert right in str(caught.value)


def test_arguments_for_a_wrapped_transport_belong_to_it(edge: Edge) -> None:
    """They would be lost otherwise."""
    word = "adapter" if edge.name == "requests" else "transport"
    arguments = {word: edge.plain(), "pool_maxsize": 3, "limits": None}
    with pytest.raises(ConfigurationError, match="limits, pool_maxsize: give these to the wrapped"):
        edge.transport(None, **arguments)


def test_an_unknown_argument_is_the_librarys_own_error(edge: Edge) -> None:
    """What is no argument of theirs is none of ours."""
    with pytest.raises(TypeError, match="retry_after"):
        edge.transport(None, retry_after=3)


def test_the_repr_shows_the_pipeline(edge: Edge) -> None:
    """A log of a session says what its requests go through."""
    transport = edge.transport(Pipeline(Retry(attempts=3), RateLimiter("5/minute", name="api")))
    assert repr(transport) == (
        f"{type(transport).__name__}("
        "Pipeline(Retry(attempts=3), RateLimiter('5/minute', name='api')))"
    )
