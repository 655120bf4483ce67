"""The command `ratekit`; what it needs beyond the library comes with the extra `cli`."""

import sys
from typing import TYPE_CHECKING

import ratekit

if TYPE_CHECKING:
    import click

__all__ = ["commands", "main"]

INSTALL = "pip install 'ratekit[cli,requests,httpx]'"
# What the extras named there bring. Any other module that is missing is a fault of ours.
EXTRAS = {"click", "httpx", "httpx2", "pymemcache", "requests", "rich"}

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


def commands() -> "click.Group":
    """Return the command with all its subcommands. Raises ModuleNotFoundError without click."""
    import click

    from ratekit.demo.command import demo
    from ratekit.doctor import doctor, status
    from ratekit.explain import config, explain
    from ratekit.fetch import fetch
    from ratekit.run import run

    group = click.Group(
        "ratekit", help="Rate limits, retries and pacing for other people's HTTP APIs."
    )
    group.add_command(demo)
    group.add_command(doctor())
    group.add_command(status())
    group.add_command(config())
    group.add_command(explain())
    group.add_command(run())
    group.add_command(fetch())
    versioned: click.Group = click.version_option(
        ratekit.__version__, prog_name="ratekit", message="%(prog)s %(version)s"
    )(group)
    return versioned


def main() -> None:
    """Run the command on the program's own arguments, and exit."""
    try:
        sys.exit(_run())
    except ModuleNotFoundError as missing:
        library = (missing.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        sys.stderr.write(f"ratekit: {library} is not installed; install it with: {INSTALL}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run() -> int:
    group = commands()
    import click

    try:
        # Not click's standalone mode: that would exit with 1 after Ctrl-C.
        code = group.main(prog_name="ratekit", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        sys.stderr.write("Stopped.\n")
        return INTERRUPTED
    return code if isinstance(code, int) else 0
