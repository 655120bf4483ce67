"""What is seen: how far each run has come, and the table of what they came to.

A screen is told of a run by `begin`, then `show` about ten times a second, then `end`.
"""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from ratekit.demo.report import Plan, Result, closing_sentence

__all__ = ["Bars", "Lines", "Progress", "Screen", "print_plan", "print_results", "screen_for"]

_LINE_EVERY = 5.0  # seconds, where there is no terminal


class Progress(NamedTuple):
    """How far a run has come: jobs, what the server saw, seconds."""

    done: int
    failed: int
    requests: int
    seconds: float

    @property
    def pace(self) -> float:
        """Requests a second that the server saw, on average."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0


class Screen:
    """Shows nothing: for output that a program reads."""

    def begin(self, name: str) -> None:
        """Show that a run begins."""

    def show(self, progress: Progress) -> None:
        """Show how far it has come."""

    def end(self, progress: Progress) -> None:
        """Show what it came to."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


class Lines(Screen):
    """A line now and then: for a file or a pipe."""

    def __init__(self, console: Console, jobs: int) -> None:
        self._console = console
        self._jobs = jobs
        self._name = ""
        self._next = 0.0

    def begin(self, name: str) -> None:
        """Remember whose lines follow."""
        self._name = name
        self._next = _LINE_EVERY

    def show(self, progress: Progress) -> None:
        """Print a line if it is time for one."""
        if progress.seconds >= self._next:
            self._next += _LINE_EVERY
            self.end(progress)

    def end(self, progress: Progress) -> None:
        """Print a line."""
        self._console.print(
            f"{self._name}: {progress.done} of {self._jobs} done, {progress.failed} failed, "
            f"{progress.pace:.0f} requests/s, {progress.seconds:.1f} s",
            highlight=False,
            soft_wrap=True,
        )


class _Short:
    """A renderable that leaves the end of the line free.

    A terminal answers Ctrl-C with "^C" at the cursor. In a full line that would begin a new one,
    and what is drawn next would be a line too low.
    """

    def __init__(self, whole: RenderableType) -> None:
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self._whole, options.update_width(options.max_width - 3))


class _ShortBars(RichProgress):
    def get_renderables(self) -> Iterator[RenderableType]:
        yield _Short(self.make_tasks_table(self.tasks))


class Bars(Screen):
    """A moving bar for each run: for a terminal."""

    def __init__(self, console: Console, jobs: int) -> None:
        self._jobs = jobs
        self._bars = _ShortBars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", justify="right"),
            TextColumn("{task.fields[failed]}", justify="right"),
            TextColumn("{task.fields[pace]}", justify="right"),
            TextColumn("{task.fields[seconds]}", justify="right"),
            console=console,
            expand=True,
            # Drawn when there is news, by the thread that has it.
            auto_refresh=False,
        )
        self._bar = TaskID(0)

    def begin(self, name: str) -> None:
        """Add a bar."""
        self._bar = self._bars.add_task(name, total=self._jobs, **_fields(Progress(0, 0, 0, 0)))
        self._bars.refresh()

    def show(self, progress: Progress) -> None:
        """Move the bar."""
        self._bars.update(self._bar, completed=progress.done, **_fields(progress))
        self._bars.refresh()

    def end(self, progress: Progress) -> None:
        """Leave the bar as it is to stay."""
        self.show(progress)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()


def _fields(progress: Progress) -> dict[str, Any]:
    failed = f"{progress.failed} failed"
    return {
        "failed": f"[red]{failed}[/red]" if progress.failed else failed,
        "pace": f"{progress.pace:.0f} requests/s",
        "seconds": f"{progress.seconds:.1f} s",
    }


def screen_for(console: Console, jobs: int) -> Screen:
    """Return bars for a terminal that can move its cursor, and lines for anything else."""
    # Asked of the file itself: FORCE_COLOR makes rich take a pipe for a terminal.
    moves = console.file.isatty() and not console.is_dumb_terminal
    return Bars(console, jobs) if moves else Lines(console, jobs)


def print_plan(console: Console, plan: Plan) -> None:
    """Say what is about to be done."""
    failing = f", and 503 to {100 * plan.noise:g} % of those admitted" if plan.noise else ""
    console.print(
        f"A server on this machine admits {plan.rate} requests a second (burst {plan.burst}). It "
        f"answers 429 to any more{failing}. The job: {plan.jobs} GETs from {plan.threads} "
        f"thread{'' if plan.threads == 1 else 's'}, once with each client.\n",
        highlight=False,
    )


def print_results(console: Console, plan: Plan, results: Sequence[Result]) -> None:
    """Print the table and the sentence that closes it."""
    # As narrow as it reads well: it must fit 80 columns.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("client")
    for title in ("wall time", "vs ideal", "refusals", "requests", "failed jobs"):
        table.add_column(title, justify="right")
    for result in results:
        table.add_row(
            Text(result.name, style="bold" if result.helper == "ratekit" else ""),
            f"{result.seconds:.1f} s",
            _ratio(result),
            str(result.refused),
            str(result.requests),
            Text(str(result.failed), style="red" if result.failed else "green"),
        )
    console.print()
    console.print(table)
    console.print(f"\n{_footnote(results)}\n", style="dim", highlight=False)
    console.print(closing_sentence(results), highlight=False)


def _ratio(result: Result) -> str:
    return "-" if result.ratio is None or result.gave_up else f"{result.ratio:.2f}x"


def _footnote(results: Sequence[Result]) -> str:
    ideal = max(result.ideal for result in results)
    note = f"ideal: (jobs + retries of 503s - burst) / rate, here about {ideal:.1f} s"
    if any(result.gave_up for result in results):
        note += "; -: sooner, with jobs given up"
    return note
