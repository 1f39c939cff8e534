"""`reid up`: API, worker and broker as children of one process, which takes them along when it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from collections.abc import Mapping
from contextlib import ExitStack

import typer
from pydantic import ValidationError

from service.cli.parts import Part, end_with_parent, python_part, stop_together
from service.home import HomeTaken, hold_home, keep_private, prepare_home
from service.queue.broker import EmbeddedBroker
from service.queue.tasks import SHORT_QUEUE, TRAINING_QUEUE
from service.settings import Settings

_STARTING_SECONDS, _RUNNING_SECONDS = 0.1, 0.5
"""Pauses between looks at the parts."""

DATABASE_SECONDS = 60.0
"""Time that `reid migrate` gives a database server to answer: it often starts together with it."""


def run(host: str | None, port: int | None) -> int:
    """Starts everything and waits for SIGINT or SIGTERM: the exit status, 1 where something cannot start at all."""
    if host is not None:
        os.environ["REID_HOST"] = host
    if port is not None:
        os.environ["REID_PORT"] = str(port)
    settings = read_settings()
    keep_private()
    prepare_home(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with hold_home(settings.home, f"process {os.getpid()} on {_address(settings)}"):
            _check_port(settings)
            return _Service(settings, stop).run()
    except HomeTaken as taken:
        typer.echo(
            f"Another `reid up` has the home folder {settings.home}: {taken}. "
            "Stop that one, or start this one with another REID_HOME.",
            err=True,
        )
    except RuntimeError as error:
        typer.echo(str(error), err=True)
    return 1


def run_migrate() -> None:
    """Brings the database of REID_DATABASE_URL to this version, with an admin key in it."""
    from sqlalchemy.exc import OperationalError

    from service.datasets.catalog import bring_up_to_date
    from service.db.schema import await_server
    from service.db.session import open_database
    from service.keys.lifecycle import ensure_admin_key

    settings = read_settings()
    keep_private()
    prepare_home(settings)
    database = open_database(settings.database_url)
    try:
        await_server(database, DATABASE_SECONDS)
    except OperationalError as error:
        typer.echo(f"The database cannot be reached: {str(error.orig).strip()}", err=True)
        raise typer.Exit(1) from error
    bring_up_to_date(database, settings)
    key = ensure_admin_key(database, settings)
    database.close()
    if key:
        _show_key(settings, key)


def read_settings() -> Settings:
    """The settings of the environment; a wrong one ends the command with its name and reason."""
    try:
        return Settings()
    except ValidationError as error:
        for fault in error.errors():
            name = "_".join(str(part) for part in fault["loc"])
            typer.echo(f"REID_{name.upper()}: {fault['msg']}" if name else fault["msg"], err=True)
        raise typer.Exit(2) from error


class _Service:
    """The parts: the broker before the others, then the API, which makes the database, and the worker."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._broker: Part | None = None
        self._parts: list[Part] = []

    def run(self) -> int:
        """The exit status: 1 when a part ends before all of them have been ready for the first time."""
        typer.echo(f"Re-ID Search is starting on {_address(self._settings)}. Ctrl-C stops it.")
        had_key = self._settings.admin_key_path.exists()
        with ExitStack() as ending:
            environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **self._start_broker(ending)}
            ending.callback(lambda: stop_together(self._parts))
            slots = f"{TRAINING_QUEUE}=1,{SHORT_QUEUE}={self._settings.short_jobs}"
            self._parts.append(python_part("API", ["service.cli", "api"], environment))
            self._parts.append(python_part("worker", ["worker", "--queues", slots], environment))
            if not self._is_ready():
                return self._failed()
            self._welcome(is_new=not had_key)
            while not self._stop.wait(_RUNNING_SECONDS):
                for part in self._all_parts:
                    part.revive()
        return 0

    def _start_broker(self, ending: ExitStack) -> Mapping[str, str]:
        """Starts the broker and returns, once it answers, the environment that finds it; raises RuntimeError."""
        if self._settings.broker_url is not None:
            return {}
        broker = EmbeddedBroker(self._settings.home / "broker", before_exec=end_with_parent)
        ending.callback(broker.close)
        self._broker = server = Part("broker", broker.start)
        ending.callback(lambda: stop_together([server], seconds=1.0))  # after the workers, which put messages back
        broker.wait_until_ready(server.process)
        return {"REID_BROKER_URL": broker.url}

    @property
    def _all_parts(self) -> list[Part]:
        return [*([self._broker] if self._broker else []), *self._parts]

    def _is_ready(self) -> bool:
        """True once the API says so; False when a part has ended or the service is to stop."""
        while not self._stop.wait(_STARTING_SECONDS):
            if any(part.has_ended for part in self._all_parts):
                return False
            if _answers(self._settings, "/healthz/ready"):
                return True
        return False

    def _failed(self) -> int:
        ended = [part.describe_end() for part in self._all_parts if part.has_ended]
        if not ended:
            return 0  # told to stop while it was starting
        typer.echo(f"{', '.join(ended)}, so the service cannot start; what it said stands above.", err=True)
        return 1

    def _welcome(self, *, is_new: bool) -> None:
        settings, address = self._settings, _address(self._settings)
        if is_new and settings.admin_key_path.exists():
            _show_key(settings, settings.admin_key_path.read_text().strip())
        typer.echo(
            f"Ready: {address}, its API under {address}/docs, the admin key in {settings.admin_key_path}.\n"
            f'Go on with: curl -H "X-API-Key: $(cat {settings.admin_key_path})" {address}/methods'
        )


def _show_key(settings: Settings, key: str) -> None:
    typer.echo(f"Admin key, shown this once and kept in {settings.admin_key_path}: {key}")


def _check_port(settings: Settings) -> None:
    """Raises RuntimeError where another program listens already: its answers would be taken for our API's."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the API does: no wait for old connections
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise RuntimeError(
                f"{_address(settings)} cannot be listened on: {error.strerror}. Choose another port, e.g. --port 8001."
            ) from error


def local_host(settings: Settings) -> str:
    """The host by which this machine reaches the API: the one it listens on, or loopback where those are all."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  where to ask, not to listen


def address_of(host: str, port: int) -> str:
    """The address of an API, with an IPv6 host in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _address(settings: Settings) -> str:
    return address_of(settings.host, settings.port)


def _answers(settings: Settings, path: str) -> bool:
    """True if the API answers with 200, asked past any proxy."""
    connection = http.client.HTTPConnection(local_host(settings), settings.port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
