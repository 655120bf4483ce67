"""Two small applications that a limiter guards, each under a real server on loopback."""

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager

import flask
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from werkzeug.serving import WSGIRequestHandler, make_server

from ratekit import RateLimiter

__all__ = ["FlaskSite", "Site", "StarletteSite"]

PLANS = {"ann": "free", "bob": "free", "vip": "premium", "odd": "platinum"}
LONGEST_STOP = 10.0  # seconds for what takes milliseconds


def whose(api_key: str | None, address: str) -> tuple[str, str | None]:
    """Return whose budget a request is charged to, and the tier: an account's, or the address's."""
    return (api_key, PLANS[api_key]) if api_key in PLANS else (address, None)


class Site(ABC):
    """A served application, whose guard asks `limiter`."""

    limiter: RateLimiter
    url: str

    @contextmanager
    @abstractmethod
    def serving(self) -> Iterator[None]:
        """Listen at `url` while the block runs; afterwards nothing of it is left."""


class FlaskSite(Site):
    """Flask under werkzeug's server, a thread for each connection."""

    def __init__(self) -> None:
        app = flask.Flask(__name__)

        @app.before_request
        def guard() -> tuple[dict[str, str], int] | None:
            key, tier = whose(
                flask.request.headers.get("X-Api-Key"), flask.request.remote_addr or ""
            )
            flask.g.decision = self.limiter.check(key, tier=tier)
            return None if flask.g.decision else ({"error": "too many requests"}, 429)

        @app.after_request
        def tell(response: flask.Response) -> flask.Response:
            response.headers.update(flask.g.decision.headers())
            return response

        @app.get("/items")
        def items() -> dict[str, str]:
            return {"items": "all"}

        self.app = app

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve."""
        server = make_server(
            "127.0.0.1", 0, self.app, threaded=True, request_handler=QuietRequestHandler
        )
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            ended(thread)


class QuietRequestHandler(WSGIRequestHandler):
    """Writes no log of the requests."""

    def log(self, *args: object) -> None:
        """Write nothing."""


class Guard:
    """A middleware that is nothing but ASGI. It runs in the event loop, and asks the limiter."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self.app = app
        self.site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one request."""
        key, tier = whose(Headers(scope=scope).get("X-Api-Key"), scope["client"][0])
        decision = self.site.limiter.check(key, tier=tier)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(decision.headers())
            await send(message)

        refusal = JSONResponse({"error": "too many requests"}, 429)
        await (self.app if decision else refusal)(scope, receive, tell)


class StarletteSite(Site):
    """Starlette under uvicorn; its endpoint is a plain function, which runs in a thread."""

    def __init__(self) -> None:
        def items(request: Request) -> JSONResponse:
            return JSONResponse({"items": "all"})

        self.app = Starlette(
            routes=[Route("/items", items)], middleware=[Middleware(Guard, site=self)]
        )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve."""
        settings = uvicorn.Config(
            self.app, log_config=None, access_log=False, lifespan="off", ws="none", loop="asyncio"
        )
        server = uvicorn.Server(settings)
        # asyncio turns Nagle's delay off only where the protocol is named.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        with closing(listener):
            listener.bind(("127.0.0.1", 0))
            # From here on nobody is refused: who connects before the thread runs waits for it.
            listener.listen()
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            try:
                yield
            finally:
                server.should_exit = True
                ended(thread)


def ended(thread: threading.Thread) -> None:
    """Wait for the thread of a server that was told to stop."""
    thread.join(LONGEST_STOP)
    assert not thread.is_alive()
