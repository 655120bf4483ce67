"""How far a bulk job is, and when it will be over."""

import io

import pytest
import requests
from rich.console import Console

from ratekit import Pipeline, RateLimiter
from ratekit.jobs import Jobs, Result
from ratekit.jobs.progress import Progress, progress_for
from ratekit.requests import RateKitAdapter
from ratekit.stores import MemoryStore
from ratekit.testing import ApiServer, FakeClock


class Terminal(io.StringIO):
    """A file that is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_a_line_now_and_then(clock: FakeClock) -> None:
    """Where there is no terminal: every 10 s, and at the end."""
    file = io.StringIO()
    progress = Progress(file=file, clock=clock)
    progress.begin(100)
    for number in range(100):
        clock.sleep(0.25)
        progress.add(Result("a", ok=number % 10 != 0))
    progress.end()
    lines = file.getvalue().splitlines()
    assert lines == [
        "40 of 100 done, 4 failed, 4.0/s, 15 s left",
        "80 of 100 done, 8 failed, 4.0/s, 5 s left",
        "100 of 100 done, 10 failed, 4.0/s",
    ]


def test_the_time_left_follows_from_the_limit(clock: FakeClock, server: ApiServer) -> None:
    """And from the pause that the server asked for."""
    limiter = RateLimiter("2/second", store=MemoryStore(clock=clock))
    pipeline = Pipeline(limiter, clock=clock)
    with requests.Session() as session:
        session.mount("http://", RateKitAdapter(pipeline))
        session.get(f"{server.url}/items")
        progress = progress_for(session)
        assert progress._pipeline is pipeline
        progress = Progress(pipeline=pipeline, file=io.StringIO(), clock=clock)
        progress.begin(199)
        progress.add(Result("a", ok=True))
        clock.sleep(0.5)
        said = progress.words(clock.now_ns())
        assert said == "0 failed, 2.0 of 1.98/s, 1 min 40 s left"
        limiter.hold(server.url, 3600)
        said = progress.words(clock.now_ns())
        assert said.endswith("the server asked for a pause of 1 h 00 min, 1 h 01 min left")


def test_what_was_done_before_is_no_rate(clock: FakeClock) -> None:
    """It was read back, and asked nobody."""
    progress = Progress(file=io.StringIO(), clock=clock)
    progress.begin(None)
    for _ in range(50):
        progress.add(Result("a", ok=True, saved=True))
    clock.sleep(1)
    assert progress.words(clock.now_ns()) == "0 failed, 50 from before, 0.0/s"


def test_a_bar_on_a_terminal(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn by rich, and gone from the log."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    file = Terminal()
    with requests.Session() as session, Jobs(session, progress=Progress(file=file)) as jobs:
        list(jobs.map([f"{server.url}/items"] * 20))
    plain = Console(file=io.StringIO())
    assert plain.file is not file
    assert "20/20" in file.getvalue()
    assert "0 failed" in file.getvalue()
