"""The pace that a server accepts, found from its refusals where nothing else tells of it.

Between two refusals a server admitted so many requests in so much time: that is its rate, once the
first burst is taken off. So two or three refusals tell it, where adding a little and halving takes
many. Afterwards the pace rises slowly, and only while nothing is refused.

A refusal begins an *event*. What was sent before it and is refused as well belongs to the same
one: the pace is lowered once. Until the first attempt after it is admitted the window is shut, and
nothing can be learned but that it is.

Pure functions on an immutable `Pace`. Instants are nanoseconds, a pace is permits a second.
"""

import math
from typing import NamedTuple

from ratekit.clock import SECOND

__all__ = [
    "FIRST_STEP_NS", "FREE", "LONGEST_PAUSE_NS", "LONGEST_STEP_NS", "PAUSE_NS", "SLOWEST", "Pace",
    "admitted_one", "refused", "reopened", "risen",
]  # fmt: skip

# How long to wait after a refusal that says nothing, and by how much longer while still refused.
PAUSE_NS = SECOND // 20
_LONGER = 1.5
LONGEST_PAUSE_NS = 30 * SECOND
# How long a pace is kept before a faster one is tried: at first, once two estimates agree, at most.
FIRST_STEP_NS = 160 * SECOND // 1000
_STEP_NS = 16 * SECOND
LONGEST_STEP_NS = 64 * SECOND
# An estimate below this share of the pace is of a bucket that was not emptied all the time.
_TRUSTED = 0.6
# A limit that was told is not lowered by a refusal after so long: that is jitter.
_PEACE_NS = 5 * SECOND
SLOWEST = 1 / 3600


class Pace(NamedTuple):
    """What is known of one key.

    `rate`: permits a second; `ceiling`: the pace that was refused last. `burst`: what was admitted
    before the first refusal, in `burst_ns`. `begin`, `shut_at`: when this stretch began, and was
    refused (0: it is not). `pause_ns`: how long that holds. `step_ns`, `step_at`: when to try a
    faster pace.
    """

    rate: float = math.inf
    ceiling: float = math.inf
    burst: int = 0
    burst_ns: int = 0
    begin: int = 0
    shut_at: int = 0
    refused_at: int = -1
    pause_ns: int = 0
    step_ns: int = FIRST_STEP_NS
    step_at: int = 0
    events: int = 0


FREE = Pace()


def refused(
    pace: Pace, now: int, sent: int, asked_ns: int, least_ns: int = PAUSE_NS
) -> Pace | None:
    """Return the pace after a refusal of what was sent at `sent`; None where that is no news.

    `asked_ns`: the wait that the server asked for, 0 where it did not; it is at least `least_ns`
    then, and longer each time that the window turns out to be shut still.
    """
    if sent <= pace.refused_at:
        return None
    longer = pace.pause_ns if pace.shut_at else 0
    pause = asked_ns or min(LONGEST_PAUSE_NS, max(least_ns, round(longer * _LONGER)))
    return pace._replace(shut_at=pace.shut_at or now, refused_at=now, pause_ns=pause)


def admitted_one(pace: Pace, now: int, sent: int, admitted: int, top: float) -> Pace:
    """Return the pace after an attempt that was sent at `sent` was admitted.

    `admitted` and `top`: as for `reopened`. Where another stretch begins, `begin` is another.
    """
    if pace.shut_at:
        return reopened(pace, now, admitted, top) if sent > pace.refused_at else pace
    if pace.step_at and now >= pace.step_at and pace.rate < top:
        return risen(pace, now, top)
    return pace


def reopened(pace: Pace, now: int, admitted: int, top: float) -> Pace:
    """Return the pace once an attempt after a refusal was admitted.

    `admitted`: how many were since the stretch began. `top`: the pace that was told, if any.
    """
    old = min(pace.rate, top)
    span_ns = max(SECOND // 1000, pace.shut_at - pace.begin)
    whole = max(SECOND // 1000, now - pace.begin) / SECOND
    burst, burst_ns, step = pace.burst, pace.burst_ns, pace.step_ns
    estimate = max(admitted, 1) / whole
    if pace.events == 0:
        burst, burst_ns = admitted, span_ns
    elif span_ns > burst_ns:
        # The first burst once more, and as long a while, are taken off.
        estimate = max(estimate, (admitted - burst) * SECOND / (span_ns - burst_ns))
    if old == math.inf:
        rate = estimate
    elif top < math.inf and pace.shut_at - pace.begin >= _PEACE_NS and pace.rate >= top:
        rate, step = old, _STEP_NS
    else:
        estimate = min(estimate, 0.95 * old)
        trusted = estimate >= _TRUSTED * old
        rate = estimate if trusted else max(0.3 * old, math.sqrt(estimate * old))
        step = min(LONGEST_STEP_NS, max(_STEP_NS if trusted else 0, 4 * step))
    return pace._replace(
        rate=max(SLOWEST, rate),
        ceiling=old,
        burst=burst,
        burst_ns=burst_ns,
        begin=now,
        shut_at=0,
        pause_ns=0,
        step_ns=step,
        step_at=now + step,
        events=pace.events + 1,
    )


def risen(pace: Pace, now: int, top: float) -> Pace:
    """Return the pace after a time without a refusal: faster, at most `top`."""
    rate, ceiling = pace.rate, pace.ceiling
    if ceiling > 2.5 * rate:
        rate *= 2
    elif ceiling > 1.08 * rate:
        # Half way, but near an estimate that was trusted.
        rate = min(math.sqrt(rate * ceiling), rate * (1.1 if pace.step_ns >= _STEP_NS else 2))
    else:
        rate *= 1.05
        ceiling = max(ceiling, rate * 1.05)
    rate = min(rate, top)
    return pace._replace(rate=rate, ceiling=ceiling, step_at=now + pace.step_ns)
