"""Measures ratekit beside other libraries and says whether it keeps its promises.

    python tests/benchmarks                  all of it, about twenty minutes
    python tests/benchmarks --quick          rough figures, about two minutes
    python tests/benchmarks check memory     two of them

Run it where ratekit and the libraries to compare with are installed (`tox -e bench`); one that is
missing has no row. Figures depend on the machine and on what else it does: compare rows, not runs.
"""

import argparse
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    # Behind what is installed: the ratekit that is measured is not the checkout's, unless there
    # is no other.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    # What the surroundings say of proxies and limits is not part of the measurement.
    for name in list(os.environ):
        if name.startswith("RATEKIT_") or name.lower().endswith("_proxy"):
            del os.environ[name]

    from tests.benchmarks import (
        adapt,
        batch,
        blocking,
        breaker,
        cache,
        chaos,
        check,
        concurrency,
        events,
        fleet,
        fleet_adapt,
        fleet_faults,
        fleet_road,
        imports,
        jobs,
        measure,
        memory,
        opening,
        overhead,
        promises,
        road,
        rules,
        state,
        urgent,
    )

    BENCHMARKS = {
        "road": road.run,
        "road-bare": road.run_bare,
        "check": check.run,
        "memory": memory.run,
        "blocking": blocking.run,
        "overhead": overhead.run,
        "events": events.run,
        "jobs": jobs.run,
        "batch": batch.run,
        "import": imports.run,
        "opening": opening.run,
        "rules": rules.run,
        "adapt": adapt.run,
        "breaker": breaker.run,
        "concurrency": concurrency.run,
        "chaos": chaos.run,
        "urgent": urgent.run,
        "state": state.run,
        "promises": promises.run,
        "fleet-road": fleet_road.run,
        "fleet": fleet.run,
        "fleet-faults": fleet_faults.run,
        "fleet-outage": fleet_faults.run_outage,
        "fleet-hold": fleet.run_hold,
        "fleet-clock": fleet.run_clock,
        "fleet-cost": fleet_road.run_cost,
        "fleet-adapt": fleet_adapt.run,
        "cache-hit": cache.run_hit,
        "cache-miss": cache.run_miss,
        "cache-threads": cache.run_threads,
        "cache-memory": cache.run_memory,
        "cache-permits": cache.run_permits,
    }


def main() -> None:
    """Run the benchmarks that were named, or all, and print what became of each promise."""
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="rough figures in a tenth of the time")
    parser.add_argument("--jobs", type=int, help="GETs in a job of the road (default: 1500)")
    parser.add_argument("--seeds", type=int, help="jobs in a row on the road (default: 2)")
    chosen = parser.parse_args()
    for name in chosen.names:
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark {name!r}: use {', '.join(BENCHMARKS)}")
    settings = measure.Settings(quick=chosen.quick, jobs=chosen.jobs, seeds=chosen.seeds)
    measure.print_header()
    findings = []
    for name in chosen.names or BENCHMARKS:
        print(f"\n== {name}")
        began = time.perf_counter()
        findings += [(name, found) for found in BENCHMARKS[name](settings)]
        print(f"(took {time.perf_counter() - began:.0f} s)", flush=True)
    print(f"\n== promises{' (rough: --quick)' if settings.quick else ''}")
    rows = [[name, *found.row()] for name, found in findings]
    measure.print_table(["", "", "measured", "promised", ""], rows)


if __name__ == "__main__":
    main()
