"""A minute of a job at a server in trouble, on a fake clock, for thousands of seeds.

Latency, resets, 429 with and without a hint, bursts of 5xx, outages. Promised: every call ends, no
permit or slot is lost, no second has more attempts than the limit, and every circuit recovers.
"""

from tests.benchmarks.measure import Finding, Settings
from tests.faults.chaos import Job

__all__ = ["run"]


def run(settings: Settings) -> list[Finding]:
    """Do the jobs."""
    seeds = settings.seeds or settings.pick(3000, 300)
    wrong: dict[int, list[str]] = {}
    calls = fine = 0
    for seed in range(seeds):
        job = Job(seed)
        job.minute()
        job.recover()
        found = job.wrong()
        if found:
            wrong[seed] = found
        calls += job.calls
        fine += job.fine
    print(f"{seeds} seeds, {calls} calls, {fine / calls:.0%} answered well")
    for seed, found in list(wrong.items())[:10]:
        print(f"seed {seed}: {', '.join(found)}")
    return [Finding("seeds that left something wrong", len(wrong), 0)]
