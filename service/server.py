"""The HTTP server: uvicorn's, which by itself would wait for ever for a request that has begun."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.settings import Settings

MAX_HEADER_BYTES = 64 * 1024
"""The headers of a request, its address included; a proxy's own limit is usually 8 or 16 KiB."""

MAX_UNREAD_BYTES = 4 * 1024**2
"""The part of a refused request's body that is read: a client that sends first and then reads gets its answer."""

_GRACE_SECONDS = 3
"""Time that open requests have when the API stops; `reid up` ends within five seconds."""


def server_config(app: FastAPI | str, settings: Settings, *, port: int | None = None, **options: Any) -> Config:
    """The server's configuration: it listens on REID_HOST and REID_PORT, or another `port`; `options` are uvicorn's."""
    return Config(
        app,
        factory=isinstance(app, str),
        host=settings.host,
        port=settings.port if port is None else port,
        http=_patient_for(settings.header_seconds),
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        **options,
    )


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, but a connection is closed when it takes longer than `header_seconds` for the headers of a
    request, from when it is opened or they begin, or for the rest of a body whose request has been answered already.

    It is closed, too, after more than MAX_HEADER_BYTES of the one or MAX_UNREAD_BYTES of the other. Requests find in
    their `state.server_stops` an event that is set when the server stops: answers without an end are to end then.
    """

    header_seconds: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._message_complete = True
        self._stops = asyncio.Event()
        self._expect_headers()

    def shutdown(self) -> None:
        self._stops.set()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers or self._is_unread:
            self._bytes += len(data)
            if self._bytes > (MAX_HEADER_BYTES if self._in_headers else MAX_UNREAD_BYTES):
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["server_stops"] = self._stops
        self._message_complete = False
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._message_complete = True
        if self.cycle is not None and self.cycle.response_complete:
            self._arm()  # uvicorn's own timer for the next request ended when the rest of the body came
        else:
            self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_unread:
            self._bytes = 0
            self._arm()

    @property
    def _is_unread(self) -> bool:
        """True while a body comes that nobody reads any more."""
        # `cycle` is of the request that arrives, which may be another than the one that has been answered.
        arrives = not self._in_headers and not self._message_complete
        return arrives and self.cycle is not None and self.cycle.response_complete

    def _expect_headers(self) -> None:
        self._in_headers, self._bytes = True, 0
        self._arm()

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(self.header_seconds, self.transport.close)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _patient_for(seconds: float) -> type[TimedProtocol]:
    return type("Protocol", (TimedProtocol,), {"header_seconds": seconds})
