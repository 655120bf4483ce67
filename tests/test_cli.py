"""The command `ratekit`: what it prints where, how it ends, and what `ratekit demo` reports."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from rich.console import Console

import ratekit
from ratekit.demo.report import Plan, Result, closing_sentence, ideal_seconds
from ratekit.demo.screen import Lines, Progress, print_results, screen_for

INSTALL = "pip install 'ratekit[cli,requests,httpx]'"
COMMAND = [sys.executable, "-W", "error", "-m", "ratekit"]
# Nobody is refused and nothing fails: over as soon as it has begun.
QUICK = ["--jobs", "20", "--noise", "0"]


def environment() -> dict[str, str]:
    """Return the environment without what would change a terminal's look."""
    looks = {"COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "TERM", "TTY_COMPATIBLE"}
    kept = {name: value for name, value in os.environ.items() if name not in looks}
    # A proxy that nobody is: the demo must not send loopback's requests there.
    return {**kept, "HTTP_PROXY": "http://127.0.0.1:9", "TERM": "xterm", "COLUMNS": "80"}


def run(*arguments: str, command: list[str] = COMMAND) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, without a terminal."""
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, env=environment()
    )


def result(**figures: Any) -> Result:
    """Return a run of 100 jobs; ideal is 10 s."""
    usual: dict[str, Any] = {
        "client": "requests",
        "helper": None,
        "jobs": 100,
        "seconds": 10.0,
        "ideal": 10.0,
        "refused": 0,
        "requests": 100,
        "failed": 0,
    }
    return Result(**{**usual, **figures})


def test_the_command_says_its_version() -> None:
    """`python -m ratekit --version` prints name and version."""
    done = run("--version")
    assert (done.stdout, done.returncode) == (f"ratekit {ratekit.__version__}\n", 0)


def test_json_holds_every_figure_and_nothing_else_is_printed() -> None:
    """Each run tells its time, the ideal, refusals, requests and failed jobs; ratekit's lose none.

    With this seed two of the admitted requests fail, too few to use up one job's attempts.
    """
    options = "--jobs 60 --rate 200 --burst 40 --threads 8 --noise 0.05 --seed 4 --json"
    done = run("demo", *options.split())
    assert (done.stderr, done.returncode) == ("", 0)
    report = json.loads(done.stdout)
    runs = report.pop("runs")
    assert report.pop("summary").startswith("Requests alone ")
    assert report == {
        "ratekit": ratekit.__version__,
        "jobs": 60,
        "rate": 200,
        "burst": 40,
        "threads": 8,
        "noise": 0.05,
        "seed": 4,
    }
    fields = {"client", "failed", "helper", "ideal", "jobs", "name", "ratio", "refused"}
    assert [run.keys() for run in runs] == [fields | {"requests", "seconds"}] * 4
    plain, urllib3, *ours = runs
    assert [one["name"] for one in ours] == ["requests + ratekit", "httpx + ratekit"]
    assert [one["failed"] for one in ours] == [0, 0]
    assert plain["requests"] == 60
    # What it lost are the refusals, and what the server failed of the rest.
    noise = round(plain["ideal"] * 200) + 40 - 60
    assert plain["failed"] == plain["refused"] + noise
    assert urllib3["requests"] >= 60
    for one in ours:
        # 60 jobs, 2 repeats after a 503, and a repeat for each refusal.
        assert one["requests"] == 62 + one["refused"]
        assert one["ideal"] == (62 - 40) / 200
        assert one["ratio"] == one["seconds"] / one["ideal"] >= 1


def test_without_a_terminal_there_are_plain_lines() -> None:
    """In a pipe there is a line for each run, the table and the sentence, and no control code."""
    done = run("demo", *QUICK)
    assert (done.stderr, done.returncode) == ("", 0)
    assert "\x1b" not in done.stdout
    for name in ("requests", "requests + urllib3 Retry", "requests + ratekit", "httpx + ratekit"):
        assert f"\n{name}: 20 of 20 done, 0 failed, " in done.stdout
        assert f"\n{name:24}  " in done.stdout
    assert "with ratekit, requests and httpx did every job" in " ".join(done.stdout.split())


def test_in_a_terminal_there_are_bars() -> None:
    """On a terminal the bars move, the cursor comes back, and the table is there at the end."""
    ours, theirs = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [*COMMAND, "demo", *QUICK], stdout=theirs, stderr=theirs, env=environment()
    ) as process:
        os.close(theirs)
        with suppress(OSError):  # how a terminal says that the last writer has gone
            while part := os.read(ours, 65536):
                shown += part
    os.close(ours)
    text = shown.decode()
    assert process.returncode == 0
    assert "20/20" in text
    assert "━" in text
    assert "done" not in text
    assert text.rindex("\x1b[?25l") < text.rindex("\x1b[?25h") < text.index("wall time")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--jobs", "-1"], "'--jobs': -1 is not in the range"),
        (["--rate", "0"], "'--rate': 0 is not in the range"),
        (["--burst", "0"], "'--burst': 0 is not in the range"),
        (["--burst", "101"], "'--burst': 101 is more than the 100 requests of a second"),
        (["--threads", "0"], "'--threads': 0 is not in the range"),
        (["--noise", "-0.1"], "'--noise': -0.1 is not in the range"),
        (["--noise", "0.51"], "'--noise': 0.51 is not in the range"),
        (["--noise", "nan"], "'--noise': nan is not a number"),
        (["--seed", "-1"], "'--seed': -1 is not in the range"),
        (["--jobs", "many"], "'--jobs': 'many' is not a valid integer"),
        (["--color"], "No such option"),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], complaint: str) -> None:
    """What cannot be is refused at once, by name, with exit code 2, also before JSON."""
    done = run("demo", "--json", *arguments)
    assert (done.stdout, done.returncode) == ("", 2)
    assert complaint in done.stderr


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from ratekit.cli import main
main()
"""


def run_without(*missing: str, arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run the command where the libraries called `missing` are not installed."""
    code = WITHOUT.format(missing=set(missing))
    return run(*arguments, command=[sys.executable, "-W", "error", "-c", code])


@pytest.mark.parametrize(
    "missing", [["click"], ["rich"], ["requests"], ["httpx2", "httpx"]], ids=" ".join
)
def test_a_missing_library_is_named_with_its_remedy(missing: list[str]) -> None:
    """Where an extra is not installed, one line says how to install it, with exit code 2."""
    done = run_without(*missing, arguments=["demo", *QUICK, "--json"])
    remedy = f"ratekit: {missing[0]} is not installed; install it with: {INSTALL}\n"
    assert (done.stdout, done.stderr, done.returncode) == ("", remedy, 2)


def test_httpx2_takes_the_place_of_httpx() -> None:
    """Where only httpx2 is installed, the demo runs with that."""
    done = run_without("httpx", arguments=["demo", *QUICK, "--json"])
    assert [one["name"] for one in json.loads(done.stdout)["runs"]][-1] == "httpx2 + ratekit"


def test_a_missing_module_of_ours_is_no_missing_extra() -> None:
    """A fault within the package is not passed off as a missing library."""
    done = run_without("asyncio", arguments=["demo", *QUICK])
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'asyncio'" in done.stderr


@pytest.mark.parametrize("when", ["The job: ", "requests: "], ids=["starting", "running"])
def test_ctrl_c_ends_it_at_once_with_its_server(when: str) -> None:
    """An interrupt ends the program with exit code 130, without a traceback or an orphan.

    It goes to the whole process group, as a terminal sends it. The job would last for minutes. The
    pipe ends only when every process that could write to it has, so no server is left behind.
    """
    slow = ["--jobs", "200", "--rate", "1", "--burst", "1"]
    # Where the interrupt meets Python reading a module, it would warn of the file it leaves open.
    unclosed = ["-W", "ignore::ResourceWarning"]
    with subprocess.Popen(
        [sys.executable, "-W", "error", *unclosed, "-m", "ratekit", "demo", *slow],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**environment(), "COLUMNS": "500"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if when in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        try:
            rest, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert rest.endswith("Stopped.\n")
    assert "Traceback" not in rest
    assert process.returncode == 130


def test_a_long_run_without_a_terminal_shows_that_it_lives() -> None:
    """Where there is no terminal, a line comes every five seconds of a run."""
    file = io.StringIO()
    screen = screen_for(Console(file=file), 100)
    assert isinstance(screen, Lines)
    with screen:
        screen.begin("a")
        for seconds in (0.0, 4.9, 5.0, 5.1, 9.9, 10.0):
            screen.show(Progress(int(seconds), 0, 20, seconds))
        screen.begin("b")
        screen.show(Progress(1, 1, 2, 4.9))
        screen.end(Progress(2, 1, 3, 4.95))
    assert file.getvalue().splitlines() == [
        "a: 5 of 100 done, 0 failed, 4 requests/s, 5.0 s",
        "a: 10 of 100 done, 0 failed, 2 requests/s, 10.0 s",
        "b: 2 of 100 done, 1 failed, 1 requests/s, 5.0 s",
    ]


def test_the_ideal_counts_repeats_and_the_burst() -> None:
    """The server admits the burst at once and then `rate` a second; repeats of a 503 count too."""
    plan = Plan(jobs=100, rate=10, burst=5, threads=1, noise=0.1, seed=0)
    assert ideal_seconds(plan, noise=15) == 11.0
    assert ideal_seconds(Plan(jobs=5, rate=10, burst=10, threads=1, noise=0, seed=0), 0) == 0.0


def test_the_sentence_says_what_the_figures_say() -> None:
    """The closing sentence is made of the figures: jobs lost, time against the ideal, refusals."""
    results = [
        result(seconds=0.5, refused=80, failed=81),
        result(helper="urllib3 Retry", seconds=43.21, refused=1),
        result(helper="ratekit", seconds=10.1),
        result(client="httpx", helper="ratekit", seconds=10.2),
    ]
    assert closing_sentence(results) == (
        "Requests alone lost 81 of 100 jobs in 0.5 s, with 80 refusals; requests + urllib3 Retry "
        "did every job in 4.32 times the ideal time, with 1 refusal; with ratekit, requests and "
        "httpx did every job in at most 1.02 times the ideal time, with no refusals."
    )


def test_the_sentence_does_not_flatter_ratekit() -> None:
    """Where ratekit's runs lose jobs or are refused, the sentence says that too."""
    results = [
        result(),
        result(helper="ratekit", seconds=8.0, failed=20, refused=3),
        result(client="httpx", helper="ratekit", seconds=30.0, failed=2, refused=4),
    ]
    assert closing_sentence(results) == (
        "Requests alone did every job in 1.00 times the ideal time, with no refusals; with "
        "ratekit, requests and httpx lost 22 of 200 jobs in at most 30.0 s, with 7 refusals."
    )


def test_a_job_within_the_burst_has_no_ideal() -> None:
    """Where the burst covers the whole job, seconds are given and no ratio."""
    quick = result(ideal=0.0, seconds=0.1)
    assert quick.figures()["ratio"] is None
    assert closing_sentence([quick]) == "Requests alone did every job in 0.1 s, with no refusals."


def test_the_table_fits_80_columns() -> None:
    """Each client has one line, and one that was over too soon has no ratio to boast of."""
    file = io.StringIO()
    plan = Plan(jobs=100, rate=10, burst=5, threads=1, noise=0.1, seed=0)
    results = [
        result(seconds=0.5, refused=80, failed=81),
        result(helper="urllib3 Retry", seconds=1043.21, refused=12345, requests=123456),
    ]
    print_results(Console(file=file, width=80), plan, results)
    assert [line.split() for line in file.getvalue().splitlines()[3:5]] == [
        ["requests", "0.5", "s", "-", "80", "100", "81"],
        ["requests", "+", "urllib3", "Retry", "1043.2", "s", "104.32x", "12345", "123456", "0"],
    ]
