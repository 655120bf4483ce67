"""What a user's type checker must accept, and see: checked, never run."""

from typing import assert_type

import httpx
import httpx2
import requests
from requests.adapters import HTTPAdapter

import ratekit
from ratekit import Backoff, Decision, Limit, Pipeline, Policy, RateLimiter, Retry, RetryBudget
from ratekit.httpx import RateKitTransport
from ratekit.httpx2 import RateKitTransport as RateKitTransport2
from ratekit.quota import retry_after
from ratekit.requests import RateKitAdapter
from ratekit.testing import Answer, ApiServer, FakeClock, instant

limiter = RateLimiter("100/minute", name="api", key_of=lambda call: call.key, max_wait=5)
pipeline = Pipeline(
    Retry(attempts=3, backoff=Backoff("equal"), on=(OSError,), budget=RetryBudget(ratio=0.2)),
    limiter,
    options=ratekit.options(deadline=60),
)
assert_type(pipeline.policies, tuple[Policy, ...])
assert_type(limiter.check("k"), Decision)
assert_type(limiter.acquire("k", cost=2, max_wait=1.5), Decision)
assert_type(limiter.limits, tuple[Limit, ...])
assert_type(retry_after({"retry-after": "1"}), float | None)

config = ratekit.Config(limit="100/minute", retry_statuses=[503], hosts={"a.org": {"deadline": 5}})
assert_type(config.pipeline(), Pipeline)
assert_type(ratekit.Config.from_env(limit="1/second"), ratekit.Config)
assert_type(config.limit, str | None)
config.limit = "1/second"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
ratekit.Nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018

session = requests.Session()
session.mount("https://", RateKitAdapter(pipeline))
session.mount("http://", RateKitAdapter(limiter, adapter=HTTPAdapter()))
client = httpx.Client(transport=RateKitTransport(pipeline, http2=False))
client2 = httpx2.Client(transport=RateKitTransport2(pipeline))


@pipeline
def add(one: int, *, two: int = 2) -> str:
    """A decorated function keeps its signature."""
    return str(one + two)


assert_type(add(1, two=3), str)
add("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

with limiter.permit("k") as decision:
    assert_type(decision, Decision)

with ratekit.options(max_wait=1) as chosen:
    assert_type(chosen, ratekit.Options)

try:
    client.get("https://api.example.com")
except ratekit.RateLimited as refusal:
    assert_type(refusal.key, str)
    assert_type(refusal.retry_after, float | None)


def own_delay(failures: int, last: float) -> float:
    """Any such function is a back-off."""
    return failures + last


Retry(backoff=own_delay)
RateLimiter("1/second", store=ratekit.MemoryStore(clock=FakeClock()))

with ApiServer(rate=100, burst=20) as server, instant():
    server.script("/path", Answer(503, headers=[("Retry-After", "1")]))
    assert_type(server.url, str)
