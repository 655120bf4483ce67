"""`ratekit run`: a program as it is, with the configured pipeline under its clients."""

import runpy
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

    from ratekit.policy import Pipeline

__all__ = ["run"]


def run() -> "click.Command":
    """Return the command."""
    import click

    @click.command(
        "run",
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
        help="Run a Python program, with the pipeline that RATEKIT_ variables configure under "
        "every client that it or its SDKs make.",
    )
    @click.option("-m", "module", help="Run a module, as python -m does.")
    @click.option("--stats", is_flag=True, help="Print at the end what came of the calls.")
    @click.option("-q", "--quiet", is_flag=True, help="Do not say what is done.")
    @click.argument("program", nargs=-1, type=click.UNPROCESSED)
    def command(module: str | None, program: tuple[str, ...], *, stats: bool, quiet: bool) -> None:
        if module is None and not program:
            raise click.UsageError(
                "name a program: ratekit run script.py, or ratekit run -m module"
            )
        if module is None and not Path(program[0]).exists():
            raise click.UsageError(f"there is no program {program[0]!r}")
        pipeline = _installed()
        if not quiet:
            said = f"ratekit: requests, httpx and httpx2 go through {pipeline!r}"
            click.echo(f"{said} (ratekit config tells more)", err=True)
        try:
            _go(module, program)
        finally:
            if stats:
                click.echo(_table(pipeline), err=True)

    return command


def _installed() -> "Pipeline":
    import click

    from ratekit.errors import ConfigurationError

    try:
        from ratekit import auto
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    return auto.install()


def _go(module: str | None, program: tuple[str, ...]) -> None:
    """Run it as the interpreter does."""
    try:
        if module is not None:
            sys.argv = [module, *program]
            sys.path.insert(0, "")
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(program)
            script = Path(program[0])
            # Of a folder or an archive runpy does this itself.
            if script.is_file() and script.suffix == ".py":
                sys.path.insert(0, str(script.resolve().parent))
            runpy.run_path(str(script), run_name="__main__")
    except ModuleNotFoundError:
        # The program's own, and not one of ratekit's extras.
        traceback.print_exc()
        sys.exit(1)


def _table(pipeline: "Pipeline") -> str:
    """Return what came of the calls, as lines of text."""
    rows: list[tuple[str, ...]] = [
        ("", "calls", "attempts", "errors", "refused", "cached", "waited", "left")
    ]
    for key, about in pipeline.stats().items():
        left = about.get("permits_left")
        rows.append(
            (
                key,
                *(str(about[name]) for name in ("calls", "attempts", "errors", "refused")),
                str(about["cache_hits"] + about["collapsed"]),
                f"{about['waited']:.1f} s",
                "" if left is None else str(left),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
