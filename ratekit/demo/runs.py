"""The runs: one server, and the same job once for each client."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

from ratekit.demo.clients import Way, ways
from ratekit.demo.job import Job
from ratekit.demo.report import Plan, Result, full_name, ideal_seconds
from ratekit.demo.screen import Progress, Screen
from ratekit.testing import ApiServer

__all__ = ["run_all"]


def run_all(plan: Plan, screen: Screen) -> list[Result]:
    """Do the job with every client in turn, shown on `screen`.

    The server is a child process, so that the busy threads here do not disturb its clock; it
    has ended when this returns or raises.
    """
    clients = ways()
    server = ApiServer(plan.rate, plan.burst, noise=plan.noise, seed=plan.seed, process=True)
    try:
        with _interrupts_later():
            server.start()
        with _quiet(), screen:
            return [_run(plan, way, server, screen) for way in clients]
    finally:
        server.stop()


def _run(plan: Plan, way: Way, server: ApiServer, screen: Screen) -> Result:
    server.reset()
    with way.open(plan) as get:
        job = Job(server.url, plan.jobs, get)

        def watch(seconds: float) -> None:
            screen.show(Progress(job.done, job.failed, server.requests, seconds))

        screen.begin(full_name(way.client, way.helper))
        seconds = job.run(plan.threads, watch)
    seen = server.stats()
    screen.end(Progress(job.done, job.failed, seen.requests, seconds))
    return Result(
        client=way.client,
        helper=way.helper,
        jobs=plan.jobs,
        seconds=seconds,
        ideal=ideal_seconds(plan, seen.noise),
        refused=seen.refused,
        requests=seen.requests,
        failed=job.failed,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what libraries log and warn of off the screen."""
    # With any handler at the root, logging does not print what nobody else takes.
    nowhere = logging.NullHandler()
    logging.getLogger().addHandler(nowhere)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        logging.getLogger().removeHandler(nowhere)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Let Ctrl-C wait until the block is over.

    It reaches child processes too, and one that has only begun to start prints a traceback. A
    blocked signal stays blocked in them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # multiprocessing starts this on its own otherwise, and lets signals through again after it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
