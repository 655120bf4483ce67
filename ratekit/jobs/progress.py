"""How far a bulk job is: done, failed, the rate against the limit, and the time that is left."""

import sys
from typing import Any, TextIO

from ratekit.clock import SECOND, SYSTEM, Clock
from ratekit.jobs.work import Result

__all__ = ["Progress", "Silence", "progress_for"]

# A bar is drawn so often at most, and a line written.
_DRAW_NS = SECOND // 10
_SAY_NS = 10 * SECOND
# The rate of now is that of so many seconds.
_WINDOW_NS = 5 * SECOND


def progress_for(client: Any) -> "Progress":
    """Return the progress of work over a client, whose pipeline knows the limit."""
    return Progress(pipeline=_pipeline_of(client))


def _pipeline_of(client: Any) -> Any:
    adapters = getattr(client, "adapters", None)
    found = list(adapters.values()) if isinstance(adapters, dict) else []
    found += [getattr(client, "_transport", None), *getattr(client, "_mounts", {}).values()]
    return next((one.pipeline for one in found if hasattr(one, "pipeline")), None)


class Silence:
    """Tells nothing."""

    def begin(self, total: int | None) -> None:
        """Do nothing."""

    def add(self, result: Result) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class Progress:
    """Tells how far it is: a bar on a terminal where rich is installed, else a line now and then.

    `pipeline`: whose limit the time left is computed from. Used by one thread: that which reads the
    results.
    """

    def __init__(
        self, *, pipeline: Any = None, file: TextIO | None = None, clock: Clock = SYSTEM
    ) -> None:
        self._pipeline = pipeline
        self._file = sys.stderr if file is None else file
        self._clock = clock
        self._bar: Any = None
        self._task: Any = None

    def begin(self, total: int | None) -> None:
        """Begin to count."""
        self.total = total
        self.done = self.failed = self.saved = 0
        self._marks = [(self._clock.now_ns(), 0)]
        self._said_at = self._clock.now_ns()
        if self._file.isatty():
            self._bar, self._task = _bar_for(self._file, total)

    def add(self, result: Result) -> None:
        """Count a result."""
        self.done += 1
        self.failed += not result.ok
        self.saved += result.saved
        now = self._clock.now_ns()
        if now - self._said_at >= (_SAY_NS if self._bar is None else _DRAW_NS):
            self._said_at = now
            self._say(now)

    def end(self) -> None:
        """Say what came of it all."""
        self._say(self._clock.now_ns())
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say(self, now: int) -> None:
        words = self.words(now)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, words=words, refresh=True)
        else:
            of = "" if self.total is None else f" of {self.total}"
            self._file.write(f"{self.done}{of} done, {words}\n")
            self._file.flush()

    def words(self, now: int) -> str:
        """Return what there is to say beside how many are done."""
        rate = self._rate(now)
        limit, held = self._limit()
        said = [f"{self.failed} failed"]
        if self.saved:
            said.append(f"{self.saved} from before")
        said.append(f"{rate:.1f}/s" if limit is None else f"{rate:.1f} of {limit:.4g}/s")
        if held > 0:
            said.append(f"the server asked for a pause of {_time(held)}")
        left = None if self.total is None else self.total - self.done
        pace = rate if limit is None else min(limit, rate or limit) if limit > 2 * rate else limit
        if left and pace > 0:
            said.append(f"{_time(left / pace + held)} left")
        return ", ".join(said)

    def _rate(self, now: int) -> float:
        """Return how many were done a second of late."""
        fresh = self.done - self.saved
        self._marks.append((now, fresh))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _WINDOW_NS:
            del self._marks[0]
        since, before = self._marks[0]
        return (fresh - before) * SECOND / max(1, now - since)

    def _limit(self) -> tuple[float | None, float]:
        """Return the permits a second of the busiest key, and for how long it is held."""
        stats = {} if self._pipeline is None else self._pipeline.stats()
        if not stats:
            return None, 0.0
        about = max(stats.values(), key=lambda one: one["calls"])
        return about.get("per_second"), about.get("held_for") or 0.0


def _bar_for(file: TextIO, total: int | None) -> tuple[Any, Any]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar
    except ModuleNotFoundError:
        return None, None
    columns = (BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    # No thread of its own: it is drawn when there is something new.
    bar = Bar(*columns, console=Console(file=file), auto_refresh=False)
    task = bar.add_task("", total=total, words="")
    bar.start()
    return bar, task


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
