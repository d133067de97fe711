"""A source on the web whose every answer the test decides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

#: Given the handler of one request, answers it.
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Source

    def do_GET(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        self.close_connection = True
        self.server.answer(self)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    def say(self, status: int, data: bytes = b"", **headers: object) -> None:
        """A whole answer. Headers by keyword, with _ for -."""
        self.send_response(status)
        named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        for name, value in ({"Content-Length": len(data)} | named).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


class Source(ThreadingHTTPServer):
    """``answers``: by path. ``seen``: the requests, with their headers. ``free``: ends those that stall."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.free = threading.Event()

    def answer(self, handler: Handler) -> None:
        self.answers[handler.path](handler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side may go at any time."""


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    server = Source()
    with serving(server, monkeypatch):
        yield server


@contextmanager
def serving(server: Source, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It answers, and nothing of the surroundings leads elsewhere."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield
    server.free.set()
    server.shutdown()
    thread.join()
    server.server_close()
