"""Metrics and span events for OpenTelemetry: a listener, `Pipeline(..., on_event=Telemetry())`."""

from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import metrics, trace

from ratekit.events import (
    AttemptEnded,
    CacheUsed,
    CallEnded,
    CircuitChanged,
    Event,
    HoldSet,
    PermitWaited,
    QuotaLow,
    Refused,
    Retried,
)

__all__ = ["Telemetry"]

# Upper bounds in seconds: those that the conventions advise for durations, and longer ones.
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 60, 600)
_MOST_KEYS = 100
# What happens within a call, and belongs on the span that the caller is in.
_ON_SPANS = (
    AttemptEnded, CacheUsed, CircuitChanged, HoldSet, PermitWaited, QuotaLow, Refused, Retried,
)  # fmt: skip


class Telemetry:
    """Listens to the events of pipelines, and tells OpenTelemetry.

    `meter_provider`: the global one by default. `spans`: whether attempts, waits and refusals are
    added as events to the span that is current where the call is made. Attributes are those of the
    semantic conventions (`server.address`, `http.request.method`, `error.type`); of more than 100
    hosts the rest have no address.
    """

    def __init__(
        self, *, meter_provider: metrics.MeterProvider | None = None, spans: bool = True
    ) -> None:
        meter = metrics.get_meter("ratekit", meter_provider=meter_provider)

        def duration(name: str, what: str) -> metrics.Histogram:
            return meter.create_histogram(
                f"ratekit.client.{name}",
                unit="s",
                description=what,
                explicit_bucket_boundaries_advisory=_BOUNDS,
            )

        self._calls = duration("call.duration", "Calls of the program, waits included.")
        self._attempts = duration("attempt.duration", "Requests that went over the wire.")
        self._waits = duration("permit.wait.duration", "Waits for a permit.")
        self._refusals = meter.create_counter(
            "ratekit.client.refusals", unit="{call}", description="Calls that ratekit refused."
        )
        self._spans = spans
        self._servers: dict[str, dict[str, Any]] = {}

    def __call__(self, event: Event) -> None:
        """Tell of an event."""
        if isinstance(event, CallEnded):
            self._calls.record(event.seconds, self._attributes(event))
        elif isinstance(event, AttemptEnded):
            self._attempts.record(event.seconds, self._attributes(event))
        elif isinstance(event, PermitWaited):
            self._waits.record(event.seconds, self._server(event.key))
        elif isinstance(event, Refused):
            self._refusals.add(1, {**self._server(event.key), "error.type": event.error})
        if self._spans and isinstance(event, _ON_SPANS):
            span = trace.get_current_span()
            if span.is_recording():
                span.add_event(f"ratekit.{_name(type(event).__name__)}", _plain(event))

    def _attributes(self, event: CallEnded | AttemptEnded) -> dict[str, Any]:
        said = {**self._server(event.key), "http.request.method": event.method or "_OTHER"}
        if event.status is not None:
            said["http.response.status_code"] = event.status
            if event.status >= 400:
                said["error.type"] = str(event.status)
        elif event.error:
            said["error.type"] = event.error
        return said

    def _server(self, key: str) -> dict[str, Any]:
        known = self._servers.get(key)
        if known is None:
            if len(self._servers) >= _MOST_KEYS:
                return {}
            known = self._servers[key] = _server_of(key)
        return known


def _server_of(key: str) -> dict[str, Any]:
    """Return the attributes of a key that begins with an origin; of another one none."""
    parts = urlsplit(key.partition(" ")[0])
    if not parts.hostname:
        return {}
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    said: dict[str, Any] = {"server.address": parts.hostname}
    return said if port is None else {**said, "server.port": port}


@lru_cache
def _name(kind: str) -> str:
    """Return the name of a kind of events in the spelling of OpenTelemetry: `attempt_ended`."""
    return "".join(f"_{one.lower()}" if one.isupper() else one for one in kind)[1:]


def _plain(event: Event) -> dict[str, Any]:
    fields = event.fields()
    del fields["event"]
    return {f"ratekit.{name}": value for name, value in fields.items() if value is not None}
