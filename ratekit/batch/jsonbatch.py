"""JsonBatch: the bulk endpoint that many JSON APIs have, over a session or client of any kind.

POST {"requests": [{"id": "0", "endpoint": "users/1", "params": {}}, ...]}
  -> {"responses": [{"id": "0", "data": ...}, {"id": "1", "error": ...}, ...]}
"""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, NamedTuple, Self

from ratekit._options import NONE, Options
from ratekit.batch.batcher import Batcher
from ratekit.batch.errors import BatchError, ItemError, MissingAnswer, shown
from ratekit.clock import SYSTEM, Clock
from ratekit.errors import ConfigurationError

__all__ = ["JsonBatch"]

Params = Mapping[str, Any] | None


class _Item(NamedTuple):
    """What one caller asks: the parameters as JSON, so that equal ones are equal."""

    endpoint: str
    params: str


class JsonBatch:
    """Asks a bulk endpoint for what many threads ask for one by one.

    `client` is a `requests.Session`, a `Client` of httpx or httpx2, or whatever has their
    `post(url, json=...)`; `post` holds further arguments for it, such as `headers`. `options` hold
    for every bulk call: `options(retry=True)` where a repeat does no harm. The others are those of
    `Batcher`, which is there as `batcher`, with `flush`, `close` and `info`.

    An item's error reaches its caller as `ItemError`, no answer at all as `MissingAnswer`. A bad
    status is the client's own error for all of the batch, but 413 halves it. Answers may come in
    any order. Raises `ConfigurationError` for what cannot be right.
    """

    def __init__(
        self,
        client: Any,
        url: str,
        *,
        post: Mapping[str, Any] | None = None,
        options: Options = NONE,
        max_size: int = 100,
        max_delay: float = 0.01,
        merge: bool = True,
        max_parallel: int | None = None,
        max_waiting: int = 10_000,
        clock: Clock = SYSTEM,
    ) -> None:
        if not callable(getattr(client, "post", None)):
            raise ConfigurationError(
                f"client {client!r}: use a requests.Session, or a Client of httpx or httpx2"
            )
        if not isinstance(options, Options):
            raise ConfigurationError(f"options {options!r}: use ratekit.options(...)")
        self._client = client
        self._url = url
        self._post = dict(post or {})
        self._options = options
        self.batcher: Batcher[_Item, Any] = Batcher(
            self._send_many,
            max_size=max_size,
            max_delay=max_delay,
            merge=merge,
            max_parallel=max_parallel,
            max_waiting=max_waiting,
            clock=clock,
        )

    def load(
        self,
        endpoint: str,
        params: Params = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
    ) -> Any:
        """Return the `data` for an endpoint; `timeout` and `priority` as in `Batcher.load`."""
        return self.batcher.load(_item(endpoint, params), timeout, priority)

    def load_many(
        self,
        requests: Iterable[str | tuple[str, Params]],
        *,
        timeout: float | None = None,
        priority: int = 0,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Return the `data` for endpoints, or for (endpoint, params), as `Batcher.load_many`."""
        items = [_item(one, None) if isinstance(one, str) else _item(*one) for one in requests]
        return self.batcher.load_many(items, timeout, priority, return_exceptions=return_exceptions)

    def submit(self, endpoint: str, params: Params = None, *, priority: int = 0) -> Future[Any]:
        """Return a future of the `data` for an endpoint, as `Batcher.submit`."""
        return self.batcher.submit(_item(endpoint, params), priority)

    def close(self) -> None:
        """Send what waits, and take no more; the client stays open."""
        self.batcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.batcher.__exit__(kind, error, trace)

    def _send_many(self, items: list[_Item]) -> list[Any]:
        requests = [
            {"id": str(number), "endpoint": item.endpoint, "params": json.loads(item.params)}
            for number, item in enumerate(items)
        ]
        with self._options:
            response = self._client.post(self._url, json={"requests": requests}, **self._post)
        response.raise_for_status()
        try:
            content = response.json()
        except ValueError as error:
            raise BatchError("the answer to a bulk call is no JSON") from error
        return _answers_of(items, content)

    def __repr__(self) -> str:
        return f"JsonBatch({self.batcher!r})"


def _item(endpoint: str, params: Params) -> _Item:
    """Return an item; what is no JSON is the error of its caller, and of nobody else."""
    if not isinstance(endpoint, str):
        raise ConfigurationError(f"endpoint {endpoint!r}: use text, such as 'users/1'")
    try:
        text = json.dumps(dict(params or {}), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"params of {endpoint!r}: use a mapping of text to what JSON can say ({error})"
        ) from error
    return _Item(endpoint, text)


def _answers_of(items: list[_Item], content: object) -> list[Any]:
    """Return what was answered to each item: its data, or an exception."""
    responses = content.get("responses") if isinstance(content, Mapping) else None
    if not isinstance(responses, list):
        raise BatchError(
            f'the answer to a bulk call is {shown(content)}: {{"responses": [...]}} is expected'
        )
    found: dict[str, list[Mapping[str, Any]]] = {}
    for response in responses:
        if isinstance(response, Mapping):
            found.setdefault(str(response.get("id")), []).append(response)
    return [_answer_of(item, found.get(str(number), [])) for number, item in enumerate(items)]


def _answer_of(item: _Item, responses: list[Mapping[str, Any]]) -> Any:
    what = f"{item.endpoint} with {shown(item.params)}"
    if not responses:
        return MissingAnswer(f"the bulk call has no answer for {what}", item=item)
    if len(responses) > 1:
        return BatchError(f"the bulk call has {len(responses)} answers for {what}")
    response = responses[0]
    error = response.get("error")
    if error is not None:
        return ItemError(f"{what}: {shown(error)}", item=item, error=error)
    if "data" not in response:
        return BatchError(f"the bulk call has neither data nor error for {what}")
    return response["data"]
