"""A memcached of one's own, to stop, pause, empty and start again.

Only the process that was started here is ever signalled.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

__all__ = ["Memcached", "ask"]

_PATIENCE = 10.0


def ask(connection: socket.socket, command: bytes, end: bytes) -> bytes:
    """Send a command and return all that comes, up to and with `end`."""
    connection.sendall(command + b"\r\n")
    answer = b""
    while not answer.endswith(end):
        more = connection.recv(65536)
        if not more:
            raise ConnectionError("memcached ended the conversation")
        answer += more
    return answer


class Memcached:
    """Runs between `__enter__` and `__exit__`, on a free port of loopback that it keeps."""

    def __init__(self) -> None:
        program = shutil.which("memcached")
        if program is None:
            raise SystemExit("memcached is not installed: run python tests/install_servers.py")
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1  # the system chooses one, and memcached writes down which

    @property
    def address(self) -> tuple[str, int]:
        """For `socket.connect`."""
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        """What a store is told."""
        return "memcached://{}:{}".format(*self.address)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, empty; return when it answers."""
        with tempfile.TemporaryDirectory() as folder:
            ports = Path(folder) / "ports"
            # Started by root, memcached must be told whom to be.
            who = ["-u", "root"] if os.geteuid() == 0 else []
            self._process = subprocess.Popen(
                [self._program, "-l", "127.0.0.1", "-p", str(self.port), *who],
                env={**os.environ, "MEMCACHED_PORT_FILENAME": str(ports)},
            )
            give_up = time.monotonic() + _PATIENCE
            while self._process.poll() is None and time.monotonic() < give_up:
                if self.port < 0 and ports.exists():
                    self.port = int(ports.read_text().split()[2])
                if self.port > 0:
                    with contextlib.suppress(OSError):
                        self.ask(b"version", b"\r\n")
                        return
                time.sleep(0.001)
        raise SystemExit("memcached gave no answer")

    def ask(self, command: bytes, end: bytes) -> bytes:
        """Return the answer to a command, on a connection of its own."""
        with socket.create_connection(self.address, _PATIENCE) as connection:
            return ask(connection, command, end)

    def kill(self) -> None:
        """End it at once, also while it is paused; safe to repeat."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Let it answer nobody; its connections stay."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on: it does what was asked meanwhile."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def restart(self, after: float = 0.0) -> None:
        """End it, and start it again at the same port after so many seconds."""
        self.kill()
        time.sleep(after)
        self.start()

    def keys(self) -> list[str]:
        """Return every key."""
        dump = self.ask(b"lru_crawler metadump all", b"END\r\n").decode()
        lines = [line for line in dump.splitlines() if line.startswith("key=")]
        return [unquote(line.split()[0].removeprefix("key=")) for line in lines]

    def delete_all(self) -> int:
        """Delete the keys one by one, as eviction would; return how many there were."""
        keys = self.keys()
        with socket.create_connection(self.address, _PATIENCE) as connection:
            for key in keys:
                ask(connection, b"md " + key.encode(), b"\r\n")
        return len(keys)
