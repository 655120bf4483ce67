"""Metrics for Prometheus, read from a pipeline when they are asked for.

Nothing is counted twice: a scrape reads what the pipeline counts anyway, so a request costs no more
than without.
"""

import weakref
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ratekit.errors import ConfigurationError
from ratekit.policy import Pipeline

__all__ = ["PipelineCollector"]

_LABELS = ("pipeline", "key")
_COUNTERS = {
    "calls": "Calls of the program.",
    "attempts": "Requests that went over the wire.",
    "retries": "Attempts after the first one of a call.",
    "errors": "Calls that ended with an error of the server or the network.",
    "refused": "Calls that ratekit refused.",
    "throttled": "Calls that ended with a 429.",
    "cache_hits": "Calls that a cache answered.",
    "collapsed": "Calls answered with the answer to an identical one.",
    "fallbacks": "Calls answered with something of the user's own.",
}
_GAUGES = {
    "permits_left": "Permits that could be granted now.",
    "held_for": "Seconds for which nothing is sent.",
    "retry_budget": "Retries of failures that are left.",
}
_Stats = dict[tuple[str, str], dict[str, Any]]
"""What a pipeline says, by its name and the key."""

_STATES = ("closed", "open", "half-open", "forced open", "disabled")


class PipelineCollector(Collector):
    """Collects the metrics of a pipeline: `REGISTRY.register(PipelineCollector(pipeline))`.

    `name`: the value of the label `pipeline`. A registry takes one collector; of more pipelines
    `add` tells it too. `max_keys`: the most values of the label `key` for each; the others, those
    with the fewest calls, are "other" together. No pipeline is kept alive by it.
    """

    def __init__(self, pipeline: Pipeline, *, name: str = "", max_keys: int = 100) -> None:
        self._max_keys = max_keys
        self._pipelines: dict[str, weakref.ref[Pipeline]] = {}
        self.add(pipeline, name)

    def add(self, pipeline: Pipeline, name: str) -> None:
        """Collect of another pipeline too. Raises `ConfigurationError` for a name that is taken."""
        known = self._pipelines.get(name)
        if known is not None and known() is not None:
            raise ConfigurationError(f"name {name!r}: another pipeline has it; use a new one")
        self._pipelines[name] = weakref.ref(pipeline)

    def describe(self) -> Iterator[Metric]:
        """Return the metrics without values, so that a second collector is refused."""
        return self._collect({})

    def collect(self) -> Iterator[Metric]:
        """Read the pipelines."""
        stats = {}
        for name, known in list(self._pipelines.items()):
            pipeline = known()
            if pipeline is None:
                self._pipelines.pop(name, None)
                continue
            for key, about in self._bounded(pipeline.stats()).items():
                stats[name, key] = about
        return self._collect(stats)

    def _collect(self, stats: _Stats) -> Iterator[Metric]:
        for name, help_text in _COUNTERS.items():
            counter = CounterMetricFamily(f"ratekit_{name}", help_text, labels=_LABELS)
            for labels, about in stats.items():
                counter.add_metric(labels, about[name])
            yield counter
        yield self._waits(stats)
        for name, help_text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"ratekit_{name}", help_text, labels=_LABELS)
            for labels, about in stats.items():
                if about.get(name) is not None:
                    gauge.add_metric(labels, about[name])
            yield gauge
        yield self._quotas(stats)
        yield self._circuits(stats)

    def _bounded(self, stats: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if len(stats) <= self._max_keys:
            return stats
        first = sorted(stats, key=lambda key: (key == "other", -stats[key]["calls"]))
        kept = {key: stats[key] for key in first[: self._max_keys] if key != "other"}
        rest = [stats[key] for key in stats if key not in kept]
        other: dict[str, Any] = {
            name: sum(about[name] for about in rest) for name in (*_COUNTERS, "waited")
        }
        bounds = rest[0]["wait_buckets"]
        other["wait_buckets"] = {
            bound: sum(about["wait_buckets"][bound] for about in rest) for bound in bounds
        }
        return {**kept, "other": other}

    def _waits(self, stats: _Stats) -> Metric:
        waits = HistogramMetricFamily(
            "ratekit_wait_seconds",
            "Waits of calls for permits, holds and back-off.",
            labels=_LABELS,
        )
        for labels, about in stats.items():
            buckets = [(str(bound), count) for bound, count in about["wait_buckets"].items()]
            waits.add_metric(labels, [*buckets, ("+Inf", about["calls"])], about["waited"])
        return waits

    def _quotas(self, stats: _Stats) -> Metric:
        left = GaugeMetricFamily(
            "ratekit_quota_left",
            "What the server said is left of a window.",
            labels=(*_LABELS, "window"),
        )
        for labels, about in stats.items():
            for number, quota in enumerate(about.get("quota") or ()):
                left.add_metric((*labels, str(number)), quota["left"])
        return left

    def _circuits(self, stats: _Stats) -> Metric:
        state = GaugeMetricFamily(
            "ratekit_circuit_state",
            "1 for the state that a circuit is in.",
            labels=(*_LABELS, "state"),
        )
        for labels, about in stats.items():
            if "circuit" in about:
                for one in _STATES:
                    state.add_metric((*labels, one), float(about["circuit"] == one))
        return state
