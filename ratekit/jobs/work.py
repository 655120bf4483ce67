"""What a job is, and what comes of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ratekit.errors import ConfigurationError

__all__ = ["Result", "key_of", "label_of", "sender_of"]

Send = Callable[[Any], Any]
"""Makes the call of one request, and returns its native answer."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one job.

    `ok`: whether there was an answer below 400 (of a plain function: whether it returned).
    `value`: the answer, or what `parse` made of it. `error`: the exception, where there was one.
    `attempts`: tries on the wire; `waited`: seconds spent in ratekit. `saved`: it was done by an
    earlier run, and is read back from the journal.
    """

    request: Any
    ok: bool
    value: Any = None
    error: BaseException | None = None
    attempts: int = 0
    waited: float = 0.0
    saved: bool = False


def sender_of(client: Any) -> Send:
    """Return what sends a request through a client, or calls a plain function.

    Raises `ConfigurationError` for what is neither.
    """
    request = getattr(client, "request", None)
    if callable(request):
        prepared = getattr(client, "send", None)

        def send(job: Any) -> Any:
            if isinstance(job, str):
                return request("GET", job)
            if isinstance(job, tuple):
                method, url = job
                return request(method, url)
            if isinstance(job, Mapping):
                arguments = {"method": "GET", **job}
                return request(**arguments)
            if callable(getattr(client, "prepare_request", None)) and hasattr(job, "hooks"):
                # A requests.Request is prepared with the session's cookies and credentials.
                job = client.prepare_request(job) if not hasattr(job, "path_url") else job
            return prepared(job)  # type: ignore[misc]

        return send
    if callable(client):
        return client  # type: ignore[no-any-return]
    raise ConfigurationError(
        f"client {client!r}: use a requests.Session, an httpx.Client, or a function of one request"
    )


def _parts_of(job: Any) -> tuple[str, str, Any]:
    """Return the method, the URL, and what else tells one request from another."""
    if isinstance(job, str):
        return "GET", job, None
    if isinstance(job, tuple) and len(job) == 2:
        return str(job[0]).upper(), str(job[1]), None
    if isinstance(job, Mapping) and "url" in job:
        rest = {name: job[name] for name in _TELLING if job.get(name) is not None}
        return str(job.get("method", "GET")).upper(), str(job["url"]), rest
    url = getattr(job, "url", None)
    if url is not None:
        rest = {name: getattr(job, name, None) for name in _TELLING}
        content = getattr(job, "body", None) or getattr(job, "_content", None)
        return str(getattr(job, "method", "GET")).upper(), str(url), {**rest, "body": content}
    return "", "", job


_TELLING = ("params", "data", "json", "content", "files")


def key_of(job: Any) -> str:
    """Return what makes a job the same one in another run: a hash, so that no secret is in it."""
    method, url, rest = _parts_of(job)
    text = json.dumps([method, url, rest], sort_keys=True, default=_text)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def label_of(job: Any) -> str:
    """Return what a job is called where people read it: without credentials and query."""
    method, url, _ = _parts_of(job)
    if not url:
        return "job"
    scheme, sep, rest = url.partition("?")[0].partition("#")[0].partition("://")
    if sep:
        host, slash, path = rest.partition("/")
        url = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    else:
        url = scheme
    return url if method == "GET" else f"{method} {url}"


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else repr(value)
