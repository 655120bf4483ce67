"""Programs of their own: for what one cannot do to the process that runs the tests."""

import os
import signal
import subprocess
import sys
from typing import Any

__all__ = ["PRELUDE", "interrupt", "run", "start"]

PATIENCE = 30.0  # seconds for what takes one at most

PRELUDE = """
import os, signal, sys, threading, time
import requests, httpx, httpx2
import ratekit
from ratekit import *
from ratekit.clock import SYSTEM

url, name = sys.argv[1:]
# Started by a shell in the background, a program would ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def client_on(transport):
    if name == "requests":
        session = requests.Session()
        session.mount("http://", transport)
        return session
    return sys.modules[name].Client(transport=transport)

def transport_on(pipeline, wrapped=False):
    if name == "requests":
        from ratekit.requests import RateKitAdapter
        inner = requests.adapters.HTTPAdapter() if wrapped else None
        return RateKitAdapter(pipeline, adapter=inner)
    ours = __import__("ratekit." + name, fromlist=["RateKitTransport"])
    inner = sys.modules[name].HTTPTransport() if wrapped else None
    return ours.RateKitTransport(pipeline, transport=inner)

def until(condition):
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)

def say(*words):
    print(*words, flush=True)
"""


def start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a program: `PRELUDE`, then `script`."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _end(process: "subprocess.Popen[Any]") -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it does not end: {out}\n{err}") from None
    return process.returncode, out, err


def run(script: str, *arguments: str) -> tuple[int, str, str]:
    """Run a program to its end; return its exit code, output and errors."""
    return _end(start(script, *arguments))


def interrupt(script: str, *arguments: str) -> tuple[int, str, str]:
    """Run a program, and press Ctrl-C once it has said something."""
    process = start(script, *arguments)
    assert process.stdout is not None
    said = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    code, out, err = _end(process)
    return code, said + out, err
