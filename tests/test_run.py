"""`ratekit run`: a program as it is, obeying a limit that it does not know of."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ratekit.testing import ApiServer

JOB = """
    import os, sys
    from concurrent.futures import ThreadPoolExecutor
    import httpx, httpx2, requests

    url = os.environ["SITE"] + "/items"
    session, one, two = requests.Session(), httpx.Client(), httpx2.Client()
    asks = [session.get, one.get, two.get] * 20
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda ask: ask(url).status_code, asks))
    print(sys.argv[1:], __name__, answers.count(200))
"""


def write(folder: Path, text: str = JOB, name: str = "job.py") -> Path:
    """Write a program."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def run(
    *words: str, cwd: Path, site: str = "", **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run `ratekit run` with these words."""
    return subprocess.run(
        [sys.executable, "-m", "ratekit", "run", *words],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=cwd,
        env={**os.environ, "SITE": site, **variables},
        check=False,
    )


def test_a_program_obeys_a_limit_that_it_does_not_know(tmp_path: Path) -> None:
    """Three libraries share it; no call is lost, and none is refused."""
    write(tmp_path)
    with ApiServer(40, process=True) as server:
        done = run(
            "--stats", "job.py", "-x", "--flag",
            cwd=tmp_path, site=server.url, RATEKIT_LIMIT="40/second", RATEKIT_LOG="warning",
        )  # fmt: skip
        seen = server.stats()
    assert done.stdout == "['-x', '--flag'] __main__ 60\n", done.stderr
    assert (done.returncode, seen.requests, seen.refused) == (0, 60, 0)
    head, *table = done.stderr.splitlines()
    assert "RateLimiter('40/second'" in head
    assert table[0].split() == [
        "calls", "attempts", "errors", "refused", "cached", "waited", "left",
    ]  # fmt: skip
    assert table[1].split()[:6] == [server.url, "60", "60", "0", "0", "0"]


def test_a_module_is_run_as_the_interpreter_does(tmp_path: Path) -> None:
    """With what follows it for its own arguments."""
    write(tmp_path, "import sys; print(__name__, sys.argv[1:])", "thing.py")
    done = run("-q", "-m", "thing", "a", "-b", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("__main__ ['a', '-b']\n", "")


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import no_such_thing", 1, "No module named 'no_such_thing'"),
        ("import pymemcache.no_such_thing", 1, "No module named"),
    ],
)
def test_it_ends_as_the_program_does(tmp_path: Path, program: str, code: int, said: str) -> None:
    """Its exit status, and its traceback."""
    write(tmp_path, program)
    done = run("-q", "job.py", cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert "is not installed; install it with" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a program"),
        (("nowhere.py",), "there is no program 'nowhere.py'"),
    ],
)
def test_a_wrong_command_says_what_is_right(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """As every command does."""
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (2, True)


def test_a_wrong_variable_stops_it_before_it_begins(tmp_path: Path) -> None:
    """Nothing is sent under a limit that nobody meant."""
    write(tmp_path, "print('begun')")
    done = run("job.py", cwd=tmp_path, RATEKIT_LIMIT="many")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "RATEKIT_LIMIT" in done.stderr


def test_ctrl_c_reaches_the_program(tmp_path: Path) -> None:
    """It may end in its own way."""
    program = """
        import time
        try:
            print("ready", flush=True)
            time.sleep(30)
        except KeyboardInterrupt:
            print("cleaned up")
            raise
    """
    write(tmp_path, program)
    command = [sys.executable, "-m", "ratekit", "run", "-q", "job.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
    assert (said, process.returncode) == ("cleaned up\n", 130)
