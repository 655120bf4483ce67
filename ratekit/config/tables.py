"""The settings as tables: for the docs, and for a terminal."""

import textwrap
from collections.abc import Iterable

from ratekit.config.fields import SETTINGS, Config
from ratekit.config.setting import Setting

__all__ = ["aligned", "in_force", "markdown", "short"]

WIDTH = 80
_GAP = "  "


def markdown() -> str:
    """Return the table of every variable, as the docs have it."""
    rows = [("variable", "what it takes", "default", "what it sets")]
    rows += [
        (f"`RATEKIT_{name.upper()}`", one.kind.right, _default(one), one.about)
        for name, one in SETTINGS.items()
    ]
    file = "a file of settings, with sections for hosts"
    rows.append(("`RATEKIT_CONFIG`", "the path of a TOML file", "none", file))
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---|---|---|---|", *lines[1:]])


def _default(one: Setting) -> str:
    return one.show(one.default)


def in_force(config: Config, file: str = "") -> str:
    """Return every value that is in force, and where it came from; then the hosts' own.

    `file`: the path of the file that was read.
    """
    rows = [
        (name, config.shown(name).replace("`", ""), _source(config, name, file))
        for name in SETTINGS
    ]
    parts = [f"file: {file}"] if file else []
    parts.append(aligned(rows))
    for pattern, values in config.hosts.items():
        its = config.for_host(pattern)
        rows = [(name, its.shown(name), _source(its, name, file)) for name in values]
        parts += [f'host "{pattern}"', aligned(rows) if rows else "(nothing of its own)"]
    return "\n\n".join(parts)


def _source(config: Config, name: str, file: str) -> str:
    return short(config.source(name) or "default", file)


def short(source: str, file: str) -> str:
    """Return a source with "file" in the place of the file's path."""
    return f"file{source.removeprefix(file)}" if file and source.startswith(file) else source


def aligned(rows: Iterable[tuple[str, ...]], width: int = WIDTH) -> str:
    """Return rows in columns, none of which makes a line longer than `width`."""
    rows = list(rows)
    first = max(len(row[0]) for row in rows)
    rest = len(rows[0]) - 1
    room = (width - first - rest * len(_GAP)) // rest
    widths = [first, *[room] * rest]
    lines = []
    for row in rows:
        cells = [
            textwrap.wrap(cell, room, break_on_hyphens=False) or [""]
            for cell, room in zip(row, widths, strict=True)
        ]
        for number in range(max(map(len, cells))):
            texts = [cell[number] if number < len(cell) else "" for cell in cells]
            padded = (text.ljust(room) for text, room in zip(texts, widths, strict=True))
            lines.append(_GAP.join(padded).rstrip())
    return "\n".join(lines)
