"""The loopback API server starts, stops, comes back, and leaves nothing behind."""

import contextlib
import gc
import math
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import requests

from ratekit.testing.server import Answer, ApiServer
from tests.testing.client import SOON, connect, drain, get, statuses, until


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "api.example.com", ""])  # noqa: S104
def test_it_binds_to_loopback_only(host: str) -> None:
    """An API that fails on purpose is not for others to reach."""
    with pytest.raises(ValueError, match=r"host must be a loopback address, such as 127\.0\.0\.1"):
        ApiServer(host=host)


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"rate": 0}, "above 0"),
        ({"rate": math.nan}, "above 0"),
        ({"burst": 0}, "at least 1"),
        ({"burst": 1.5}, "whole number"),
        ({"status": 20}, "200 to 599"),
        ({"noise_status": 1000}, "200 to 599"),
        ({"retry_after": "soon"}, "ceil"),
        ({"noise": 1.5}, "0 to 1"),
        ({"latency": -1}, "0 or more"),
        ({"jitter": math.inf}, "0 or more"),
        ({"port": 65536}, "65535"),
        ({"rule": "leaky"}, "'sliding log', 'fixed window', 'wall-clock window'"),
        ({"window": 0}, "above 0"),
        ({"window": math.inf}, "above 0"),
        ({"in_flight": 0, "rule": "concurrency", "rate": None}, "at least 1"),
        ({"in_flight": None, "rule": "concurrency", "rate": None}, "at least 1, with"),
        ({"in_flight": 8}, "left out with rule='token bucket'; it is for rule='concurrency'"),
        ({"rate": 8, "rule": "concurrency", "in_flight": 8}, "None with .*; not 8$"),
        ({"window": 2, "rule": "concurrency", "rate": None, "in_flight": 8}, "left out"),
        ({"burst": 8, "rule": "concurrency", "rate": None, "in_flight": 8}, "left out"),
        ({"burst": 20, "rule": "sliding log"}, "left out .* it is for rule='token bucket'"),
        ({"rate": 2.5, "rule": "fixed window"}, "a whole number of requests, at least 1, with"),
        ({"rate": 0.5, "rule": "two-window estimate"}, "at least 1, with .* or None for no limit"),
        ({"count_refusals": False}, "left out .* it is for rule='two-window estimate'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(
    arguments: dict[str, Any], right: str
) -> None:
    """Before anything is started."""
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be .*{right}"):
        ApiServer(**arguments)


def test_it_also_listens_on_ipv6() -> None:
    """Where this machine has it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with ApiServer(host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert requests.get(server.url, timeout=SOON).status_code == 200


def test_localhost_is_its_ipv4_address() -> None:
    """So that a client finds it at the first address it tries."""
    with ApiServer(host="localhost") as server:
        assert server.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("process", [False, True])
def test_after_stop_nothing_is_left_but_the_record(*, process: bool) -> None:
    """No thread, no process, no connection, no listener; and stopping again is nothing."""
    threads, children = threading.active_count(), multiprocessing.active_children()
    server = ApiServer(process=process)
    server.stop()
    server.start()
    with connect(server) as idle, connect(server) as hanging, connect(server) as late:
        server.script("/hang", Answer(fault="hang"))
        server.script("/late", Answer(delay=60))
        idle.sendall(get("/idle"))
        assert idle.recv(65536)
        hanging.sendall(get("/hang"))
        late.sendall(get("/late"))
        until(lambda: server.stats().in_flight == 2)
        server.stop()
        assert [drain(one) for one in (idle, hanging, late)] == [b"", b"", b""]
    server.stop()

    assert threading.active_count() == threads
    assert multiprocessing.active_children() == children
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    assert server.requests == 3
    assert len(server.arrivals()) == 3
    assert len(server.seen("/late")) == 1
    assert server.stats().in_flight == 0
    with pytest.raises(RuntimeError, match="does not run"):
        server.script("/", Answer())
    gc.collect()  # a forgotten socket would warn, and warnings are errors


@pytest.mark.parametrize("process", [False, True])
def test_it_comes_back_at_the_same_address_as_new(*, process: bool) -> None:
    """An outage is a stop and a start."""
    server = ApiServer(process=process)
    with server:
        url = server.url
        assert statuses(server, 1) == [200]
    with server:
        assert server.url == url
        assert server.requests == 0
        assert statuses(server, 1) == [200]
        with pytest.raises(RuntimeError, match="already runs"):
            server.start()


@pytest.mark.parametrize("process", [False, True])
def test_a_port_that_is_taken_is_an_error_where_it_is_started(*, process: bool) -> None:
    """And nothing is left running."""
    children = multiprocessing.active_children()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = ApiServer(port=taken.getsockname()[1], process=process)
        with pytest.raises(OSError, match="in use"):
            server.start()
    assert multiprocessing.active_children() == children
    server.stop()


def test_before_it_starts_it_has_no_address() -> None:
    """And says what to do."""
    server = ApiServer(rate=None)
    with pytest.raises(RuntimeError, match="start"):
        _ = server.url
    with pytest.raises(RuntimeError, match="start"):
        server.stats()
    assert repr(server) == "<ApiServer, no limit, not started>"


def test_its_repr_says_where_it_is_and_what_it_allows() -> None:
    """Running or not."""
    with ApiServer(2.5, 3) as server:
        assert repr(server) == f"<ApiServer {server.url}, token bucket 2.5/second burst 3, running>"
    assert repr(server) == f"<ApiServer {server.url}, token bucket 2.5/second burst 3, stopped>"


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        ({}, "token bucket 100/second burst 20"),
        ({"window": 60}, "token bucket 100/60 seconds burst 20"),
        ({"rule": "sliding log"}, "sliding log 100/second"),
        ({"rule": "fixed window", "window": 0.5}, "fixed window 100/0.5 seconds"),
        ({"rule": "wall-clock window", "rate": None}, "no limit"),
        ({"rule": "two-window estimate"}, "two-window estimate 100/second"),
        (
            {"rule": "two-window estimate", "count_refusals": False},
            "two-window estimate 100/second, refusals not counted",
        ),
        ({"rule": "concurrency", "rate": None, "in_flight": 8}, "concurrency 8"),
    ],
)
def test_its_repr_names_the_rule(arguments: dict[str, Any], limit: str) -> None:
    """With as much of it as was chosen."""
    assert repr(ApiServer(**arguments)) == f"<ApiServer, {limit}, not started>"


def test_a_process_that_ends_by_itself_is_reported() -> None:
    """Not taken for a server that does not answer."""
    others = multiprocessing.active_children()
    server = ApiServer(process=True)
    server.start()
    (child,) = (one for one in multiprocessing.active_children() if one not in others)
    child.kill()
    child.join(SOON)
    with pytest.raises(RuntimeError, match="ended by itself, exit code -9"):
        server.stats()
    with pytest.raises(RuntimeError, match="ended by itself"):
        server.stop()
    server.stop()


@pytest.mark.parametrize("forks", [False, True])
def test_the_server_process_ends_with_its_parent(*, forks: bool) -> None:
    """However suddenly the parent goes, and also when a child it forked holds the pipe open."""
    program = f"""
import multiprocessing, os, sys, threading
from ratekit.testing.server import ApiServer
server = ApiServer(process=True)
server.start()
if not {forks} or os.fork():
    print(multiprocessing.active_children()[0].pid, server.url, flush=True)
    threading.Event().wait()
sys.stdin.read()
os._exit(0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        assert requests.get(url, timeout=SOON).status_code == 200
        parent.kill()
        until(lambda: ended(int(pid)))


def ended(pid: int) -> bool:
    """Say whether a process that is no child of this one has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie has ended too, on a machine whose first process reaps none.
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


@pytest.mark.parametrize("process", [False, True])
def test_a_forked_child_leaves_the_server_to_its_parent(*, process: bool) -> None:
    """It cannot stop it or ask it, and the sockets it inherits keep nothing open."""
    server = ApiServer(None, process=process)
    with server, connect(server) as closed, connect(server) as stopped:
        for connection in (closed, stopped):
            connection.sendall(get())
            assert connection.recv(65536)  # so both are accepted, and the child has copies
        server.script("/", Answer(fault="close"))
        lives_r, lives_w = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about forking beside threads
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                server.stats()
            except RuntimeError:
                server.stop()
                code = 0
            os.close(lives_w)
            os.read(lives_r, 1)  # until the parent has seen what it wants to see
            os._exit(code)
        closed.sendall(get())
        assert closed.recv(65536) == b""
        assert statuses(server, 1) == [200]
        server.stop()
        assert stopped.recv(65536) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        os.close(lives_w)
        os.close(lives_r)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_script_without_the_guard_is_told_so(tmp_path: Path) -> None:
    """`multiprocessing` runs the script again in the child, which cannot start another."""
    script = tmp_path / "script.py"
    script.write_text(
        "from ratekit.testing.server import ApiServer\nApiServer(process=True).start()\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=SOON * 4, check=False
    )
    assert done.returncode == 1
    assert "under `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]
