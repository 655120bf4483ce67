"""A circuit: when it opens, whom it lets through to test it, and when it closes again.

Pure functions on an immutable `Circuit` of integers, so that it may be kept wherever state is, and
the same decision is made for one process and for a fleet. Instants are nanoseconds of the store's
clock.

A circuit changes its *generation* whenever it opens or closes. What began in another one says
nothing of this one, and does not count.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ratekit.clock import SECOND
from ratekit.errors import ConfigurationError

__all__ = [
    "CLOSED", "DISABLED", "FORCED", "PARTS", "Circuit", "Trip", "admit", "circuit_of", "close",
    "counted", "failed", "idle_at", "probed", "set_until",
]  # fmt: skip

# The window of a failure ratio is counted in so many parts.
PARTS = 10
# In place of an instant: open until somebody says otherwise, and never to open.
FORCED, DISABLED = 1 << 61, -1
# Failures in a row are forgotten after so long without one.
_ROW_NS = 3600 * SECOND
_MOST_DOUBLINGS = 30
# No state of ours has as many parts or leases. Of another process some may lie a little ahead.
_MOST_ITEMS = 1024

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*% of (\d+) in (\d+(?:\.\d+)?)\s*(?:s|seconds?)?")
_ROW = re.compile(r"(\d+) in a row")


@dataclass(frozen=True, slots=True)
class Trip:
    """When a circuit opens and how it closes. `share` of at least `calls` in `window_ns`, or `row`.

    `calls` and `row` are 0 where that does not open it. Open it stays `cooldown_ns`, twice as long
    each time up to `longest_ns`; then `probes` at a time go through, and `successes` close it. A
    probe that does not come back is given up after `lease_ns`.
    """

    share: float
    calls: int
    window_ns: int
    row: int
    cooldown_ns: int
    longest_ns: int
    probes: int
    successes: int
    lease_ns: int

    @property
    def part_ns(self) -> int:
        """The length of a part of the window."""
        return max(1, self.window_ns // PARTS)

    @classmethod
    def read(cls, text: str, **others: Any) -> "Trip":
        """Read "50% of 10 in 30", "5 in a row", or both joined with `;`.

        Raises `ConfigurationError` that says what would be right.
        """
        share, calls, seconds, row = 1.0, 0, 30.0, 0
        if not isinstance(text, str) or not text.strip():
            raise _wrong(text)
        for part in text.split(";"):
            if match := _SHARE.fullmatch(part.strip()):
                share, calls, seconds = float(match[1]) / 100, int(match[2]), float(match[3])
                if not 0 < share <= 1 or calls < 1 or not 0 < seconds <= 86_400:
                    raise _wrong(text)
            elif match := _ROW.fullmatch(part.strip()):
                row = int(match[1])
                if row < 1:
                    raise _wrong(text)
            else:
                raise _wrong(text)
        return cls(share=share, calls=calls, window_ns=round(seconds * SECOND), row=row, **others)


def _wrong(text: object) -> ConfigurationError:
    return ConfigurationError(
        f"trip {text!r}: use '50% of 10 in 30' (half of at least 10 calls in 30 seconds), '5 in a "
        "row', or both joined with ';'"
    )


class Circuit(NamedTuple):
    """`until`: 0 while it is closed, else the instant at which the first probe may go.

    `trips`: how often in a row it opened. `leases`: until when each probe under way is waited for.
    `good`: probes that succeeded. `row`, `last`: failures in a row, and when the last one was.
    `parts`: of the window, each with its number, successes and failures.
    """

    generation: int = 0
    until: int = 0
    trips: int = 0
    good: int = 0
    row: int = 0
    last: int = 0
    leases: tuple[int, ...] = ()
    parts: tuple[tuple[int, int, int], ...] = ()


CLOSED = Circuit()


def circuit_of(state: Any) -> Circuit:
    """Return a state as it came from a store; whatever is none of ours is a closed circuit."""
    if isinstance(state, Circuit):
        return state
    if not isinstance(state, tuple) or len(state) != len(CLOSED):
        return CLOSED
    *numbers, leases, parts = state
    if not (_are_integers(numbers, len(numbers)) and isinstance(leases, tuple)):
        return CLOSED
    if not (isinstance(parts, tuple) and len(leases) + len(parts) <= _MOST_ITEMS):
        return CLOSED
    if not (_are_integers(leases, len(leases)) and all(_are_integers(part, 3) for part in parts)):
        return CLOSED
    return Circuit(*state)


def _are_integers(numbers: Any, count: int) -> bool:
    return (
        isinstance(numbers, (tuple, list))
        and len(numbers) == count
        and all(type(number) is int for number in numbers)
    )


def counted(circuit: Circuit, now: int, trip: Trip) -> tuple[int, int]:
    """Return the failures within the window, and all calls that are known of."""
    first = now // trip.part_ns - PARTS + 1
    inside = [(ok, bad) for part, ok, bad in circuit.parts if part >= first]
    failures = sum(bad for _, bad in inside)
    return failures, failures + sum(ok for ok, _ in inside)


def failed(
    circuit: Circuit,
    now: int,
    trip: Trip,
    *,
    generation: int,
    oks: Iterable[tuple[int, int]] = (),
    after_success: bool = False,
    least_ns: int = 0,
) -> Circuit:
    """Return the circuit after a failure of a call that began in `generation`.

    `oks`: the successes since the last failure, by part of the window; `after_success`: whether
    there was any. `least_ns`: how long the server itself wants to be left alone.
    """
    if circuit.until or circuit.generation != generation:
        return circuit
    first = now // trip.part_ns - PARTS + 1
    counts = {part: (ok, bad) for part, ok, bad in circuit.parts if part >= first}
    for part, number in oks:
        if part >= first:
            ok, bad = counts.get(part, (0, 0))
            counts[part] = ok + number, bad
    here = now // trip.part_ns
    ok, bad = counts.get(here, (0, 0))
    counts[here] = ok, bad + 1
    is_row = not after_success and now - circuit.last < _ROW_NS
    row = circuit.row + 1 if is_row else 1
    bads = sum(bad for _, bad in counts.values())
    calls = bads + sum(ok for ok, _ in counts.values())
    if (trip.row and row >= trip.row) or (
        trip.calls and calls >= trip.calls and bads >= trip.share * calls
    ):
        return _opened(circuit, now, trip, least_ns)
    parts = tuple((part, *counts[part]) for part in sorted(counts))
    return circuit._replace(row=row, last=now, parts=parts)


def _opened(circuit: Circuit, now: int, trip: Trip, least_ns: int) -> Circuit:
    doubled = trip.cooldown_ns << min(circuit.trips, _MOST_DOUBLINGS)
    return Circuit(
        generation=circuit.generation + 1,
        until=now + max(min(doubled, trip.longest_ns), least_ns),
        trips=circuit.trips + 1,
    )


def close(circuit: Circuit, now: int = 0) -> Circuit:
    """Return the circuit closed, with nothing counted; its generation is remembered for a while."""
    return Circuit(generation=circuit.generation + 1, last=now)


def set_until(circuit: Circuit, until: int) -> Circuit:
    """Return the circuit `FORCED` open, or `DISABLED`."""
    return Circuit(generation=circuit.generation + 1, until=until)


def admit(circuit: Circuit, now: int, trip: Trip) -> tuple[Circuit, int]:
    """Return the circuit with one more probe under way and its lease; 0 where none may go.

    As many go at a time as `trip.probes`, and no more than still can close it.
    """
    if not 0 < circuit.until <= now:
        return circuit, 0
    live = tuple(lease for lease in circuit.leases if lease > now)
    if len(live) >= trip.probes:
        return circuit, 0
    lease = now + trip.lease_ns
    # It is the probe's name, too.
    while lease in live:
        lease += 1
    return circuit._replace(leases=(*live, lease)), lease


def probed(
    circuit: Circuit,
    now: int,
    trip: Trip,
    *,
    generation: int,
    lease: int,
    succeeded: bool | None,
    least_ns: int = 0,
) -> Circuit:
    """Return the circuit after a probe is back; None: it tells nothing, and another may go."""
    if circuit.generation != generation or lease not in circuit.leases:
        return circuit
    if succeeded is False:
        return _opened(circuit, now, trip, least_ns)
    good = circuit.good + (succeeded is True)
    if good >= trip.successes:
        return close(circuit, now)
    leases = tuple(other for other in circuit.leases if other != lease)
    return circuit._replace(good=good, leases=leases)


def idle_at(circuit: Any, trip: Trip) -> int:
    """Return the instant from which the circuit says no more than a new one."""
    return _idle_at(circuit_of(circuit), trip)


def _idle_at(circuit: Circuit, trip: Trip) -> int:
    if circuit.until == DISABLED:
        return FORCED
    if circuit.until:
        return min(FORCED, circuit.until + 2 * trip.longest_ns)
    return circuit.last + max(_ROW_NS if trip.row else 0, trip.window_ns, 2 * trip.longest_ns)
