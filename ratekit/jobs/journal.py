"""What is done, in a file: so that a job that was ended can go on where it was."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratekit.errors import ConfigurationError
from ratekit.jobs.work import Result, label_of

__all__ = ["Journal", "Saved"]

_TABLE = """
create table if not exists done (
    key text primary key, label text not null, ok integer not null, kind text not null,
    status integer, headers text, value blob, error text, attempts integer, waited real
) without rowid
"""
_VERSION = 1
# A longer body is noted as done, and not kept.
_LONGEST = 4 << 20
# Of the headers of an answer these are kept: what says how to read the body.
_KEPT = ("content-type", "etag", "last-modified", "link", "location")


@dataclass(frozen=True, slots=True)
class Saved:
    """An answer that was read back from a journal; None for a body that was too long to keep."""

    status_code: int
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None

    @property
    def text(self) -> str:
        """The body as text."""
        return (self.content or b"").decode("utf-8", "replace")

    def json(self) -> Any:
        """Return what the body says as JSON."""
        return json.loads(self.content or b"")


class SavedError(Exception):
    """What an earlier run failed with: its name and message."""


class Journal:
    """Keeps the results of jobs in a sqlite file, by a hash of the request.

    What was kept is there after the process was killed. Neither URLs' queries nor headers that were
    sent are in it. Raises `ConfigurationError` for a file that is no journal.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        problem = self._open()
        if problem:
            self._database.close()
            raise ConfigurationError(f"{path}: {problem}; name another file")

    def _open(self) -> str:
        """Make the table; return what keeps this file from being a journal."""
        database = self._database
        try:
            (version,) = database.execute("pragma user_version").fetchone()
            (tables,) = database.execute("select count(*) from sqlite_master").fetchone()
            if version != _VERSION and (version or tables):
                return "it is a database, but no journal of this version"
            database.execute("pragma journal_mode = wal")
            database.execute("pragma synchronous = normal")
            database.execute(f"pragma user_version = {_VERSION}")
            database.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            return f"it is no journal ({error})"
        return ""

    def keep(self, results: list[tuple[str, Result]]) -> None:
        """Keep results, all or none. Raises `ConfigurationError` for a value it cannot keep."""
        rows = [(key, label_of(result.request), *_row(result)) for key, result in results]
        with self._lock:
            self._database.execute("begin")
            try:
                self._database.executemany(
                    "insert or replace into done values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
                )
            except BaseException:
                self._database.execute("rollback")
                raise
            self._database.execute("commit")

    def find(self, key: str, request: Any) -> Result | None:
        """Return what came of a job that succeeded, None for one that is yet to be done."""
        with self._lock:
            row = self._database.execute(
                "select ok, kind, status, headers, value, error, attempts, waited from done "
                "where key = ? and ok",
                (key,),
            ).fetchone()
        return None if row is None else _result(request, row)

    def results(self) -> Iterator[Result]:
        """Read back every result; `request` is what the job was called."""
        last = ""
        while True:
            with self._lock:
                rows = self._database.execute(
                    "select key, label, ok, kind, status, headers, value, error, attempts, waited "
                    "from done where key > ? order by key limit 500",
                    (last,),
                ).fetchall()
            if not rows:
                return
            for key, label, *row in rows:
                yield _result(label, row)
                last = key

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._database.execute("select count(*) from done where ok").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()


def _row(result: Result) -> tuple[Any, ...]:
    error = None
    if result.error is not None:
        error = f"{type(result.error).__name__}: {result.error}"
    value = result.value
    status = getattr(value, "status_code", None)
    about = (error, result.attempts, result.waited)
    if isinstance(status, int):
        fields = {name: value.headers[name] for name in _KEPT if name in value.headers}
        content = value.content
        kept = content if len(content) <= _LONGEST else None
        return int(result.ok), "answer", status, json.dumps(fields), kept, *about
    if isinstance(value, bytes):
        return int(result.ok), "bytes", None, None, value, *about
    try:
        text = json.dumps(value)
    except (TypeError, ValueError) as problem:
        raise ConfigurationError(
            f"a journal cannot keep {type(value).__name__!r}: let `parse` return what json.dumps "
            "takes, or bytes"
        ) from problem
    return int(result.ok), "json", None, None, text.encode(), *about


def _result(request: Any, row: Any) -> Result:
    ok, kind, status, headers, value, error, attempts, waited = row
    made: Any = value
    if kind == "answer":
        made = Saved(status, json.loads(headers), value)
    elif kind == "json":
        made = json.loads(value)
    problem = None if error is None else SavedError(error)
    return Result(request, bool(ok), made, problem, attempts, waited, saved=True)
