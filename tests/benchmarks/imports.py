"""What `import ratekit` costs a program, and what it does not bring along.

Fresh interpreters, many of them. Each imports dataclasses, logging and cachetools, which ratekit
needs and most programs have, and then times what `import ratekit` takes beyond that, in CPU time,
so that other programs do not count. Beside it the same question to other rate limiters, and by the
clock whole interpreters with and without ratekit, all in turn. The compiled files are there, as
they are wherever something is installed: a first round, which does not count, writes them.

Promised: at most 25 ms over the three, and none of the optional libraries.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import ratekit
from tests.benchmarks.measure import (
    Finding,
    Settings,
    installed,
    interleave,
    load,
    middle,
    print_table,
)

__all__ = ["run"]

_EXTRAS = ["requests", "httpx", "httpx2", "urllib3", "pymemcache", "click", "rich"]
_BEFORE = "import dataclasses, logging, cachetools"
_TIMED = """
import dataclasses, logging, cachetools
import sys, time
began = time.process_time()
import {module}
spent = time.process_time() - began
print('["', spent, '", "', ' '.join(sys.modules), '"]', sep='')
"""


class _Interpreters:
    """Fresh interpreters that keep their compiled files in `cache`."""

    def __init__(self, cache: str) -> None:
        # A checkout that is not installed is found where this process found it.
        path = os.pathsep.join([*sys.path[1:], str(Path(ratekit.__file__).parents[1])])
        self.env = {**os.environ, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": cache}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(self, code: str) -> str:
        """Return what `code` prints."""
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=self.env
        )
        return done.stdout

    def brought_by(self, module: str) -> tuple[float, set[str]]:
        """Return the CPU milliseconds of importing `module`, and all that is imported after it."""
        spent, modules = json.loads(self.run(_TIMED.format(module=module)))
        return float(spent) * 1000, set(modules.split())

    def import_of(self, module: str) -> float:
        """Return the CPU milliseconds of importing `module`."""
        return self.brought_by(module)[0]

    def whole(self, code: str) -> float:
        """Return the milliseconds that an interpreter takes in all."""
        began = time.perf_counter()
        self.run(code)
        return (time.perf_counter() - began) * 1000


def run(settings: Settings) -> list[Finding]:
    """Time imports in fresh interpreters."""
    rivals = ["limits", "pyrate_limiter", "throttled", "nopanic"]
    modules = ["ratekit", *(module for module in rivals if installed(module))]
    with tempfile.TemporaryDirectory() as cache:
        fresh = _Interpreters(cache)
        subjects = {f"import {module}": partial(fresh.import_of, module) for module in modules} | {
            "a whole interpreter, without": partial(fresh.whole, _BEFORE),
            "a whole interpreter, with ratekit": partial(fresh.whole, f"{_BEFORE}, ratekit"),
        }
        times = interleave(subjects, settings.pick(40, 8))
        brought = sorted(fresh.brought_by("ratekit")[1].intersection(_EXTRAS))
    print(f"over {_BEFORE!r}, ms; load average {load()}")
    rows = [[name, f"{min(made):.1f}", f"{middle(made):.1f}"] for name, made in times.items()]
    print_table(["", "min", "median"], rows)
    print(f"optional libraries that came along: {', '.join(brought) or 'none'}")
    return [
        Finding("import ratekit", middle(times["import ratekit"]), 25, "ms"),
        Finding("optional libraries imported", len(brought), 0),
    ]
