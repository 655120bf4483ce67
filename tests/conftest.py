"""What every test stands on: no network but loopback, no settings from outside, real servers."""

import contextlib
import faulthandler
import functools
import ipaddress
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from ratekit.testing import ApiServer, FakeClock
from tests.contracts.edges import EDGES, Edge

# The same examples in every run. `--hypothesis-profile=explore` looks for new ones.
settings.register_profile("explore", deadline=None)
settings.register_profile("repeat", deadline=None, derandomize=True)
settings.load_profile("repeat")


def pytest_configure() -> None:
    """Hide the settings of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("RATEKIT_") or name.lower().endswith("_proxy"):
            del os.environ[name]


def pytest_unconfigure() -> None:
    """End the run though threads or children were left: an interpreter waits for them for ever."""
    this = threading.current_thread()
    left = [thread.daemon for thread in threading.enumerate() if thread is not this]
    left += [child.daemon for child in multiprocessing.active_children()]
    if not all(left):
        faulthandler.dump_traceback_later(30, exit=True)


@pytest.fixture(scope="session", autouse=True)
def loopback_only() -> Iterator[None]:
    """Fail whatever reaches out of this machine, past every `except Exception`.

    Not by an audit hook: in CPython 3.11 one that is written in Python makes coverage fail, when
    two threads start at once.
    """

    def guard(owner: object, name: str, host_of: Callable[..., object]) -> None:
        real = getattr(owner, name)

        @functools.wraps(real)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            host = host_of(*args, **kwargs)
            if not _is_loopback(host):
                pytest.fail(f"{name}: {host!r} is not this machine, and tests talk to no other")
            return real(*args, **kwargs)

        patch.setattr(owner, name, guarded)

    def address(one: socket.socket, *args: Any) -> object:
        return args[-1][0] if one.family in {socket.AF_INET, socket.AF_INET6} else None

    def first(host: object, *args: object, **kwargs: object) -> object:
        return host

    with pytest.MonkeyPatch.context() as patch:
        for method in ("connect", "connect_ex", "sendto"):
            guard(socket.socket, method, address)
        for function in ("getaddrinfo", "gethostbyname"):
            guard(socket, function, first)
        yield


def _is_loopback(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    # No name and the unspecified address mean this machine.
    if name in {None, "", "localhost", "0.0.0.0", "::"}:  # noqa: S104 (nothing is bound to it)
        return True
    try:
        return ipaddress.ip_address(str(name)).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Memcached:
    """A running memcached: `address` is for `socket.connect`, `url` for RATEKIT_STORE."""

    process: "subprocess.Popen[bytes]"
    address: tuple[str, int] | str

    @property
    def url(self) -> str:
        """The value of RATEKIT_STORE that means this server."""
        if isinstance(self.address, str):
            return f"memcached+unix://{self.address}"
        return "memcached://{}:{}".format(*self.address)

    def ask(self, command: bytes) -> bytes:
        """Return the first answer to `command`, given without its end of line."""
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        with socket.socket(family) as connection:
            connection.settimeout(5)
            connection.connect(self.address)
            connection.sendall(command + b"\r\n")
            return connection.recv(65536)

    def pause(self) -> None:
        """Let it stand still, as of now, until `SIGCONT`."""
        self.process.send_signal(signal.SIGSTOP)
        # A signal is not there at once.
        os.waitpid(self.process.pid, os.WUNTRACED)

    def stop(self) -> None:
        """End this process and no other, also one that was paused; safe to repeat."""
        self.process.kill()
        self.process.wait()


StartMemcached = Callable[..., Memcached]


@pytest.fixture(scope="session")
def start_memcached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartMemcached]:
    """Start a memcached of one's own, to stop, pause or fill: `start_memcached("-m", "8")`.

    It listens on a free loopback port, on `port=` (to come back after it was stopped) or at the
    path `unix=`. It answers once this returns, and is ended with the session at the latest.
    """
    program = shutil.which("memcached")
    if program is None:
        pytest.fail("memcached is not installed: run python tests/install_servers.py")
    with contextlib.ExitStack() as running:

        def start(*options: str, port: int = -1, unix: Path | None = None) -> Memcached:
            # Port -1 is one that the system chooses; memcached then writes down which.
            ports = tmp_path_factory.mktemp("memcached") / "ports"
            where = ["-s", str(unix)] if unix else ["-l", "127.0.0.1", "-p", str(port)]
            # Started by root, memcached must be told whom to be.
            who = ["-u", "root"] if os.geteuid() == 0 else []
            command = [program, *where, *who, *options]
            process = subprocess.Popen(
                command,
                env={**os.environ, "MEMCACHED_PORT_FILENAME": str(ports)},
            )
            address: tuple[str, int] | str = str(unix) if unix else ("127.0.0.1", port)
            running.callback(Memcached(process, address).stop)
            give_up = time.monotonic() + 10
            while process.poll() is None and time.monotonic() < give_up:
                if isinstance(address, tuple) and ports.exists():
                    address = ("127.0.0.1", int(ports.read_text().split()[2]))
                server = Memcached(process, address)
                with contextlib.suppress(OSError, OverflowError):
                    if server.ask(b"version").startswith(b"VERSION "):
                        return server
                time.sleep(0.01)
            pytest.fail(f"{' '.join(command)} gave no answer")

        yield start


@pytest.fixture(scope="module")
def memcached(start_memcached: StartMemcached) -> Iterator[Memcached]:
    """Give a real memcached that the tests of a file share: use keys of your own.

    Not one for all files: its timer is late on a busy machine, and whoever comes minutes after the
    last one goes by a common clock that is as late.
    """
    server = start_memcached()
    yield server
    server.stop()


@pytest.fixture(params=EDGES, ids=repr)
def edge(request: pytest.FixtureRequest) -> Edge:
    """Give each edge in turn."""
    one: Edge = request.param
    return one


@pytest.fixture(scope="session")
def unlimited_server() -> Iterator[ApiServer]:
    """Give one server without a limit, which all tests share."""
    with ApiServer(rate=None) as server:
        yield server


@pytest.fixture
def server(unlimited_server: ApiServer) -> ApiServer:
    """Give the same, as new."""
    unlimited_server.reset()
    return unlimited_server


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock on which every wait is over at once."""
    return FakeClock()
