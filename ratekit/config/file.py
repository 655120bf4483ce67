"""The file: TOML, whose top level holds for every host and whose sections hold for one.

limit = "100/minute"

[host."api.example.com"]
limit = "10/second"
"""

import tomllib
from pathlib import Path
from typing import Any

from ratekit.config.fields import SETTINGS
from ratekit.config.hosts import pattern_of
from ratekit.config.setting import Source, nearest
from ratekit.errors import ConfigurationError

__all__ = ["read_file"]

_MOST_BYTES = 1 << 20

Values = dict[str, Any]


def read_file(
    path: str, label: str
) -> tuple[Values, dict[str, Values], dict[tuple[str, str], Source]]:
    """Return the top level, the sections by host, and where each value stands.

    `label`: who named the file. Raises `ConfigurationError` that names the file, the section and
    the key.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ConfigurationError(
                f"{label} {path!r}: longer than 1 MiB; name a file of settings"
            )
        table = tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigurationError(
            f"{label} {path!r}: {error.strerror or error}; name a TOML file that can be read"
        ) from error
    except ValueError as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(
            f'{path}: {error}; use TOML, such as limit = "100/minute"'
        ) from error
    sources: dict[tuple[str, str], Source] = {}
    hosts = table.pop("host", {})
    if not isinstance(hosts, dict):
        raise ConfigurationError(f'{path}: host: use sections, such as [host."api.example.com"]')
    sections: dict[str, Values] = {}
    for given, section in hosts.items():
        where = f'{path} [host."{given}"]'
        if not isinstance(section, dict):
            raise ConfigurationError(f"{where}: use a section, and quotes around the host's name")
        try:
            pattern = pattern_of(given)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error
        if pattern in sections:
            raise ConfigurationError(f"{where}: this host has a section already; use one")
        sections[pattern] = section
        sources |= _places(where, pattern, section)
    sources |= _places(path, "", table)
    return table, sections, sources


def _places(where: str, pattern: str, table: Values) -> dict[tuple[str, str], Source]:
    for name, value in table.items():
        if name not in SETTINGS:
            # Without its quotes a host's name is several tables, one inside the other.
            quotes = pattern and isinstance(value, dict)
            hint = f'; write the host in quotes: [host."{pattern}.{name}"]' if quotes else None
            raise ConfigurationError(
                f"{where}: {name}: no such setting{hint or nearest(name, [*SETTINGS, 'host'])}"
            )
    return {(pattern, name): Source(where, f"{where}: {name}") for name in table}
