"""`ratekit config` and `ratekit explain`: what is set, and what that means for a request."""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ratekit.call import Call
from ratekit.config import Config
from ratekit.config.hosts import best
from ratekit.config.parsing import masked
from ratekit.config.tables import aligned, in_force, markdown, short
from ratekit.config.texts import key_function
from ratekit.errors import ConfigurationError
from ratekit.http.origin import origin_of
from ratekit.limits.gcra import bucket_of
from ratekit.limits.limit import Limit
from ratekit.limits.limiter import RateLimiter

if TYPE_CHECKING:
    import click

__all__ = ["config", "explain", "explained"]

_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")


def explained(
    config: Config, method: str, url: str, headers: Mapping[str, str], file: str = ""
) -> str:
    """Return what would happen to a request, and where each rule came from, without a secret.

    `file`: the path of the file that was read. Raises `ConfigurationError` for what is no
    URL of HTTP.
    """
    origin = origin_of(url)
    if not origin.startswith(("http://", "https://")) or origin.endswith("//"):
        raise ConfigurationError(
            f"URL {masked(url)!r}: use a whole one, such as https://api.example.com/"
        )
    its = config.for_host(origin)
    pattern = best(config.hosts, origin)
    section = "none of its own" if pattern is None else f'those of host "{pattern}"'
    section += f"; the file is {file}" if file else ""
    call = Call(method, url, headers, key=origin)
    path = url.partition("#")[0].partition("?")
    shown = f"{origin}/{path[0].partition('://')[2].partition('/')[2]}{'?...' if path[1] else ''}"
    rows = [("settings", section, "")]
    for label, text, names in _rules(its, call, _name(config, origin)):
        said = [short(source, file) for name in names if (source := its.source(name))]
        rows.append((label, text, ", ".join(dict.fromkeys(said)) or "default"))
    lines = [(label, f"{text} ({source})" if source else text) for label, text, source in rows]
    return f"{method} {shown}\n\n{aligned(lines)}"


def _name(config: Config, origin: str) -> str | None:
    """Return the name under which a host's permits are kept."""
    policies = config.pipeline().at(origin).policies
    return next((one.name for one in policies if isinstance(one, RateLimiter)), config.name)


def _rules(
    config: Config, call: Call, name: str | None
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield what is looked at, what holds, and the settings that say so, along the road."""
    yield "store", _store(config, name), ("store", "namespace", "name", "on_store_error")
    yield "cache", _cache(config, call), ("cache", "cache_ttl", "cache_size", "stale_if_error")
    alike = "equal ones at the same time are one request" if config.dedup else "off"
    yield "dedup", alike if call.method in ("GET", "HEAD") else "not for this method", ("dedup",)
    yield "retry", _retry(config, call), ("retry_attempts", "retry_methods")
    if config.retry_attempts:
        statuses = config.shown("retry_statuses")
        yield "retry after", f"failed connections, and {statuses}", ("retry_statuses",)
        pauses = f"0 to {config.retry_base} s, doubling to {config.retry_cap} s"
        yield "retry pauses", pauses, ("retry_base", "retry_cap")
        budget = (
            "none" if config.retry_budget is None else f"{config.shown('retry_budget')} of calls"
        )
        yield "retry budget", budget, ("retry_budget",)
    refused = ", ".join(["429", *map(str, sorted(config.throttle_statuses))])
    pause = config.shown("max_retry_after")
    paused = f"{refused}, and 403 or 503 with Retry-After; pauses obeyed: up to {pause}"
    if config.read_bodies:
        paused = f"{paused}; what bodies say too"
    yield "refusals", paused, ("throttle_statuses", "read_bodies", "max_retry_after")
    breaker = "off"
    if config.breaker is not None:
        breaker = (
            f"opens at {config.breaker}; closed to calls for {config.shown('breaker_cooldown')}"
        )
    yield "breaker", breaker, ("breaker", "breaker_cooldown")
    if config.limit is None and not config.tiers and config.adapt == "off":
        yield "limit", "off", ("limit", "adapt")
    else:
        yield (
            "key",
            _key(config, call),
            ("key", "secret") if config.counts_credentials else ("key",),
        )
        yield "limit", _limits(config), ("limit", "headroom")
        yield "tier", _tier(config), ("limit", "tiers")
        yield "learning", _learning(config), ("adapt", "spend", "warn_below")
    wait = "as long as it takes" if config.max_wait is None else f"at most {config.max_wait} s"
    yield "wait", wait, ("max_wait",)
    slots = "off" if config.concurrency is None else f"{config.concurrency} in flight to {call.key}"
    yield "concurrency", slots, ("concurrency",)
    yield "timeouts", _timeouts(config), ("timeout",)
    yield "deadline", config.shown("deadline"), ("deadline",)
    refusal = "an error" if config.refusal == "raise" else "a 429 with Retry-After"
    yield "if refused here", refusal, ("refusal",)


def _store(config: Config, name: str | None) -> str:
    if not config.is_shared:
        return "the memory of this process"
    away = {
        "local": "keeps to its share of the limit",
        "closed": "refuses every call",
        "open": "lets every call through",
    }[config.on_store_error or "local"]
    space = f", namespace {config.namespace}" if config.namespace else ""
    return f"{config.shown('store')}{space}, name {name}; while it is away a process {away}"


def _cache(config: Config, call: Call) -> str:
    if not config.keeps_answers:
        return "off"
    if call.method not in ("GET", "HEAD"):
        return "not for this method; one that changes something drops what is kept of the URL"
    ttl = config.shown("cache_ttl")
    rule = "as the server says (RFC 9111)"
    if config.cache == "ttl":
        rule = f"{ttl}, whatever the server says"
    elif config.cache_ttl is not None:
        rule += f", {ttl} where it says nothing"
    if config.stale_if_error:
        rule += f"; {config.shown('stale_if_error')} longer while it fails"
    return f"{rule}; for the same credentials"


def _retry(config: Config, call: Call) -> str:
    if not config.retry_attempts:
        return "off"
    number = config.retry_attempts
    attempts = f"{number} attempt{'s' if number > 1 else ''} for failures"
    if any(name.lower() == "idempotency-key" for name in call.headers):
        return f"{attempts}, by its Idempotency-Key"
    if call.method not in config.retry_methods:
        return f"{attempts}, where it was surely not acted on (never sent, or refused)"
    return attempts if call.method in _SAFE else f"{attempts}, but none after a 500"


def _key(config: Config, call: Call) -> str:
    secret = config.secret if isinstance(config.secret, bytes) else None
    function = key_function(config.key, secret)
    key = call.key if function is None else str(function(call))
    own = config.counts_credentials and secret is None and key != call.key
    return f"{key} (hashed anew in each process)" if own else key


def _limits(config: Config) -> str:
    limit = (config.tiers or {}).get(config.limit or "", config.limit)
    if limit is None:
        return "none but what the server tells" if config.adapt != "off" else "none"
    return "; ".join(_words(one, config) for one in Limit.parse_all(limit))


def _tier(config: Config) -> str:
    tiers = config.tiers or {}
    own = config.limit if config.limit in tiers else "none"
    return f"{own}; options(tier=...) chooses of {', '.join(tiers)}" if tiers else str(own)


def _words(limit: Limit, config: Config) -> str:
    period = limit.label.partition("/")[2]
    for form in (" window", " fixed", f" burst {limit.burst}"):
        period = period.removesuffix(form)
    in_a = f"a {period}" if period.isalpha() else f"in {period}"
    if limit.form == "window":
        return f"{limit.text}: never more than {limit.count} {in_a}, wherever that begins"
    if limit.form == "fixed":
        return f"{limit.text}: {limit.count} {in_a}, counted from the full {period}"
    bucket = bucket_of(limit, config.headroom)
    pace = limit.period_ns / bucket.interval_ns
    back = " (in memcached less a fifth)" if config.is_shared and bucket.burst > 4 else ""
    return f"{limit.text}: pace {pace:.4g} {in_a}, burst {bucket.burst}{back}"


def _learning(config: Config) -> str:
    if config.adapt == "off":
        return "off"
    if config.adapt == "aimd":
        return "from refusals: slower after one, faster while there is none"
    spend = "at once" if config.spend == "greedy" else "evenly over its window"
    warn = config.shown("warn_below")
    return f"from refusals and quota headers; spent {spend}; a warning below {warn}"


def _timeouts(config: Config) -> str:
    timeout = config.timeout
    if timeout is False:
        given = "none"
    else:
        connect, read = timeout if isinstance(timeout, tuple) else (timeout or 5, timeout or 30)
        given = f"{connect} s to connect, {read} s to read"
    return f"requests: {given}, where the call gives none; httpx: the client's own"


# The commands.


def config() -> "click.Command":
    """Return the command `config`."""
    import click

    def run(*, table: bool) -> None:
        click.echo(markdown() if table else in_force(_from_env(), _file()))

    option = click.Option(
        ["--markdown", "table"], is_flag=True, help="Print the table of every variable instead."
    )
    about = "Show every setting in force, and where it came from."
    return click.Command("config", callback=run, params=[option], help=about)


def explain() -> "click.Command":
    """Return the command `explain`."""
    import click

    def run(url: str, method: str, header: tuple[str, ...]) -> None:
        headers = {}
        for one in header:
            name, colon, value = one.partition(":")
            if not colon or not name.strip():
                raise click.UsageError(f"-H {name!r}: use 'Name: value'")
            headers[name.strip()] = value.strip()
        try:
            click.echo(explained(_from_env(), method.upper(), url, headers, _file()))
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from error

    params: list[click.Parameter] = [
        click.Argument(["url"]),
        click.Option(["--method", "-X"], default="GET", help="The method; GET if left out."),
        click.Option(["--header", "-H"], multiple=True, help="A field: 'Name: value'."),
    ]
    about = "Say what would happen to a request, by the settings in force. Nothing is sent."
    return click.Command("explain", callback=run, params=params, help=about)


def _file() -> str:
    return os.environ.get("RATEKIT_CONFIG", "").strip()


def _from_env() -> Config:
    import click

    try:
        return Config.from_env()
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
