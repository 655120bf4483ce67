"""What is true of every edge: the road of one request between a native library and the policies.

An edge describes the native request as a `Call`, sends it with every argument the user passed,
and turns ratekit's refusals into that library's own exceptions. It holds conversion only.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ratekit._options import Options
from ratekit.call import Call, Outcome, SendFailed
from ratekit.errors import ConfigurationError, DeadlineExceeded, RateKitError, Rejected
from ratekit.http.reply import Reply
from ratekit.policy import Pipeline, Policy

__all__ = [
    "IDEMPOTENCY_KEY",
    "native_error",
    "pipeline_of",
    "refusal_headers",
    "travel",
]

IDEMPOTENCY_KEY = "Idempotency-Key"

Refusals = Mapping[type[RateKitError], type[Rejected] | type[DeadlineExceeded]]
"""ratekit's refusals, and the HTTP library's own exceptions that stand for them."""


def pipeline_of(given: Policy | None) -> Pipeline:
    """Return the pipeline of an edge: the one given, one of a lone policy, or the environment's."""
    if given is None:
        # Slow to import, and not needed by whoever has a pipeline.
        from ratekit.config import Config
        from ratekit.config.build import shared

        return shared(Config.from_env())
    if isinstance(given, Pipeline):
        return given
    if isinstance(given, Policy):
        return Pipeline(given)
    raise ConfigurationError(
        f"{given!r} is not a pipeline; the first argument is a Pipeline or a policy "
        "(a wrapped adapter or transport is named: adapter=..., transport=...)"
    )


def travel(
    pipeline: Pipeline,
    call: Call,
    attempt: Callable[[Call], Outcome],
    refused: Refusals,
    add_header: Callable[[str, str], object],
) -> Any:
    """Send one call down the pipeline; return the native answer or raise the native error.

    `refused` maps ratekit's refusals to the library's own; `add_header` adds to the native request.
    """
    options = call.options
    if options.idempotency_key is not None and IDEMPOTENCY_KEY not in call.headers:
        key = options.idempotency_key
        if key:
            add_header(IDEMPOTENCY_KEY, _made_key() if key is True else key)
    try:
        return pipeline.run(call, attempt).value
    except SendFailed as failed:
        failed.error.ratekit = call.details()  # type: ignore[attr-defined]
        failed.raise_native()
    except (Rejected, DeadlineExceeded) as refusal:
        if options.refusal == "response" and call.respond is not None:
            headers = list(refusal_headers(refusal).items())
            call.from_cache = False
            return call.respond(Reply(429, headers, b"", reason="Too Many Requests"), []).value
        native = native_error(refusal, refused)
        native.ratekit = call.details()  # type: ignore[union-attr]
        raise native from refusal


def native_error(
    refusal: Rejected | DeadlineExceeded, kinds: Refusals
) -> Rejected | DeadlineExceeded:
    """Return the refusal as an exception that is also the HTTP library's."""
    # A subclass of the user's goes by what it is a kind of.
    kind = next(kinds[known] for known in type(refusal).__mro__ if known in kinds)
    return kind(str(refusal), key=refusal.key, retry_after=refusal.retry_after)


def refusal_headers(refusal: Rejected | DeadlineExceeded) -> dict[str, str]:
    """Return the headers of a 429 that stands in for a refusal."""
    headers = {"x-should-retry": "false", "content-type": "text/plain", "content-length": "0"}
    if refusal.retry_after is not None:
        # Whole seconds, rounded up: what RFC 9110 allows, and never early.
        headers["retry-after"] = str(-int(-refusal.retry_after // 1))
    return headers


def look_into(answer: Outcome, options: Options) -> None:
    """Read what the body of an answer says of limits, where that is wanted."""
    if options.read_bodies or answer.status == 403:
        answer.look_into(options)


def is_short(headers: Mapping[str, str], most: int) -> bool:
    """Return whether an answer says that its body is no longer than `most` bytes."""
    length = headers.get("content-length", "")
    # Not any digits, and not any number of them: int() takes neither.
    return length.isascii() and length.isdigit() and len(length) < 16 and int(length) <= most


def shorter(seconds: float | None, remaining: float) -> float:
    """Return a timeout that ends with the deadline."""
    return remaining if seconds is None else min(seconds, remaining)


def chosen_options(pipeline: Pipeline, given: object) -> Options:
    """Return the options of one call; `given` came with the request."""
    if given is None:
        return pipeline.options_here()
    if isinstance(given, Options):
        return pipeline.options_here(given)
    raise ConfigurationError(f"extension 'ratekit' is {given!r}: use ratekit.options(...)")


def _made_key() -> str:
    import uuid  # slow to import, and seldom needed

    return str(uuid.uuid4())
