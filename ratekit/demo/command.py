"""`ratekit demo` as a command: its options, and what is printed where."""

import json
import math
from dataclasses import asdict

import click

import ratekit
from ratekit.demo.report import Plan, closing_sentence

__all__ = ["demo"]


def _a_number(_context: click.Context, _option: click.Parameter, value: float) -> float:
    # Not-a-number lies in every range: it compares false with both ends.
    if math.isnan(value):
        raise click.BadParameter("nan is not a number.")
    return value


@click.command(context_settings={"show_default": True})
@click.option("--jobs", type=click.IntRange(1, 100_000), default=800, help="GETs in each run.")
@click.option(
    "--rate", type=click.IntRange(1, 100_000), default=100, help="Requests a second it admits."
)
@click.option(
    "--burst", type=click.IntRange(1), default=20, help="Requests it admits at once; up to --rate."
)
@click.option("--threads", type=click.IntRange(1, 256), default=16, help="Threads of the client.")
@click.option(
    "--noise",
    type=click.FloatRange(0, 0.5),
    default=0.02,
    callback=_a_number,
    help="Fraction of the admitted requests that fail with 503.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Decides which of them fail.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON alone, when all is done.")
def demo(
    *, jobs: int, rate: int, burst: int, threads: int, noise: float, seed: int, as_json: bool
) -> None:
    """Do one job against a rate-limited server, with ratekit and without.

    The server runs on this machine, and the job is done four times: by plain requests, with
    urllib3's Retry, and by requests and httpx with ratekit.
    """
    if burst > rate:
        raise click.BadParameter(
            f"{burst} is more than the {rate} requests of a second (--rate).",
            param_hint="'--burst'",
        )
    # Imported here, so that --help and --version need no more than click.
    from rich.console import Console

    from ratekit.demo import runs, screen

    plan = Plan(jobs=jobs, rate=rate, burst=burst, threads=threads, noise=noise, seed=seed)
    console = Console()
    if not as_json:
        screen.print_plan(console, plan)
    try:
        results = runs.run_all(
            plan, screen.Screen() if as_json else screen.screen_for(console, plan.jobs)
        )
    except (OSError, RuntimeError) as error:  # the server could not start, or was ended
        raise click.ClickException(str(error)) from error
    if as_json:
        report = {
            "ratekit": ratekit.__version__,
            **asdict(plan),
            "runs": [result.figures() for result in results],
            "summary": closing_sentence(results),
        }
        click.echo(json.dumps(report, indent=2))
    else:
        screen.print_results(console, plan, results)
