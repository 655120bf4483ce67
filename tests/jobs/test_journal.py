"""What is done is not done again, and what was answered is not lost."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from ratekit import ConfigurationError, Pipeline, Retry
from ratekit.jobs import Jobs, Journal, Saved
from ratekit.jobs.work import key_of, label_of
from ratekit.requests import RateKitAdapter
from ratekit.testing import Answer, ApiServer


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """Give a session that retries."""
    with requests.Session() as one:
        one.mount("http://", RateKitAdapter(Pipeline(Retry(2))))
        yield one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the place of a journal."""
    return tmp_path / "work.sqlite"


def urls(server: ApiServer, count: int) -> list[str]:
    """Return so many URLs."""
    return [f"{server.url}/items/{number}" for number in range(count)]


def test_a_second_run_does_what_is_left(
    server: ApiServer, session: requests.Session, path: Path
) -> None:
    """And yields the results of all; what failed is done again."""
    server.script("/items/3", *[Answer(500)] * 2)
    with Jobs(session, journal=path) as jobs:
        first = list(jobs.map(urls(server, 10)))
    assert sum(result.ok for result in first) == 9
    before = server.requests
    with Jobs(session, journal=path) as jobs:
        second = list(jobs.map(urls(server, 12), ordered=True))
    assert server.requests == before + 3
    assert [result.ok for result in second] == [True] * 12
    assert [result.saved for result in second] == [n not in {3, 10, 11} for n in range(12)]
    saved = second[0].value
    assert isinstance(saved, Saved)
    assert (saved.status_code, saved.json()) == (200, first[0].value.json()) or saved.json()
    assert saved.headers["content-type"].startswith("application/json")


def test_results_are_read_back(server: ApiServer, session: requests.Session, path: Path) -> None:
    """Those that failed too, with what they failed with."""
    server.script("/items/1", *[Answer(fault="reset")] * 2)
    with Jobs(session, journal=path, parse=lambda answer: answer.status_code) as jobs:
        list(jobs.map(urls(server, 3)))
    journal = Journal(path)
    assert len(journal) == 2
    found = {result.request: result for result in journal.results()}
    journal.close()
    assert sorted(found) == urls(server, 3)
    assert found[f"{server.url}/items/0"].value == 200
    broken = found[f"{server.url}/items/1"]
    assert (broken.ok, broken.attempts) == (False, 2)
    assert "ConnectionError" in str(broken.error)


def test_submitted_work_is_kept_too(
    server: ApiServer, session: requests.Session, path: Path
) -> None:
    """A future of what is done is done."""
    for saved in (False, True):
        with Jobs(session, journal=path) as jobs:
            assert jobs.submit(f"{server.url}/items").result().saved is saved
    assert server.requests == 1


def test_many_threads_keep_everything(path: Path) -> None:
    """One writes for all who come meanwhile."""
    with Jobs(lambda number: number * 2, workers=16, journal=path) as jobs:
        assert sum(result.value for result in jobs.map(range(3000))) == 2999 * 3000
    with closing(Journal(path)) as journal:
        assert len(journal) == 3000


def test_a_value_that_cannot_be_kept_is_an_error_of_its_own(path: Path) -> None:
    """The others are kept."""
    values: list[Any] = [1, object(), {"a": [1, None]}, b"bytes"]
    with Jobs(lambda number: values[number], workers=2, journal=path) as jobs:
        results = list(jobs.map(range(4), ordered=True))
    assert [result.ok for result in results] == [True, False, True, True]
    assert isinstance(results[1].error, ConfigurationError)
    assert "let `parse` return" in str(results[1].error)
    with Jobs(lambda number: None, journal=path) as jobs:
        again = list(jobs.map(range(4), ordered=True))
    assert [result.value for result in again] == [1, None, {"a": [1, None]}, b"bytes"]


def test_a_name_of_the_users_own(path: Path) -> None:
    """Where the request says more than what it is for."""
    done: list[object] = []
    with Jobs(done.append, journal=path) as jobs:
        for run in range(2):
            list(jobs.map([{"id": 1, "run": run}], key=lambda job: str(job["id"])))
    assert done == [{"id": 1, "run": 0}]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a/", "http://a/?b"),
        ("http://a/", ("POST", "http://a/")),
        ({"url": "http://a/", "json": 1}, {"url": "http://a/", "json": 2}),
        ({"url": "http://a/", "params": {"p": 1}}, {"url": "http://a/", "params": {"p": 2}}),
        (
            requests.Request("PUT", "http://a/", data="x"),
            requests.Request("PUT", "http://a/", data="y"),
        ),
        (1, "1"),
    ],
)
def test_what_is_another_request(one: object, other: object) -> None:
    """Method, URL, parameters and body tell them apart."""
    assert key_of(one) != key_of(other)


def test_what_is_the_same_request() -> None:
    """However it is written; credentials are not what a job is."""
    same = [
        "http://a/b",
        ("get", "http://a/b"),
        {"url": "http://a/b"},
        {"url": "http://a/b", "method": "GET", "headers": {"Authorization": "new"}},
    ]
    first, *others = [key_of(job) for job in same]
    assert key_of(same[0]) == first == others[0]
    assert others[1] == others[2]


def test_no_secret_is_in_the_file(server: ApiServer, session: requests.Session, path: Path) -> None:
    """Neither of the URL nor of a header."""
    secret = "hunter2-correct-horse"  # noqa: S105  (nobody's)
    url = server.url.replace("//", f"//user:{secret}@")
    job = {"url": f"{url}/items?api_key={secret}", "headers": {"X-Token": secret}}
    # (What the server answered is kept as it is, and this one repeats what it was asked.)
    with Jobs(session, journal=path, parse=lambda answer: answer.status_code) as jobs:
        (result,) = jobs.map([job])
    assert result.ok
    kept = b"".join(one.read_bytes() for one in path.parent.iterdir())
    assert b"/items" in kept
    assert secret.encode() not in kept
    assert label_of(job) == f"{server.url}/items"


def test_what_is_no_journal(tmp_path: Path) -> None:
    """It is not written to."""
    text = tmp_path / "notes.txt"
    text.write_text("these are notes " * 100)
    with pytest.raises(ConfigurationError, match="it is no journal"):
        Journal(text)
    assert text.read_text() == "these are notes " * 100
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as database:
        database.execute("create table users (name)")
    with pytest.raises(ConfigurationError, match="no journal of this version"):
        Journal(other)


def test_after_a_kill_nothing_that_was_answered_is_asked_again(
    server: ApiServer, session: requests.Session, path: Path
) -> None:
    """What was read by the program is done, whatever moment it was killed at."""
    program = """
        import sys, requests
        from ratekit.jobs import Jobs
        with Jobs(requests.Session(), journal=sys.argv[2]) as jobs:
            for result in jobs.map(f"{sys.argv[1]}/items/{n}" for n in range(100000)):
                print(result.request, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), server.url, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        read = [process.stdout.readline().strip() for _ in range(300)]
        os.kill(process.pid, signal.SIGKILL)
        read += [line.strip() for line in process.stdout if line.endswith("\n")]
    with Jobs(session, journal=path) as jobs:
        results = list(jobs.map(read))
    assert len(results) >= 300
    assert all(result.saved for result in results)


def test_readers_and_a_writer_at_the_same_time(path: Path) -> None:
    """The results may be read while there come more."""
    journal = Journal(path)
    seen: list[int] = []

    def read() -> None:
        seen.extend(sum(1 for _ in journal.results()) for _ in range(20))

    with Jobs(str, workers=4, journal=journal) as jobs:
        reader = threading.Thread(target=read)
        reader.start()
        list(jobs.map(range(2000)))
        reader.join()
    assert seen == sorted(seen)
    assert len(journal) == 2000
    journal.close()
