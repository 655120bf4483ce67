"""Tiers: which limits a key has, by the name of its plan.

Every tier of a limiter counts the same parts, so that a key that changes its tier keeps what it
has spent. A part that only another tier has is charged, and does not bind.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ratekit.clock import SECOND, Clock
from ratekit.errors import ConfigurationError
from ratekit.limits.gcra import Bucket, bucket_of
from ratekit.limits.joint import Joint, Part
from ratekit.limits.limit import UNLIMITED, Limit
from ratekit.limits.rules import Price, Rule
from ratekit.limits.windows import Fixed, Window
from ratekit.stores import Space, Take

__all__ = ["Tier", "Tiers"]

_log = logging.getLogger("ratekit.limits")

# How many unknown names are remembered, so that each is warned of once.
_MOST_NAMES = 1000


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier's limits, and what follows from them."""

    limits: tuple[Limit, ...]
    rule: Rule
    one: Price
    """The price of one permit: the usual cost, worked out once."""
    take_one: Take
    pause_ns: int
    """How long to hold after a refusal that says nothing: one permit's time, or a second."""
    clock: Clock
    opens: bool
    """Whether bursts of it are watched (`limits.opening`)."""
    pace: float
    """The permits a second that it comes to in the long run; infinity without a limit."""


class Tiers:
    """The tiers of one limiter. `default` is the one of whoever names none."""

    def __init__(
        self, limit: str | Limit, tiers: Mapping[str, str] | None, headroom: float, space: Space
    ) -> None:
        limits = {name: _limits_of(name, text) for name, text in (tiers or {}).items()}
        default = limit if isinstance(limit, str) and limit in limits else None
        if default is None:
            limits[""] = (limit,) if isinstance(limit, Limit) else Limit.parse_all(limit)
        rules = {
            name: tuple(_rule_of(one, headroom, space.clock) for one in several)
            for name, several in limits.items()
        }
        # The parts in the order in which they are first named, the default tier's first.
        first = default or ""
        layout: dict[tuple[str, int], Bucket | Window | Fixed] = {}
        for name in (first, *rules):
            for rule in rules[name]:
                layout.setdefault(_kind(rule), rule)
        # One bucket each: its integer is time, and means the same in every tier. Where one is
        # deeper than another, a hold that empties the one would leave credit in the other.
        single = (
            all(len(parts) == 1 and isinstance(parts[0], Bucket) for parts in rules.values())
            and len({parts[0].saved_ns for parts in rules.values()}) == 1
        )
        _check_shape(space, "bucket" if single else frozenset(layout), limits[first])

        def tier_of(name: str) -> Tier:
            own = {_kind(rule): rule for rule in rules[name]}
            parts = (Part(own.get(kind, rule), kind in own) for kind, rule in layout.items())
            rule = rules[name][0] if single else Joint(tuple(parts))
            one = rule.price(1)
            pause_ns = max(limit.period_ns // limit.count for limit in limits[name])
            is_limited = limits[name] != (UNLIMITED,)
            paces = [headroom * limit.count * SECOND / limit.period_ns for limit in limits[name]]
            return Tier(
                limits[name],
                rule,
                one,
                space.taker(rule, one),
                min(SECOND, pause_ns),
                space.clock,
                is_limited and rule.burst > 1,
                min(paces) if is_limited else math.inf,
            )

        self.default = tier_of(first)
        self.named = {name: tier_of(name) for name in limits if name and name != first}
        if default is not None:
            self.named[default] = self.default
        self._unknown: set[str] = set()

    def get(self, name: str | None) -> Tier:
        """Return the tier called `name`; the default one for None and for a name not known."""
        if name is None:
            return self.default
        tier = self.named.get(name)
        if tier is None:
            if name not in self._unknown and len(self._unknown) < _MOST_NAMES:
                self._unknown.add(name)
                known = ", ".join(map(repr, self.named)) or "none is named"
                _log.warning(
                    "unknown tier %r: the default limit holds for it (tiers: %s)", name, known
                )
            return self.default
        return tier


def _limits_of(name: str, text: str) -> tuple[Limit, ...]:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"tier {name!r}: use a name, such as 'free'")
    try:
        return Limit.parse_all(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"tier {name!r}: {error}") from error


def _rule_of(limit: Limit, headroom: float, clock: Clock) -> Bucket | Window | Fixed:
    makers: dict[str, Callable[[], Bucket | Window | Fixed]] = {
        "bucket": lambda: bucket_of(limit, headroom),
        "window": lambda: Window(limit),
        "fixed": lambda: Fixed(limit, clock.epoch_ns),
    }
    return makers[limit.form]()


def _kind(rule: Bucket | Window | Fixed) -> tuple[str, int]:
    return rule.limit.form, rule.limit.period_ns


def _check_shape(space: Space, shape: object, limits: tuple[Limit, ...]) -> None:
    known = space.beside.setdefault("shape", (shape, limits))
    if known[0] != shape:
        ours, theirs = ("; ".join(limit.text for limit in some) for some in (limits, known[1]))
        raise ConfigurationError(
            f"{ours!r}: a limiter of the same name and store keeps {theirs!r}, and limits of "
            "other forms or periods cannot share its budget; use the same ones, or another name"
        )
