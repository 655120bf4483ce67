"""An HTTP API on loopback that enforces a rate limit, and fails on purpose when told to.

It is the other side of what ratekit is for: real sockets, a real limit, real refusals, and a record
of what arrived and when, kept by the server and not by the code under test.

    with ApiServer(rate=100, burst=20) as server:
        requests.get(server.url + "/items")
        assert server.stats().refused == 0

Every path answers 200 with JSON about the request (`path`, `method`, `query`, `body_length` and its
ordinal `n`), except:

- `/redirect/N` answers 302 to `/redirect/N-1`, and `/redirect/0` answers 200
- `/stream/N` answers N chunks, `?interval=` seconds apart
- `/cookie` also sets a cookie, `visit`
- `/echo` answers with the request's own body and content type
- `GET /stats`, `GET /arrivals` and `POST /reset` are for clients without the `ApiServer` object,
  such as other processes; they are not limited, delayed or counted

Not for the open network: it binds to loopback only, and no client is ever timed out.
"""

import os
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from ratekit.testing._host import Host, ProcessHost, ThreadHost
from ratekit.testing._ledger import Ledger, Seen, Stats
from ratekit.testing._service import RetryAfter, Service, Settings
from ratekit.testing._wire import Answer, Fault

__all__ = ["Answer", "ApiServer", "Fault", "RetryAfter", "Seen", "Stats"]

T = TypeVar("T")


class ApiServer:
    """An API that admits `burst` requests at once and `rate` a second after that (token bucket).

    It runs between `start()` and `stop()`, or inside `with`. Started again it is as new, at the
    same address: an outage is `server.stop()` and later `server.start()`. What it recorded can be
    read until then.

    - `rate`: requests a second; None for no limit
    - `burst`: how many the bucket holds; it starts full, and a refusal takes nothing from it
    - `status`: of a refusal, such as 429, 503 or 403
    - `retry_after`: how a refusal says when to come back. `"ceil"`: in whole seconds, rounded up,
      never early. `"truncate"`: rounded down, up to a second early and 0 too, as some frameworks
      do. `"exact"`: with a fraction, as in 0.37. `"ms"`: in milliseconds, as `retry-after-ms`.
      `"date"`: as an HTTP date, rounded up, beside a `Date`. None: not at all
    - `noise`: the fraction of the admitted requests that fail with `noise_status` and spend their
      token all the same; `seed` and the order of admission decide which
    - `latency`: seconds before each answer, and up to `jitter` seconds more, also by `seed`; other
      connections go on meanwhile
    - `host`, `port`: a loopback address, and port 0 for any free one
    - `process`: run in a child process, so that the threads of this one do not disturb the
      server's clock. For measurements, and for programs that fork: a forked child holds copies of
      a thread's sockets, and no connection is reset while a copy is open. It needs the
      `if __name__ == "__main__":` that `multiprocessing` asks of a script

    Raises ValueError for what it cannot be, saying what would be right.
    """

    def __init__(
        self,
        rate: float | None = 100.0,
        burst: int = 20,
        *,
        status: int = 429,
        retry_after: RetryAfter | None = "ceil",
        noise: float = 0.0,
        noise_status: int = 503,
        latency: float = 0.0,
        jitter: float = 0.0,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        process: bool = False,
    ) -> None:
        self._settings = Settings(
            rate=rate,
            burst=burst,
            status=status,
            retry_after=retry_after,
            noise=noise,
            noise_status=noise_status,
            latency=latency,
            jitter=jitter,
            seed=seed,
            host="127.0.0.1" if host == "localhost" else host,
            port=port,
        )
        self._new_host: Callable[[Settings], Host] = ProcessHost if process else ThreadHost
        self._port: int | None = None
        # Held through the whole of a start or stop, so that two threads may both do either.
        self._lock = threading.Lock()
        self._host: Host | None = None
        self._owner = 0
        self._last: Ledger | None = None

    def __repr__(self) -> str:
        rate, burst = self._settings.rate, self._settings.burst
        limit = "no limit" if rate is None else f"{rate:g}/second burst {burst}"
        if self._port is None:
            return f"<ApiServer, {limit}, not started>"
        return f"<ApiServer {self.url}, {limit}, {'running' if self._host else 'stopped'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; once it returns, requests are answered.

        Raises OSError when the port is taken, RuntimeError when the server runs already.
        """
        with self._lock:
            if self._host is not None:
                raise RuntimeError(f"the server already runs at {self.url}; stop() it first")
            self._host = self._new_host(self._settings.at_port(self._port))
            self._port = self._host.port
            self._owner = os.getpid()
            self._last = None

    def stop(self) -> None:
        """Close every connection and end the thread or process; does nothing when not running."""
        with self._lock:
            host, self._host = self._host, None
            # In a forked child the server is the parent's, which goes on with it.
            if host is not None and self._owner == os.getpid():
                self._last = host.stop()

    @property
    def url(self) -> str:
        """Where it listens, as in `http://127.0.0.1:41234`; also after it stopped.

        Raises RuntimeError before it was ever started.
        """
        if self._port is None:
            raise RuntimeError("the server has no address yet; start() it or use `with server:`")
        host = self._settings.host
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    @property
    def requests(self) -> int:
        """How many requests arrived, refused ones included."""
        return self.stats().requests

    @property
    def admitted(self) -> int:
        """How many requests took a token (without a limit: all)."""
        return self.stats().admitted

    @property
    def refused(self) -> int:
        """How many requests the limit refused."""
        return self.stats().refused

    def stats(self) -> Stats:
        """Give all the counters as of one instant."""
        return self._read(Ledger.stats)

    def arrivals(self) -> list[tuple[float, bool]]:
        """List the last 200,000 requests as (arrival, admitted), in order.

        `arrival` is the instant the limit was decided at, in seconds of the server's monotonic
        clock. `admitted` says whether a token was taken, which a script outside the limit never
        does.
        """
        return self._read(Ledger.arrivals)

    def seen(self, path: str) -> list[Seen]:
        """List what arrived at `path` (without query), in order.

        The server remembers the last 1000 requests to all paths together, and fewer when their
        bodies come to more than 64 MiB.
        """
        return self._read(partial(Ledger.seen, path=path))

    def script(self, path: str, *answers: Answer, limited: bool = False) -> None:
        """Give the next requests to `path` these answers, in order; then it answers as usual.

        `path` is as on the wire, without query. A scripted request is counted, but does not touch
        the limit and so is never refused, unless `limited`: then an admitted request gets the
        answer, and a refused one leaves it for the next. Further calls for a path queue up behind.

        Raises ValueError for a path that cannot be scripted or no answers, TypeError for what is
        no Answer, RuntimeError while the server does not run.
        """
        if not answers:
            raise ValueError("script() needs at least one Answer after the path")
        for answer in answers:
            _check_answer(answer)
        self._ask(partial(Service.script, path=path, answers=answers, limited=limited))

    def reset(self) -> None:
        """Be as new: bucket full, counters and records empty, seeds restarted, scripts dropped.

        Connections stay open. Raises RuntimeError while the server does not run.
        """
        self._ask(Service.reset)

    def _read(self, question: Callable[[Ledger], T]) -> T:
        last = self._last
        return (
            self._ask(partial(Service.read, question=question)) if last is None else question(last)
        )

    def _ask(self, question: Callable[[Service], T]) -> T:
        host = self._host
        if host is None:
            raise RuntimeError("the server does not run; start() it or use `with server:`")
        if self._owner != os.getpid():
            raise RuntimeError(
                "the server belongs to the process that started it; "
                f"ask {self.url}/stats or {self.url}/arrivals from here"
            )
        return host.ask(question)


def _check_answer(answer: object) -> None:
    if not isinstance(answer, Answer):
        raise TypeError(f"script() takes Answer(...) after the path, not {answer!r}")
