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
from ratekit.testing._service import Service
from ratekit.testing._settings import QuotaHeaders, RetryAfter, RuleName, Settings
from ratekit.testing._wire import Answer, Fault

__all__ = ["Answer", "ApiServer", "Fault", "RetryAfter", "RuleName", "Seen", "Stats"]

T = TypeVar("T")


class ApiServer:
    """An API that admits `rate` requests per `window` seconds, counted by the `rule` you choose.

    It runs between `start()` and `stop()`, or inside `with`. Started again it is as new, at the
    same address: an outage is `server.stop()` and later `server.start()`. What it recorded can be
    read until then.

    - `rate`, `window`: so many requests in so many seconds, by every rule but the last:
      `ApiServer(100)` admits 100 a second, `ApiServer(100, window=60.0)` 100 a minute. `rate=None`
      is no limit. All but the token bucket count, and need a whole number
    - `burst`: how many requests a full token bucket holds, 20 unless you say otherwise
    - `rule`: how real servers limit (a refusal costs nothing, where it does not say so)

      - `"token bucket"`: `burst` at once, for the bucket starts full, and then at the rate. nginx's
        `limit_req` with `burst=20 nodelay` is this with `burst=21`
      - `"sliding log"`: `rate` in any window, wherever it begins (Django REST framework,
        flask-limiter's moving window)
      - `"fixed window"`: `rate` in a window that begins with the first request after the last
        window ended (express-rate-limit, flask-limiter's fixed window)
      - `"wall-clock window"`: `rate` in each whole second, minute or hour of the wall clock
        (django-ratelimit)
      - `"two-window estimate"`: this period's requests and, for what is left of it, that share of
        the last period's must be fewer than `rate`. A refusal counts too, and periods begin with
        the first request (HAProxy's `http_req_rate`); with `count_refusals=False` it does not,
        and they lie on the wall clock (slowapi's sliding window counter)
      - `"concurrency"`: `in_flight` requests that are not answered yet, and `rate=None` (nginx's
        `limit_conn`). Give it a `latency`, or nothing is in flight for long. A refusal never has a
        `Retry-After`: nobody knows when another request will be over

    - `in_flight`, `count_refusals`: for the last two rules
    - `status`: of a refusal, such as 429, 503 or 403
    - `retry_after`: how a refusal says when to come back. `"ceil"`: in whole seconds, rounded up,
      never early. `"truncate"`: rounded down, up to a second early and 0 too, as some frameworks
      do. `"exact"`: with a fraction, as in 0.37. `"ms"`: in milliseconds, as `retry-after-ms`.
      `"date"`: as an HTTP date, rounded up, beside a `Date`. None: not at all
    - `quota`: what every answer tells of the limit: `"ietf"`: `RateLimit` and `RateLimit-Policy`;
      `"github"`: `x-ratelimit-limit`, `-remaining`, `-used`, `-resource` and the reset as an epoch,
      rounded up, and refusals are a 403 without `Retry-After`; `"x-ratelimit"`: the first two, and
      the reset in seconds, rounded up. None: nothing
    - `noise`: the fraction of the admitted requests that fail with `noise_status` and have spent
      from the limit all the same; `seed` and the order of admission decide which
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
        burst: int | None = None,
        *,
        rule: RuleName = "token bucket",
        window: float = 1.0,
        in_flight: int | None = None,
        count_refusals: bool = True,
        status: int = 429,
        retry_after: RetryAfter | None = "ceil",
        quota: QuotaHeaders | None = None,
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
            rule=rule,
            window=window,
            in_flight=in_flight,
            count_refusals=count_refusals,
            status=status,
            retry_after=retry_after,
            quota=quota,
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
        limit = self._settings.limit
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
        """How many requests the limit admitted (without a limit: all)."""
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
        clock. `admitted` says whether the limit admitted it, which it never does with a script
        outside the limit.
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
        """Be as new: limit unspent, counters and records empty, seeds restarted, scripts dropped.

        Connections stay open. What is in flight goes on, and the limit no longer counts it. Raises
        RuntimeError while the server does not run.
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
