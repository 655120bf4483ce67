"""`ratekit doctor` and `ratekit status`: what a terminal can tell of shared state."""

import statistics
from typing import TYPE_CHECKING, Any

from ratekit.clock import SECOND, SYSTEM
from ratekit.errors import StoreError
from ratekit.limits.limiter import RateLimiter
from ratekit.stores.memcached import MemcachedStore
from ratekit.stores.memcached.server import Server
from ratekit.stores.memcached.wire import Get

if TYPE_CHECKING:
    import click

__all__ = ["doctor", "examine", "status", "tell"]

_SAMPLES = 20
_SLOW_MS = 5.0
_CLOCK_NS = SECOND // 50
# What a value of the cache may need, and memcached's own default.
_ITEM_BYTES = 1 << 20


def examine(server: Server) -> tuple[list[str], list[str]]:
    """Return what is so with a server, and what is to be mended, a line each."""
    where = str(server.address)
    took = []
    try:
        version = server.version()
        for _ in range(_SAMPLES):
            began = SYSTEM.now_ns()
            server.talk([Get(b"rk1:doctor")])
            took.append((SYSTEM.now_ns() - began) / 1e6)
        stats, settings = server.stats(), server.stats("settings")
    except StoreError as error:
        remedy = "start memcached there, or correct the store's URL"
        until = "until then every process goes on alone at its share of the limits"
        return [], [f"{where}: not reachable ({error}): {remedy}; {until}"]
    milliseconds = statistics.median(took)
    protocol = "meta" if server.speaks_meta else "classic"
    offset_ms = server.clock.correction_ns / 1e6
    evictions = _number(stats, "evictions")
    size, used = _number(stats, "limit_maxbytes"), _number(stats, "bytes")
    facts = [
        f"{where}: memcached {version}, {protocol} protocol",
        f"{where}: round trip {milliseconds:.2f} ms (median of {_SAMPLES})",
        f"{where}: this machine's clock is {offset_ms:+.0f} ms from the common one",
        f"{where}: {used / 2**20:.1f} of {size / 2**20:.0f} MiB in use, {evictions} evictions",
    ]
    wrong = []
    if not server.speaks_meta:
        wrong.append(f"{where}: no meta commands: update memcached to 1.6.18 or later; until then "
                     "every permit costs several round trips")  # fmt: skip
    if milliseconds > _SLOW_MS:
        wrong.append(f"{where}: slow: a permit costs a round trip; use a server that is nearer")
    if abs(server.clock.correction_ns) > _CLOCK_NS:
        wrong.append(f"{where}: the clocks differ: run a time service (ntp) on every machine; "
                     "ratekit goes by the common clock meanwhile")  # fmt: skip
    if evictions:
        wrong.append(f"{where}: it drops what is in use: give this state a memcached of its own, "
                     "or more memory (-m)")  # fmt: skip
    if settings.get("evictions") == "off":
        wrong.append(f"{where}: runs with -M and refuses new state when it is full: leave -M out")
    if _number(settings, "item_size_max") < _ITEM_BYTES:
        most = _number(settings, "item_size_max")
        wrong.append(f"{where}: takes values of {most} bytes at most: start it with -I 1m")
    return facts, wrong


def _number(stats: dict[str, str], name: str) -> int:
    value = stats.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else 0


def tell(limiter: RateLimiter, key: str) -> list[str]:
    """Return the live state of one key, a line each. Raises `StoreError`."""
    decision = limiter.peek(key)
    held = limiter.held_for(key)
    return [
        f"limit: {'; '.join(limit.text for limit in limiter.limits)}",
        f"permits left now: {decision.remaining}",
        f"next permit in: {decision.retry_after:.2f} s",
        f"full again in: {decision.reset_after:.2f} s",
        f"hold: {f'{held:.1f} s to go' if held else 'none'}",
    ]


def doctor() -> "click.Command":
    """Return the command `doctor`."""
    import click

    def run(store: str) -> None:
        shared = MemcachedStore(store)
        problems = 0
        for server in shared.servers:
            facts, wrong = examine(server)
            for line in facts:
                click.echo(f"ok     {line}")
            for line in wrong:
                click.echo(f"MEND   {line}")
            problems += len(wrong)
        if problems:
            raise click.exceptions.Exit(1)

    about = "Check the servers of shared state, and say what to mend."
    return _command("doctor", about, run)


def status() -> "click.Command":
    """Return the command `status`."""
    import click

    def run(store: str, name: str, key: str, limit: str, namespace: str) -> None:
        shared = MemcachedStore(store, namespace=namespace, on_error="closed", processes=1)
        server = shared.space(name).place(key)[1]
        try:
            server.version()
            lines = tell(RateLimiter(limit, name=name, store=shared), key)
        except StoreError as error:
            raise click.ClickException(f"{server.address}: {error}") from error
        click.echo("\n".join([f"{name} {key}".rstrip(), *(f"  {line}" for line in lines)]))

    options = [
        click.Option(["--name"], required=True, help="The limiter's name."),
        click.Option(["--limit"], required=True, help="Its limit, such as '100/minute'."),
        click.Option(["--key"], default="", help="Whose state; by default that of no key."),
        click.Option(["--namespace"], default="", help="The store's namespace."),
    ]
    return _command("status", "Show the live state of one shared limit.", run, *options)


def _command(name: str, about: str, run: Any, *more: "click.Option") -> "click.Command":
    import click

    from ratekit.errors import ConfigurationError

    def checked(**given: str) -> None:
        try:
            run(**given)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from error

    store = click.Option(
        ["--store"], envvar="RATEKIT_STORE", required=True,
        help="Where the state is: memcached://host:port (or RATEKIT_STORE).",
    )  # fmt: skip
    return click.Command(name, callback=checked, params=[store, *more], help=about)
