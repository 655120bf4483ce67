"""Bulk work: how fast, in how much memory, how it goes on after a kill, and who has to wait for it.

- *speed and memory*: 100 000 GETs from a generator through `Jobs(session, workers=16)` at
  "5000/second", beside the same session without Jobs and one without ratekit, in turns of 5000. The
  one without is given the timeouts that ratekit sets where the user gave none: to wait with one
  costs requests 40 us. Promised: 97 % of the limit or, where the client itself is slower, of the
  client's own speed; resident memory flat within 20 MiB
- *killed*: `ratekit fetch` of 2000 URLs is killed (SIGKILL) three times on its way and resumed.
  Promised: each URL is in the output exactly once
- *interactive*: while background jobs take all of "100/second", 40 calls of the same process wait
  for their turn. Promised: one permit's time and 20 ms at most
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import requests

from ratekit import Pipeline, RateLimiter, Retry
from ratekit.jobs import Jobs
from ratekit.requests import RateKitAdapter
from ratekit.testing import ApiServer
from tests.benchmarks.clients import Send, do
from tests.benchmarks.measure import Finding, Settings, load, middle, print_table

__all__ = ["run"]

_WORKERS, _RATE = 16, 5000
_MIB = 1 << 20
_PAGES = Path("/proc/self/statm")


def _resident() -> int:
    return int(_PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _session(limit: str | None) -> requests.Session:
    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=64)
    if limit is not None:
        adapter = RateKitAdapter(Pipeline(Retry(), RateLimiter(limit)))
    session.mount("http://", adapter)
    return session


def _getter(session: requests.Session) -> Send:
    return lambda url: session.get(url, timeout=(5, 30)).status_code


def _speed(settings: Settings) -> list[Finding]:
    jobs = settings.jobs or settings.pick(100_000, 6000)
    turn = min(5000, jobs // 3)
    limit = f"{_RATE}/second"
    walls: dict[str, list[float]] = {"client": [], "with ratekit": [], "Jobs": []}
    memory = []
    with (
        ApiServer(_RATE, process=True) as server,
        _session(None) as bare,
        _session(limit) as limited,
        Jobs(limited, _WORKERS) as pool,
    ):
        url = f"{server.url}/items"
        failed = 0
        for _ in range(jobs // turn):
            for name, session in (("client", bare), ("with ratekit", limited)):
                done = do(_getter(session), url, turn, _WORKERS)
                walls[name].append(done.wall)
            began = time.perf_counter()
            for result in pool.map(f"{url}/{number}" for number in range(turn)):
                failed += not result.ok
            walls["Jobs"].append(time.perf_counter() - began)
            memory.append(_resident())
        seen = server.stats()
    rates = {name: turn / middle(some) for name, some in walls.items()}
    print(f"{jobs} jobs in turns of {turn}, {_WORKERS} threads; load average {load()}")
    rows = [
        [name, f"{rate:.0f}", f"{rate / rates['client']:.3f}", f"{rate / _RATE:.3f}"]
        for name, rate in rates.items()
    ]
    print_table(["", "a second", "of the client", "of the limit"], rows)
    # The first turn fills pools and caches.
    grown = (max(memory[1:]) - memory[0]) / _MIB if len(memory) > 1 else 0.0
    own, bare_own = min(_RATE, rates["with ratekit"]), min(_RATE, rates["client"])
    return [
        Finding(
            "Jobs: of the limit, or the bare client's own speed",
            100 * rates["Jobs"] / bare_own,
            97,
            "%",
            at_least=True,
            judged=not settings.quick,
        ),
        Finding(
            "Jobs: of the limit, or the client's own speed under the same pipeline",
            100 * rates["Jobs"] / own,
            97,
            "%",
            at_least=True,
            judged=not settings.quick,
        ),
        Finding("resident memory grew by", grown, 20, "MiB"),
        Finding("failed jobs", failed, 0),
        Finding("refused", seen.refused, 0),
    ]


def _killed(settings: Settings) -> list[Finding]:
    count, kills = settings.pick(2000, 400), 3
    with tempfile.TemporaryDirectory() as folder, ApiServer(process=True) as server:
        urls = [f"{server.url}/items/{number}" for number in range(count)]
        (Path(folder) / "urls.txt").write_text("\n".join(urls))
        out = Path(folder) / "out.jsonl"
        command = [sys.executable, "-m", "ratekit", "fetch", "urls.txt", "-o", "out.jsonl", "-q"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        for part in range(1, kills + 1):
            with subprocess.Popen([*command, "--resume"], cwd=folder, env=environment) as process:
                until = time.monotonic() + 60
                while time.monotonic() < until and (
                    not out.exists() or out.read_bytes().count(b"\n") < count * part // (kills + 1)
                ):
                    time.sleep(0.002)
                os.kill(process.pid, signal.SIGKILL)
        code = subprocess.run([*command, "--resume"], cwd=folder, env=environment, check=False)
        lines = Counter(json.loads(line)["url"] for line in out.read_bytes().splitlines())
        asked = server.stats().requests
    print(f"{count} URLs, killed {kills} times: {asked} requests")
    return [
        Finding(
            "killed: URLs not there exactly once",
            len(Counter(urls) - lines) + len(lines - Counter(urls)),
            0,
        ),
        Finding("killed: exit status at last", code.returncode, 0),
    ]


def _interactive(settings: Settings) -> list[Finding]:
    calls, permit = settings.pick(40, 10), 1000 / (100 * 0.99)
    waits, random = [], Random(1)
    with (
        ApiServer(process=True) as server,
        _session("100/second burst 1") as session,
        Jobs(session, _WORKERS) as pool,
    ):
        url = f"{server.url}/items"
        results = pool.map(f"{url}/{number}" for number in range(100_000))
        for _ in range(20):
            next(results)
        futures = [pool.submit(f"{url}/background") for _ in range(calls * 30)]
        for _ in range(calls):
            time.sleep(random.uniform(0.05, 0.15))
            before = time.perf_counter()
            response = session.get(f"{url}/urgent")
            took = time.perf_counter() - before
            waits.append(1000 * min(took, response.ratekit.waited))  # type: ignore[attr-defined]
        for future in futures:
            future.cancel()
        pool.cancel()
    print(f"{calls} interactive calls beside background work, ms of wait; a permit is {permit:.1f}")
    print_table(["median", "longest"], [[f"{middle(waits):.1f}", f"{max(waits):.1f}"]])
    return [Finding("interactive: longest wait", max(waits), permit + 20, "ms")]


def run(settings: Settings) -> list[Finding]:
    """Measure all of it."""
    return [*_speed(settings), *_killed(settings), *_interactive(settings)]
