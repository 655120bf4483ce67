"""What is shipped, what importing it costs, and which way its imports go."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest

import ratekit

PACKAGE = Path(ratekit.__file__).parent

# Whose imports go where: a module imports from its own layer or from those above it in this
# table, never from those below. A folder stands for all that is in it.
LAYERS = (
    {"checks", "clock", "errors", "forks"},
    {"events", "http", "quota", "stores"},
    {"_options", "backoff", "breaker", "budget", "cache", "call", "circuit", "concurrency"}
    | {"dedup", "fallback", "keys", "limits", "metrics", "observed", "policy"}
    | {"records", "retry"},
    {
        "__init__",
        "_edge",
        "_httpx_bodies",
        "_httpx_family",
        "_httpx_proxies",
        "_requests_bodies",
        "httpx",
        "httpx2",
        "requests",
    }
    | {"batch", "config", "jobs"},
    {"__main__", "auto", "cli", "demo", "doctor", "explain", "fetch", "run", "testing"},
)

# Which modules may import what others wrote. Everything else comes with Python.
OUTSIDE = {
    "cachetools": set[str]().union(*LAYERS),
    "click": {"cli", "fetch", "run", "demo", "doctor", "explain"},
    "httpcore": {"httpx"},
    "httpcore2": {"httpx2"},
    "httpx": {"httpx", "cli", "demo"},
    "httpx2": {"httpx2", "cli", "demo"},
    "opentelemetry": {"metrics.otel"},
    "prometheus_client": {"metrics.prometheus"},
    "pymemcache": {"stores.memcached.connection", "stores.memcached.store"},
    "requests": {"auto", "fetch", "requests", "_requests_bodies", "cli", "demo"},
    "rich": {"cli", "demo", "jobs.progress"},
    "urllib3": {"requests", "_requests_bodies", "cli", "demo"},
}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def python(code: str) -> set[str]:
    """Run `code` in a fresh interpreter where warnings are errors; return the words it prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    return set(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    )


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of all that is imported anywhere in `tree`, but for type checkers."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                continue
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, names, 0):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                pytest.fail(f"line {node.lineno}: say `from ratekit. ...`, not `from .`")
            case _:
                yield from imports(node)


def layer_of(name: str) -> int:
    """Return how far up a module stands: "stores.memory" where "stores" does."""
    for height, layer in enumerate(LAYERS):
        if name.partition(".")[0] in layer:
            return height
    pytest.fail(f"{name} stands in no layer: say in LAYERS which it belongs to")


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name: str) -> None:
    """A module imports nothing from a layer above its own, not even inside a function."""
    for imported in imports(ast.parse(MODULES[name].read_text())):
        whose, _, what = imported.partition(".")
        if whose == "ratekit":
            # `from ratekit import X` means the package itself, unless X is one of its modules.
            first = what.partition(".")[0]
            known = first in {module.partition(".")[0] for module in MODULES}
            target = what if known else "__init__"
            assert layer_of(target) <= layer_of(name), f"{name} imports {imported}"
        elif whose not in sys.stdlib_module_names:
            may = OUTSIDE.get(whose, set())
            assert {name, name.partition(".")[0]} & may, f"{name} imports {imported}"


def test_importing_ratekit_imports_no_optional_library() -> None:
    """`import ratekit` costs what it needs: no HTTP library, no client of a store, no terminal."""
    loaded = python("import sys, ratekit; print(*sys.modules)")
    assert loaded & (OUTSIDE.keys() - {"cachetools"}) == set()


@pytest.mark.parametrize("edge", ["requests", "httpx", "httpx2"])
def test_an_edge_imports_no_other_http_library(edge: str) -> None:
    """Who uses one HTTP library needs only that one installed."""
    loaded = python(f"import sys, ratekit.{edge}; print(*sys.modules)")
    assert loaded & {"requests", "httpx", "httpx2"} == {edge}


def test_a_star_import_brings_no_module() -> None:
    """`from ratekit import *` hides nobody's `requests` behind ours, also once ours is loaded."""
    brought = python(
        "import ratekit.requests, ratekit.httpx, ratekit.httpx2\n"
        "from ratekit import *\n"
        "names = dict(globals())\n"
        "names.pop('ratekit')\n"
        "print(*(n for n, value in names.items() if type(value) is type(__builtins__)))"
    )
    assert brought == {"__builtins__"}


def test_the_distribution_holds_the_package_and_its_types_and_no_tests() -> None:
    """What is installed is `ratekit/` with py.typed, the licence and the metadata; nothing else."""
    installed = metadata.distributions(name="ratekit")
    files = {path.as_posix() for each in installed for path in each.files or ()}
    if "ratekit/__init__.py" not in files:
        pytest.skip("ratekit is imported from a checkout; tox installs the wheel")
    assert "ratekit/py.typed" in files
    assert any(file.endswith("/licenses/LICENSE") for file in files)
    tops = {file.partition("/")[0] for file in files if not file.startswith("..")}
    assert tops == {"ratekit", f"ratekit-{metadata.version('ratekit')}.dist-info"}


def test_the_lowest_versions_promised_are_the_lowest_tested() -> None:
    """The group `lowest` pins each dependency to the bound that the project states for it."""
    settings = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    extras = settings["project"]["optional-dependencies"]
    shipped = [name for name in extras if name not in {"all", "test"}]
    bounds = [*settings["project"]["dependencies"], *chain(*(extras[name] for name in shipped))]
    pins = settings["dependency-groups"]["lowest"]
    assert sorted(pins) == sorted(bound.replace(">=", "==") for bound in bounds)
    assert extras["all"] == [f"ratekit[{','.join(shipped)}]"]
