"""`ratekit fetch`: many URLs from the shell, one line of JSON for each."""

import csv
import json
import os
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ratekit.errors import ConfigurationError

if TYPE_CHECKING:
    import click

__all__ = ["fetch"]

_FAILED = 1


def fetch() -> "click.Command":
    """Return the command."""
    import click

    @click.command(
        "fetch",
        help="Fetch every URL of FILE (one a line, or - for standard input), at the pace that the "
        "RATEKIT_ variables and --limit allow, and write a line of JSON for each.",
    )
    @click.argument("file", type=click.File(encoding="utf-8-sig"), default="-")
    @click.option("-o", "--output", type=click.Path(dir_okay=False), help="Where to write; by "
                  "default standard output.")  # fmt: skip
    @click.option("--resume", is_flag=True, help="Go on with an output that is there: what "
                  "succeeded is not fetched again.")  # fmt: skip
    @click.option("--template", help="Make a URL of each line: https://api.example.com/items/{id}, "
                  "with the column of a CSV file or {} for the line.")  # fmt: skip
    @click.option("--column", help="FILE is a CSV file with a header; the URL is in this column.")
    @click.option("-X", "--method", default="GET", show_default=True)
    @click.option("--headers", type=click.File(), help="A file with a header a line, Name: value.")
    @click.option("--limit", help="Such as 100/minute; in place of RATEKIT_LIMIT.")
    @click.option("--workers", type=click.IntRange(1), default=16, show_default=True)
    @click.option("--client", type=click.Choice(["requests", "httpx", "httpx2"]))
    @click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
    def command(file: TextIO, **given: Any) -> int:
        if given["resume"] and given["output"] is None:
            raise click.UsageError("--resume needs an --output to go on with")
        try:
            return _run(file, **given)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None
        except UnicodeDecodeError as error:
            raise click.UsageError(f"{file.name}: it is not UTF-8 ({error.reason})") from None
        except BrokenPipeError:
            # Whoever read the output wants no more of it.
            return _FAILED
        except OSError as error:
            raise click.UsageError(f"{error.filename}: {error.strerror}") from None

    return command


def _run(
    file: TextIO,
    *,
    output: str | None,
    resume: bool,
    template: str | None,
    column: str | None,
    method: str,
    headers: TextIO | None,
    limit: str | None,
    workers: int,
    client: str | None,
    quiet: bool,
) -> int:
    from ratekit.jobs import Jobs

    fields = _fields(headers)
    done: Counter[str] = Counter()
    if output is not None and Path(output).exists():
        done = _resumed(Path(output), resume=resume)
    total = None
    if file.seekable():
        # To know how many there are, it is read twice.
        total = sum(1 for _ in _urls(file, template, column)) - done.total()
        file.seek(0)
    urls = (url for url in _urls(file, template, column) if not _is_done(url, done))
    jobs = ({"method": method, "url": url, "headers": fields} for url in urls)
    failed = 0
    with (
        _client(client, limit) as session,
        Jobs(session, workers, progress=not quiet) as pool,
        _writer(output) as out,
    ):
        for result in pool.map(jobs, total=total):
            failed += not result.ok
            # One write: a line is there as a whole, or not at all, when the process is killed.
            out.write(f"{json.dumps(_line(result))}\n".encode())
    return _FAILED if failed else 0


def _is_done(url: str, done: Counter[str]) -> bool:
    """Return whether an earlier run has this one; a URL that stands there twice is done twice."""
    if not done[url]:
        return False
    done[url] -= 1
    return True


def _writer(output: str | None) -> Any:
    """Return an unbuffered file: what was answered is written when the process is killed."""
    if output is not None:
        return Path(output).open("ab", buffering=0)
    return os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)


def _fields(headers: TextIO | None) -> dict[str, str]:
    fields = {}
    for number, line in enumerate(headers or (), 1):
        name, colon, value = line.strip().partition(":")
        if colon and name:
            fields[name.strip()] = value.strip()
        elif line.strip():
            # Not the line itself: it may be a secret.
            raise ConfigurationError(f"--headers: line {number} is no header; use Name: value")
    return fields


def _urls(file: TextIO, template: str | None, column: str | None) -> Iterator[str]:
    """Yield the URLs of a file."""
    if column is None and not (template and _is_named(template)):
        for line in file:
            text = line.strip()
            if text and not text.startswith("#"):
                yield _filled(template, {"": text}) if template else text
        return
    rows = csv.DictReader(file)
    names = rows.fieldnames or []
    if column is not None and column not in names:
        raise ConfigurationError(f"--column {column}: the file has {', '.join(names)}")
    for row in rows:
        yield (
            _filled(template, {"": row.get(column or "", ""), **row})
            if template
            else row[column or ""]
        )


def _is_named(template: str) -> bool:
    """Return whether a template names columns."""
    return "{" in template.replace("{}", "")


def _filled(template: str, row: dict[str, str]) -> str:
    from urllib.parse import quote

    quoted = {name: quote(value or "", safe="") for name, value in row.items() if name is not None}
    try:
        return template.replace("{}", quoted[""]).format_map(quoted)
    except (KeyError, ValueError, IndexError) as error:
        known = ", ".join(name for name in row if name) or "only {}"
        raise ConfigurationError(
            f"--template {template}: {error} is not there; use one of: {known}"
        ) from None


def _resumed(output: Path, *, resume: bool) -> Counter[str]:
    """Return the URLs that an output has, and take out of it what is to be fetched again."""
    if not resume and output.stat().st_size:
        raise ConfigurationError(
            f"{output} is there already: go on with it by --resume, or name another --output"
        )
    done: Counter[str] = Counter()
    fresh = output.with_name(f"{output.name}.part")
    with output.open("rb") as old, fresh.open("wb") as new:
        for number, line in enumerate(old, 1):
            if not line.endswith(b"\n"):
                # It was killed while it wrote this one.
                break
            try:
                said = json.loads(line)
                url, ok = said["url"], said["ok"]
            except (ValueError, KeyError, TypeError):
                fresh.unlink()
                raise ConfigurationError(
                    f"{output}: line {number} is not of ratekit fetch; name another --output"
                ) from None
            if ok:
                done[url] += 1
                new.write(line)
    fresh.replace(output)
    return done


def _client(library: str | None, limit: str | None) -> Any:
    """Return a client of the library that is installed, with the configured pipeline."""
    from importlib.util import find_spec

    from ratekit.config import Config

    config = Config.from_env() if limit is None else Config.from_env(limit=limit)
    pipeline = config.pipeline()
    names = [library] if library else ["requests", "httpx2", "httpx"]
    found = next((name for name in names if find_spec(name) is not None), names[0])
    if found == "requests":
        import requests

        from ratekit.requests import RateKitAdapter

        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, RateKitAdapter(pipeline))
        return session
    from importlib import import_module

    transport = import_module(f"ratekit.{found}").RateKitTransport(pipeline)
    return import_module(found).Client(transport=transport, follow_redirects=True, timeout=30)


def _line(result: Any) -> dict[str, Any]:
    """Return what is written of a result."""
    said: dict[str, Any] = {"url": result.request["url"], "ok": result.ok}
    if result.error is not None:
        return {**said, "error": f"{type(result.error).__name__}: {result.error}"}
    answer = result.value
    said["status"] = answer.status_code
    content, kind = answer.content, answer.headers.get("content-type", "")
    if "json" in kind:
        try:
            return {**said, "body": json.loads(content)}
        except ValueError:
            pass
    try:
        return {**said, "body": content.decode()}
    except UnicodeDecodeError:
        return {**said, "body_base64": b64encode(content).decode()}
