"""The environment: one variable for each setting, over what a file says."""

import os
from collections.abc import Mapping
from typing import Any

from ratekit.config.fields import SETTINGS
from ratekit.config.file import read_file
from ratekit.config.setting import Source, nearest
from ratekit.errors import ConfigurationError

__all__ = ["FILE", "gather"]

FILE = "CONFIG"
"""The variable that names the file."""


def gather(
    prefix: str, environ: Mapping[str, str] | None, file: str | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a `Config`: settings over the environment over the file.

    A variable that is empty counts as not set. Raises `ConfigurationError` for names not known.
    """
    environ = os.environ if environ is None else environ
    names = {f"{prefix}{name.upper()}": name for name in SETTINGS}
    said: dict[str, Any] = {}
    # What is not set has a name, too, for those errors that say what to set.
    sources = {("", name): Source("", variable) for variable, name in names.items()}
    for variable, value in environ.items():
        if not variable.startswith(prefix) or variable == f"{prefix}{FILE}":
            continue
        if variable not in names:
            known = [*map(str.upper, SETTINGS), FILE]
            near = nearest(variable.removeprefix(prefix), known, prefix)
            raise ConfigurationError(f"{variable}: no such variable{near}")
        if value.strip():
            said[names[variable]] = value
            sources["", names[variable]] = Source(variable, variable)
    hosts = settings.pop("hosts", {})
    for name, value in settings.items():
        if name not in SETTINGS:
            raise ConfigurationError(f"{name}: no such setting{nearest(name, SETTINGS)}")
        said[name] = value
        sources["", name] = Source("in code", name)
    found: dict[str, Any] = {}
    path = file if file is not None else environ.get(f"{prefix}{FILE}", "").strip()
    if path:
        label = f"{prefix}{FILE}" if file is None else "file"
        found, sections, places = read_file(path, label)
        # A variable holds everywhere, and so does an argument.
        kept = {
            pattern: {name: value for name, value in section.items() if name not in said}
            for pattern, section in sections.items()
        }
        hosts = {**kept, **hosts}
        sources |= {place: where for place, where in places.items() if place[1] not in said}
    return {**found, **said, "hosts": hosts, "_sources": sources}
