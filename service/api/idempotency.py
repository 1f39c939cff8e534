"""`Idempotency-Key`: a POST that is sent again gets its first answer again, and is done once."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from email.message import Message as MailMessage
from typing import IO

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.auth import sent_key
from service.db import answers
from service.db.answers import RequestKey, SentAnswer
from service.db.session import Database
from service.errors import Problem

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
MAX_KEY_LENGTH = 255

_IN_MEMORY_BYTES = 1024**2
_PIECE_BYTES = 256 * 1024
_KEPT_HEADERS = ("cache-control", "content-type", "location", "retry-after")

_MARK = b"\0boundary\0"


class Idempotency:
    """ASGI middleware. Only answers with 2xx are remembered: an error changed nothing, so it may be tried again."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        # What needs no key, or is nowhere, changes nothing; its body is not to be read.
        if HEADER not in headers or scope["method"] != "POST" or scope["state"]["operation"].scope is None:
            await self.app(scope, receive, send)
            return
        key = RequestKey(_checked(headers[HEADER]), scope["state"]["caller"].key_id or "", "POST", scope["path"])
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as body:
            fingerprint = await _read_body(scope, receive, body)
            await self._answer_once(scope, _replay(body, receive), send, key, fingerprint)

    async def _answer_once(self, scope: Scope, receive: Receive, send: Send, key: RequestKey, fingerprint: str) -> None:
        state = scope["app"].state
        secret = sent_key(Headers(scope=scope)) or ""
        keep = timedelta(seconds=state.settings.idempotency_seconds)
        turn = await run_in_threadpool(answers.take_turn, state.database, key, fingerprint, secret=secret, keep=keep)
        if isinstance(turn, SentAnswer):
            again = Response(turn.body, turn.status, {**turn.headers, REPLAYED_HEADER: "true"})
            await again(scope, receive, send)
            return
        if turn != "go":
            raise _refusal(turn, key.key)
        recorder = _Recorder(send, lambda answer: _settle(state.database, key, answer, secret))
        try:
            await self.app(scope, receive, recorder.send)
        finally:
            await recorder.settle()


@dataclass(slots=True)
class _Recorder:
    """Passes an answer on and keeps a copy, settled before the client has all of it and may ask again."""

    onward: Send
    on_settled: Callable[[SentAnswer | None], None]
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    settled: bool = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            sent = Headers(raw=message["headers"])
            self.headers = {name: sent[name] for name in _KEPT_HEADERS if name in sent}
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)
        if self.complete:
            await self.settle()
        await self.onward(message)

    async def settle(self) -> None:
        """Hands over the answer once, or None where it is not one to remember."""
        if self.settled:
            return
        self.settled = True
        good = self.complete and 200 <= self.status < 300
        answer = SentAnswer(self.status, self.headers, bytes(self.body)) if good else None
        with anyio.CancelScope(shield=True):  # a client that hangs up must not leave the key claimed
            await run_in_threadpool(self.on_settled, answer)


class BodyFingerprint:
    """SHA-256 over a body that arrives in pieces.

    Clients make up a new boundary each time they send a form; it is replaced by a fixed mark, so that the same form
    has the same fingerprint.
    """

    def __init__(self, content_type: str, query: bytes) -> None:
        header = MailMessage()
        header["content-type"] = content_type
        boundary = header.get_boundary() if header.get_content_maintype() == "multipart" else None
        self._boundary = f"--{boundary}".encode() if boundary else b""
        self._hash = hashlib.sha256(header.get_content_type().encode() + b"\0" + query + b"\0")
        self._held_back = b""  # may be the beginning of a boundary

    def add(self, piece: bytes) -> None:
        if not self._boundary:
            self._hash.update(piece)
            return
        *complete, rest = (self._held_back + piece).split(self._boundary)
        for part in complete:
            self._hash.update(part + _MARK)
        keep = min(len(rest), len(self._boundary) - 1)
        self._hash.update(rest[: len(rest) - keep])
        self._held_back = rest[len(rest) - keep :]

    def hexdigest(self) -> str:
        """The fingerprint in hex, once the last piece has been added."""
        self._hash.update(self._held_back)
        self._held_back = b""
        return self._hash.hexdigest()


def _checked(key: str) -> str:
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        raise Problem("malformed-request", f"{HEADER} has {len(key)} characters; it takes 1 to {MAX_KEY_LENGTH}.")
    return key


def _refusal(turn: str, key: str) -> Problem:
    if turn == "running":
        return Problem(
            "request-in-progress",
            f"A request with {HEADER} {key!r} is being answered just now.",
            hint="Wait, then send it again to get its answer.",
            headers={"Retry-After": "2"},
        )
    return Problem(
        "idempotency-key-reused",
        f"{HEADER} {key!r} was sent before with another body or query.",
        hint="Use a new key for a new request; send the same body to get the first answer again.",
    )


def _settle(database: Database, key: RequestKey, answer: SentAnswer | None, secret: str) -> None:
    if answer is None:
        answers.forget(database, key)
    else:
        answers.remember(database, key, answer, secret=secret)


async def _read_body(scope: Scope, receive: Receive, body: IO[bytes]) -> str:
    """Copy the request's body to `body` and return its fingerprint."""
    fingerprint = BodyFingerprint(Headers(scope=scope).get("content-type", ""), scope["query_string"])
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        fingerprint.add(piece)
        await run_in_threadpool(body.write, piece)
        more = message.get("more_body", False)
    body.seek(0)
    return fingerprint.hexdigest()


def _replay(body: IO[bytes], receive: Receive) -> Receive:
    """A `receive` that gives the stored body, then what the connection says next."""
    done = False

    async def receive_again() -> Message:
        nonlocal done
        if done:
            return await receive()
        piece = await run_in_threadpool(body.read, _PIECE_BYTES)
        done = len(piece) < _PIECE_BYTES
        return {"type": "http.request", "body": piece, "more_body": not done}

    return receive_again
