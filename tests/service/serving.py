"""Running an app on a real socket, so that streams, disconnects and large bodies behave as they do for users."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from service.server import server_config
from tests.waiting import HANG_SECONDS


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Serve `app` in a thread; yields its address, `http://127.0.0.1:<port>`, once it has started."""
    server = uvicorn.Server(server_config(app, app.state.settings, port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the app did not start; see the captured log")
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(HANG_SECONDS)


def open_client(address: str, headers: dict[str, str] | None = None) -> httpx.Client:
    """A client that outwaits the stalls of a busy machine; httpx itself gives up after 5 s."""
    return httpx.Client(base_url=address, headers=headers, timeout=HANG_SECONDS)
