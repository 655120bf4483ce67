"""What a run came to, in figures and in words. Nothing here acts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

__all__ = ["Plan", "Result", "closing_sentence", "full_name", "ideal_seconds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The job, the same in every run: `jobs` distinct GETs from `threads` threads.

    The server admits `rate` requests a second after the first `burst`, and fails the fraction
    `noise` of what it admits; `seed` decides which.
    """

    jobs: int
    rate: int
    burst: int
    threads: int
    noise: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run: `client` with or without `helper`, the seconds it took and what the server saw.

    `ideal` is the least number of seconds in which the server would have let every job through.
    `failed` are the jobs whose last answer was not 200, or that ended in an error.
    """

    client: str
    helper: str | None
    jobs: int
    seconds: float
    ideal: float
    refused: int
    requests: int
    failed: int

    @property
    def name(self) -> str:
        """The client and its helper, as in "requests + ratekit"."""
        return full_name(self.client, self.helper)

    @property
    def ratio(self) -> float | None:
        """How often the ideal time goes into the run's; None where the ideal is no time at all."""
        return self.seconds / self.ideal if self.ideal > 0 else None

    @property
    def gave_up(self) -> bool:
        """Whether the run was over before all the jobs could have been done."""
        return self.seconds < self.ideal

    def figures(self) -> dict[str, object]:
        """Return everything there is to know about the run, for JSON."""
        return {"name": self.name, **asdict(self), "ratio": self.ratio}


def full_name(client: str, helper: str | None) -> str:
    """Name a client together with what helps it, if anything does."""
    return client if helper is None else f"{client} + {helper}"


def ideal_seconds(plan: Plan, noise: int) -> float:
    """Return how long the job takes at least when the server fails `noise` of its requests."""
    return max(0, plan.jobs + noise - plan.burst) / plan.rate


def closing_sentence(results: Sequence[Result]) -> str:
    """Say in words what the figures show."""
    clauses = [
        in_words(result.name if result.helper else f"{result.client} alone", [result])
        for result in results
        if result.helper != "ratekit"
    ]
    ours = [result for result in results if result.helper == "ratekit"]
    if ours:
        clients = " and ".join(result.client for result in ours)
        clauses.append(in_words(f"with ratekit, {clients}", ours))
    sentence = "; ".join(clauses) + "."
    return sentence[0].upper() + sentence[1:]


def in_words(who: str, results: Sequence[Result]) -> str:
    """Say what became of one or several runs: the jobs, the longest time, all the refusals."""
    jobs = sum(result.jobs for result in results)
    failed = sum(result.failed for result in results)
    fate = f"lost {failed} of {jobs} jobs" if failed else "did every job"
    refused = sum(result.refused for result in results)
    refusals = f"{refused or 'no'} refusal{'' if refused == 1 else 's'}"
    return f"{who} {fate} in {_time(results)}, with {refusals}"


def _time(results: Sequence[Result]) -> str:
    at_most = "at most " if len(results) > 1 else ""
    ratios = [result.ratio for result in results if result.ratio is not None]
    # The ideal is no measure of jobs that were given up.
    if len(ratios) < len(results) or any(result.gave_up for result in results):
        return f"{at_most}{max(result.seconds for result in results):.1f} s"
    return f"{at_most}{max(ratios):.2f} times the ideal time"
