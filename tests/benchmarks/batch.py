"""How few bulk calls become of many: 1000 items asked for by 32 threads, 100 a batch.

Each bulk call is a POST through requests and `Pipeline(Retry(), RateLimiter(...))` to a loopback
server. In turns: every thread asks for its share with `load_many`; every thread submits its share
and then waits; and every thread calls `load` for one after the other, where 32 threads that wait
for an answer each can never be more than 32 items a call.

Promised: at most 15 bulk calls for the first two, and each caller its own answer in all.
"""

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from ratekit import Pipeline, RateLimiter, Retry
from ratekit.batch import Batcher
from ratekit.requests import RateKitAdapter
from ratekit.testing import ApiServer
from tests.benchmarks.measure import Finding, Settings, load, print_table

__all__ = ["run"]

_ITEMS, _THREADS = 1000, 32

Share = Callable[["Batcher[int, int]", Iterable[int]], list[int]]


def _many(batcher: "Batcher[int, int]", share: Iterable[int]) -> list[int]:
    return batcher.load_many(share)


def _submitted(batcher: "Batcher[int, int]", share: Iterable[int]) -> list[int]:
    return [future.result() for future in [batcher.submit(item) for item in share]]


def _one_by_one(batcher: "Batcher[int, int]", share: Iterable[int]) -> list[int]:
    return [batcher.load(item) for item in share]


def run(settings: Settings) -> list[Finding]:
    """Ask in each of the ways."""
    ways: dict[str, tuple[Share, int | None]] = {
        "load_many": (_many, 15),
        "submit": (_submitted, 15),
        "load": (_one_by_one, None),
    }
    rows, findings = [], []
    with ApiServer(process=True) as server, requests.Session() as session:
        session.mount("http://", RateKitAdapter(Pipeline(Retry(), RateLimiter("10000/second"))))

        def send(items: list[int]) -> list[int]:
            session.post(f"{server.url}/bulk", data=json.dumps(items)).raise_for_status()
            return [-item for item in items]

        for name, (ask, bound) in ways.items():
            calls, walls, wrong = [], [], 0
            for _ in range(settings.pick(5, 2)):
                batcher: Batcher[int, int] = Batcher(send)
                shares: list[Any] = [range(one, _ITEMS, _THREADS) for one in range(_THREADS)]
                began = time.perf_counter()
                with ThreadPoolExecutor(_THREADS) as pool:
                    answers = list(pool.map(ask, [batcher] * _THREADS, shares))
                walls.append(time.perf_counter() - began)
                wrong += answers != [[-item for item in share] for share in shares]
                calls.append(batcher.info()["calls"])
            rows.append([name, f"{min(calls)}-{max(calls)}", f"{min(walls):.3f}"])
            findings.append(Finding(f"{name}: wrong answers", wrong, 0))
            if bound is not None:
                findings.append(Finding(f"{name}: bulk calls", max(calls), bound))
    print(f"{_ITEMS} items, {_THREADS} threads; load average {load()}")
    print_table(["", "bulk calls", "wall s"], rows)
    return findings
