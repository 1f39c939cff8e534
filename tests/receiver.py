"""A receiver of webhooks on a real socket, which fails as often as it is told to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "a secret that nobody else has seen"

Answer = Callable[[BaseHTTPRequestHandler], None]
"""Answers one request, whose body has been read."""


@dataclass
class Receiver:
    """The requests that came, in order: (path, headers, body)."""

    url: str
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def events(self) -> dict[str, list[Any]]:
        """The event of each id, as often as it was sent; each must be signed."""
        events: dict[str, list[Any]] = {}
        for _, headers, body in self.requests:
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            digest = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
            assert headers["webhook-signature"] == f"v1,{digest}"
            events.setdefault(headers["webhook-id"], []).append(json.loads(body))
        return events


def with_status(status: int, **headers: str) -> Answer:
    """Answers with the status and headers, without a body."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


@contextmanager
def receiving(*answers: Answer) -> Iterator[Receiver]:
    """A receiver on loopback that gives each event those answers, one an attempt, and 204 after them."""
    lock, seen = threading.Lock(), dict[str, int]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                receiver.requests.append((self.path, headers, body))
                number = seen.get(headers["webhook-id"], 0)
                seen[headers["webhook-id"]] = number + 1
            (answers[number] if number < len(answers) else with_status(204))(self)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        block_on_close = False

        def handle_error(self, *_: Any) -> None:
            """Senders that hang up are what some tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}/end")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield receiver
        finally:
            server.shutdown()
