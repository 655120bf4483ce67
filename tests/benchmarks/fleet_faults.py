"""A fleet whose memcached forgets, stops, dies and comes back.

4 processes of 8 threads do nothing but acquire one key of `500/second burst 50`. "Excess" is what
any window saw beyond rate x its length + burst, "ideal" rate x the seconds + burst; "longest" is
the longest wait for a permit, "gap" the longest time in which a process was granted nothing.

`fleet-faults`, in the middle of the run: every key is deleted; `flush_all`; memcached is killed and
started again at once; it is stopped for 0.3 s (SIGSTOP); every connection is reset 20 times in 2 s,
by a proxy. Promised: an excess of at most 2, and no error.

`fleet-outage`: memcached is gone for 1.5 s, killed or stopped. A fair wait is that of a thread when
all 32 are in one line. Promised: 97 % of the ideal, an excess of at most 2, nobody blocked 0.3 s
longer than is fair, and no error.

In both each process is told that it is one of four (`processes=4`).
"""

import time
from collections.abc import Callable
from functools import partial

from tests.benchmarks.fleet_worker import Plan
from tests.benchmarks.fleets import Fleet, excess, run_fleet
from tests.benchmarks.measure import Finding, Settings, load, print_table
from tests.benchmarks.server import Memcached
from tests.faults.proxy import Proxy

__all__ = ["run", "run_outage"]

_PROCESSES, _THREADS = 4, 8
_RATE, _BURST = 500, 50
_LIMIT = f"{_RATE}/second burst {_BURST}"
_FAIR = _PROCESSES * _THREADS / _RATE
_COLUMNS = [
    "", "granted", "ideal", "excess 0.1 s", "1 s", "longest s", "gap s", "round trips", "errors",
]  # fmt: skip

Fault = Callable[[Memcached], object]


def _run(seconds: float, at: float, fault: Fault, *, through: bool = False) -> Fleet:
    """Run a fleet and do something to its server; `through` a proxy, where there is one to harm."""
    with Memcached() as server, Proxy(server.address) as proxy:

        def meanwhile(until: Callable[[float], None]) -> None:
            until(at)
            if through:
                _reset_often(proxy)
            else:
                fault(server)

        plan = Plan(
            limit=_LIMIT,
            url=proxy.url if through else server.url,
            threads=_THREADS,
            seconds=seconds,
            headroom=1.0,
            settings={"on_error": "local", "processes": _PROCESSES},
        )
        fleet = run_fleet([plan] * _PROCESSES, meanwhile)
    fleet.print_errors()
    return fleet


def _reset_often(proxy: Proxy) -> None:
    for _ in range(20):
        proxy.reset()
        time.sleep(0.1)


def _nothing(server: Memcached) -> None:
    pass


def _delete(server: Memcached) -> None:
    if not server.delete_all():
        print("  there was no key to delete")


def _flush(server: Memcached) -> None:
    server.ask(b"flush_all", b"OK\r\n")


def _stop(server: Memcached, seconds: float) -> None:
    server.pause()
    time.sleep(seconds)
    server.resume()


_FAULTS: dict[str, Fault] = {
    "nothing": _nothing,
    "keys deleted": _delete,
    "flush_all": _flush,
    "killed and started": Memcached.restart,
    "stopped for 0.3 s": partial(_stop, seconds=0.3),
}
_RESETS = "20 resets in 2 s"


def _over(fleet: Fleet) -> list[float]:
    return [excess(fleet.counted, _RATE, _BURST, window) for window in (0.1, 1)]


def _ideal(fleet: Fleet) -> float:
    return _RATE * fleet.seconds + _BURST


def _row(name: str, fleet: Fleet) -> list[str]:
    return [
        name,
        str(len(fleet.counted)),
        f"{_ideal(fleet):.0f}",
        *(f"{one:+.0f}" for one in _over(fleet)),
        f"{fleet.longest:.3f}",
        f"{fleet.gap:.3f}",
        f"{fleet.round_trips:.3f}",
        str(len(fleet.errors)),
    ]


def run(settings: Settings) -> list[Finding]:
    """Do each thing to the server once."""
    seconds = settings.pick(4, 3)
    fleets = {name: _run(seconds, 1.5, fault) for name, fault in _FAULTS.items()}
    fleets[_RESETS] = _run(seconds + 1, 1.0, _nothing, through=True)
    print(f"{_LIMIT}, {_PROCESSES} processes, {_THREADS} threads each; load average {load()}")
    print_table(_COLUMNS, [_row(name, fleet) for name, fleet in fleets.items()])
    return [
        finding
        for name, fleet in fleets.items()
        for finding in (
            Finding(f"{name}: excess", max(_over(fleet)), 2),
            Finding(f"{name}: errors", len(fleet.errors), 0),
        )
    ]


def run_outage(settings: Settings) -> list[Finding]:
    """Take the server away for a while, in two ways."""
    seconds, down = settings.pick(7, 5), 1.5
    outages: dict[str, Fault] = {
        "killed": partial(Memcached.restart, after=down),
        "stopped": partial(_stop, seconds=down),
    }
    fleets = {name: _run(seconds, 1.5, fault) for name, fault in outages.items()}
    print(f"{_LIMIT}, no memcached for {down} s; load average {load()}")
    print_table(_COLUMNS, [_row(name, fleet) for name, fleet in fleets.items()])
    return [
        finding
        for name, fleet in fleets.items()
        for finding in (
            Finding(
                f"{name}: of the ideal",
                100 * len(fleet.counted) / _ideal(fleet),
                97,
                "%",
                at_least=True,
            ),
            Finding(f"{name}: excess", max(_over(fleet)), 2),
            Finding(f"{name}: longest over a fair wait", fleet.longest - _FAIR, 0.3, "s"),
            Finding(f"{name}: errors", len(fleet.errors), 0),
        )
    ]
