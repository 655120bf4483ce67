"""What the limiter said: a `Decision`, and the headers that tell it to a client."""

from typing import TYPE_CHECKING

from ratekit.clock import SECOND
from ratekit.limits.rules import Rule, State
from ratekit.stores import Taken

if TYPE_CHECKING:
    from ratekit.limits.tiers import Tier

__all__ = ["Decision"]


class Decision:
    """What the limiter said of one key at one instant; true where it was a yes.

    Computed when asked for: making one costs as little as it can. All durations are seconds. Of
    several limits, it tells of the one that has the least left.
    """

    __slots__ = ("_taken", "_tier")

    def __init__(self, tier: "Tier", taken: Taken) -> None:
        self._tier = tier
        self._taken = taken

    @property
    def allowed(self) -> bool:
        """Whether the permits were granted (`peek`: whether they would be)."""
        return self._taken[0]

    @property
    def limit(self) -> int:
        """Permits in a period, as the limit's text says."""
        return self._tightest()[0].limit.count

    @property
    def remaining(self) -> int:
        """How many permits could be granted right now, after this decision."""
        _, state, now_ns, _ = self._taken
        return self._tier.rule.remaining(state, now_ns)

    @property
    def reset_after(self) -> float:
        """Seconds until everything that may be had at once is there again."""
        return self._reset_ns() / SECOND

    @property
    def retry_after(self) -> float:
        """Seconds until the same question would be answered with yes; 0 where it was."""
        allowed, state, now_ns, price = self._taken
        if allowed:
            return 0.0
        return (self._tier.rule.earliest(state, now_ns, price) - now_ns) / SECOND

    def headers(self) -> dict[str, str]:
        """Return the fields that tell a client of this decision, on answers and on refusals.

        `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds since the epoch) as most APIs send
        them; `RateLimit` and `RateLimit-Policy` with every limit
        (draft-ietf-httpapi-ratelimit-headers-10): `r` permits are left, and no more than these can
        be used in the next `t` seconds; on a refusal also `Retry-After` in whole
        seconds, rounded up: never too early (RFC 9110, section 10.2.3).
        """
        allowed, state, now_ns, _ = self._taken
        reset_at_ns = self._tier.clock.epoch_ns(now_ns) + now_ns + self._reset_ns()
        fields = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(_seconds(reset_at_ns)),
        }
        policies, limits, front = [], [], self._tier.rule.front(state)
        for rule, part in self._tier.rule.parts_of(state):
            name = f'"{rule.limit.label}"'
            # The draft's window is whole seconds; of another one it says nothing.
            seconds, fraction = divmod(rule.limit.period_ns, SECOND)
            window = "" if fraction else f";w={seconds}"
            policies.append(f"{name};q={rule.limit.count}{window}")
            left = 0 if front > now_ns else rule.remaining(part, now_ns)
            more_ns = max(front, rule.more_at(part, now_ns)) - now_ns
            limits.append(f"{name};r={left};t={_seconds(more_ns)}")
        fields["RateLimit-Policy"] = ", ".join(policies)
        fields["RateLimit"] = ", ".join(limits)
        if not allowed:
            fields["Retry-After"] = str(max(1, _seconds(round(self.retry_after * SECOND))))
        return fields

    def _reset_ns(self) -> int:
        _, state, now_ns, _ = self._taken
        rule, part = self._tightest()
        return max(0, rule.idle_at(part) - now_ns, self._tier.rule.front(state) - now_ns)

    def _tightest(self) -> tuple[Rule, State]:
        _, state, now_ns, _ = self._taken
        return self._tier.rule.tightest(state, now_ns)

    def __bool__(self) -> bool:
        return self.allowed

    def __repr__(self) -> str:
        return (
            f"Decision(allowed={self.allowed}, limit={self.limit}, remaining={self.remaining}, "
            f"reset_after={self.reset_after:.3f}, retry_after={self.retry_after:.3f})"
        )


def _seconds(ns: int) -> int:
    return -(-ns // SECOND)
