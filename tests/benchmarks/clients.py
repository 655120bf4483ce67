"""Jobs of many GETs, and the clients that do them: ratekit's, and others' that are told the same.

A `Client` makes, for a `with` block, the function that gets a URL: one session or client, which all
threads of a job share.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry as Urllib3Retry

from ratekit import Pipeline
from ratekit.requests import RateKitAdapter
from tests.benchmarks.measure import peer

__all__ = [
    "Client", "Done", "Send", "do", "httpx_client", "requests_client", "requests_ratelimiter",
]  # fmt: skip

Send = Callable[[str], int]
"""Gets a URL and returns the status of the last answer; raises where there was none."""
Client = Callable[[], AbstractContextManager[Send]]


class Done(NamedTuple):
    """What became of a job: the seconds from its threads' start to the last answer, and failures.

    `failures` names the status or the error of each GET that did not end well.
    """

    wall: float
    failures: list[str]


def do(send: Send, url: str, jobs: int, threads: int) -> Done:
    """Get `url`/0, /1, /2 and so on, from many threads."""
    todo = iter(range(jobs))
    failures: list[str] = []
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                job = next(todo, None)
            if job is None:
                return
            try:
                status = send(f"{url}/{job}")
            except Exception as error:  # noqa: BLE001 (whatever it is, the job failed)
                failures.append(repr(error))
            else:
                if status != requests.codes.ok:
                    failures.append(str(status))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Done(time.perf_counter() - began, failures)


@contextmanager
def requests_client(pipeline: Pipeline) -> Iterator[Send]:
    """Give one requests Session with ratekit in it."""
    with requests.Session() as session:
        session.mount("http://", RateKitAdapter(pipeline))
        yield lambda url: session.get(url).status_code


@contextmanager
def httpx_client(library: Any, edge: Any, pipeline: Pipeline) -> Iterator[Send]:
    """Give one Client of httpx or httpx2 with ratekit in it."""
    with library.Client(transport=edge.RateKitTransport(pipeline)) as client:
        yield lambda url: int(client.get(url).status_code)


@contextmanager
def requests_ratelimiter(rate: int) -> Iterator[Send]:
    """Give one LimiterSession, with urllib3's Retry in the adapter below it."""
    with peer("requests_ratelimiter").LimiterSession(per_second=rate) as session:
        retries = Urllib3Retry(total=5, backoff_factor=0.5, status_forcelist=[429, 503])
        session.mount("http://", HTTPAdapter(pool_maxsize=64, max_retries=retries))
        yield lambda url: int(session.get(url, timeout=30).status_code)
