"""Put the configured pipeline under every client of a program that does not know of ratekit.

Importing this module does it, with what the environment says (`Config.from_env()`): every
`requests.Session`, and every `httpx.Client` and `httpx2.Client` made from then on, sends through
it, those that SDKs make for themselves included. Their own adapters and transports stay underneath.
`uninstall()` undoes it.
"""

# ruff: noqa: SLF001  (what is under a client is private, and the same in every version so far)
import functools
import importlib
import importlib.util
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ratekit.config import Config
from ratekit.config.build import shared
from ratekit.policy import Pipeline

__all__ = ["install", "installed", "uninstall"]

_log = logging.getLogger("ratekit.auto")

_lock = threading.Lock()
# What undoes each patch, and the pipeline that they lead to.
_undo: list[Callable[[], None]] = []
_pipeline: Pipeline | None = None


def install(pipeline: Pipeline | None = None) -> Pipeline:
    """Put a pipeline under all clients, by default the environment's; return the one in force.

    A second time changes nothing. Raises `ConfigurationError` for an environment that cannot be
    right.
    """
    global _pipeline  # noqa: PLW0603  (one for a process, as the patched classes are)
    with _lock:
        if _pipeline is not None:
            return _pipeline
        chosen = shared(Config.from_env()) if pipeline is None else pipeline
        patched = []
        for library, patch in _PATCHES.items():
            if importlib.util.find_spec(library) is not None:
                _undo.append(patch(library, chosen))
                patched.append(library)
        _pipeline = chosen
    _log.info("%s: every client goes through %r", ", ".join(patched) or "nothing", chosen)
    return chosen


def installed() -> Pipeline | None:
    """Return the pipeline in force, None where there is none: `installed().stats()`."""
    return _pipeline


def uninstall() -> None:
    """Leave every client as it was."""
    global _pipeline  # noqa: PLW0603
    with _lock:
        while _undo:
            _undo.pop()()
        _pipeline = None


def _patch_requests(library: str, pipeline: Pipeline) -> Callable[[], None]:
    import requests
    from requests.adapters import HTTPAdapter

    from ratekit.requests import RateKitAdapter

    original = requests.Session.get_adapter
    wrapped: weakref.WeakSet[Any] = weakref.WeakSet()

    @functools.wraps(original)
    def get_adapter(self: requests.Session, url: str) -> Any:
        adapter: Any = original(self, url)
        if isinstance(adapter, RateKitAdapter):
            return adapter
        ours = getattr(adapter, "_ratekit", None)
        if ours is None:
            retries = getattr(adapter, "max_retries", None)
            if getattr(retries, "total", 0):
                _warn_of_retries(library)
                adapter._ratekit_retries = retries
                adapter.max_retries = HTTPAdapter().max_retries
            ours = adapter._ratekit = RateKitAdapter(pipeline, adapter=adapter)
            wrapped.add(adapter)
        return ours

    def undo() -> None:
        requests.Session.get_adapter = original  # type: ignore[method-assign]
        for adapter in wrapped:
            adapter.max_retries = vars(adapter).pop("_ratekit_retries", adapter.max_retries)
            vars(adapter).pop("_ratekit", None)

    requests.Session.get_adapter = get_adapter  # type: ignore[method-assign]
    return undo


def _patch_httpx(library: str, pipeline: Pipeline) -> Callable[[], None]:
    module: Any = importlib.import_module(library)
    ours: Any = importlib.import_module(f"ratekit.{library}").RateKitTransport
    client = module.Client
    original = client.__init__
    wrapped: weakref.WeakSet[Any] = weakref.WeakSet()

    def around(transport: Any) -> Any:
        if transport is None or isinstance(transport, ours):
            return transport
        pool: Any = getattr(transport, "_pool", None)
        if getattr(pool, "_retries", 0):
            _warn_of_retries(library)
            transport._ratekit_retries = pool._retries
            pool._retries = 0
        return ours(pipeline, transport=transport)

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._transport = around(self._transport)
        self._mounts = {pattern: around(mounted) for pattern, mounted in self._mounts.items()}
        wrapped.add(self)

    def inside(transport: Any) -> Any:
        if not isinstance(transport, ours) or transport.pipeline is not pipeline:
            return transport
        inner = transport.transport
        retries = vars(inner).pop("_ratekit_retries", None)
        if retries is not None:
            inner._pool._retries = retries
        return inner

    def undo() -> None:
        client.__init__ = original
        for one in wrapped:
            one._transport = inside(one._transport)
            one._mounts = {pattern: inside(mounted) for pattern, mounted in one._mounts.items()}

    client.__init__ = init
    return undo


def _warn_of_retries(library: str) -> None:
    _log.warning(
        "%s: a client retries below ratekit, unseen by the limit; that is switched off, since "
        "ratekit retries by itself",
        library,
    )


_PATCHES = {"requests": _patch_requests, "httpx": _patch_httpx, "httpx2": _patch_httpx}

install()
