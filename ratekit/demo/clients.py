"""The four clients, each as a careful programmer would set it up."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry as Urllib3Retry

from ratekit import Pipeline, RateLimiter, Retry
from ratekit.demo.report import Plan
from ratekit.requests import RateKitAdapter

__all__ = ["Get", "Way", "ways"]

Get = Callable[[str], int]
"""Gets a URL and returns the status of the last answer; raises what the client raises."""

TIMEOUT = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Way:
    """A client, what helps it with the limit, and how to open it for a job."""

    client: str
    helper: str | None
    open: Callable[[Plan], AbstractContextManager[Get]]


def ways() -> list[Way]:
    """List the clients in the order of their runs. Raises ModuleNotFoundError without httpx."""
    name, module, transport = _httpx()
    return [
        Way("requests", None, plain_requests),
        Way("requests", "urllib3 Retry", requests_with_urllib3_retry),
        Way("requests", "ratekit", requests_with_ratekit),
        Way(name, "ratekit", lambda plan: httpx_with_ratekit(plan, module, transport)),
    ]


@contextmanager
def plain_requests(plan: Plan) -> Iterator[Get]:
    """Open a session that takes every answer as it comes."""
    with _session(HTTPAdapter(pool_maxsize=plan.threads)) as session:
        yield lambda url: session.get(url, timeout=TIMEOUT).status_code


@contextmanager
def requests_with_urllib3_retry(plan: Plan) -> Iterator[Get]:
    """Open a session that backs off and obeys `Retry-After`, each call for itself."""
    retry = Urllib3Retry(
        total=5, backoff_factor=0.5, status_forcelist=[429, 503], allowed_methods=["GET"]
    )
    adapter = HTTPAdapter(pool_maxsize=plan.threads, max_retries=retry)
    with _session(adapter) as session:
        yield lambda url: session.get(url, timeout=TIMEOUT).status_code


@contextmanager
def requests_with_ratekit(plan: Plan) -> Iterator[Get]:
    """Open a session whose every attempt, also a retry, waits its turn."""
    with _session(RateKitAdapter(_pipeline(plan), pool_maxsize=plan.threads)) as session:
        yield lambda url: session.get(url, timeout=TIMEOUT).status_code


@contextmanager
def httpx_with_ratekit(plan: Plan, httpx: Any, transport: Any) -> Iterator[Get]:
    """Open the same with httpx (or httpx2, which is used alike)."""
    limits = httpx.Limits(max_connections=plan.threads, max_keepalive_connections=plan.threads)
    through = transport(_pipeline(plan), limits=limits, trust_env=False)
    with httpx.Client(transport=through, timeout=TIMEOUT, trust_env=False) as client:
        yield lambda url: int(client.get(url).status_code)


def _pipeline(plan: Plan) -> Pipeline:
    return Pipeline(Retry(), RateLimiter(f"{plan.rate}/second burst {plan.burst}"))


@contextmanager
def _session(adapter: HTTPAdapter) -> Iterator[requests.Session]:
    with requests.Session() as session:
        # The server is on this machine: a proxy from the environment could not reach it.
        session.trust_env = False
        session.mount("http://", adapter)
        yield session


def _httpx() -> tuple[str, Any, Any]:
    """Return name and module of httpx, or of httpx2 where only that is there, and our transport."""
    try:
        name, module = "httpx", importlib.import_module("httpx")
    except ModuleNotFoundError as missing:
        if missing.name != "httpx":
            raise
        name, module = "httpx2", importlib.import_module("httpx2")
    return name, module, importlib.import_module(f"ratekit.{name}").RateKitTransport
