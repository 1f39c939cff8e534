"""`reid up`: API, workers and broker as children of one process, which takes them along when it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

import typer
import uvicorn
from pydantic import ValidationError

from service.db.schema import upgrade
from service.db.session import open_database
from service.keys import ensure_admin_key
from service.queue.broker import EmbeddedBroker, start_embedded_broker
from service.queue.tasks import SHORT_QUEUE, TRAINING_QUEUE
from service.server import server_config
from service.settings import Settings

_STOP_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


def run(host: str | None, port: int | None) -> int:
    """Starts everything and waits for SIGINT, SIGTERM or the end of a child: the exit status."""
    if host is not None:
        os.environ["REID_HOST"] = host
    if port is not None:
        os.environ["REID_PORT"] = str(port)
    settings = read_settings()
    prepare(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    broker = _start_broker(settings)
    children: list[subprocess.Popen[bytes]] = []
    try:
        environment = os.environ | ({"REID_BROKER_URL": broker.url} if broker else {})
        children += [_start(words, environment) for words in _commands()]
        address = f"http://{settings.host}:{settings.port}"
        typer.echo(f"Re-ID Search is starting on {address} (its API under {address}/docs). Ctrl-C stops it.")
        return _wait(children, stop)
    finally:
        _stop(children)
        if broker:
            broker.stop()


def run_api() -> None:
    """The API in this process, on REID_HOST and REID_PORT."""
    settings = read_settings()
    server = uvicorn.Server(server_config("service.main:create_app", settings, log_level=settings.log_level))
    server.run()
    if not server.started:
        raise typer.Exit(1)


def run_migrate() -> None:
    """The database of REID_DATABASE_URL at this version, with an admin key in it."""
    prepare(read_settings(), always_upgrade=True)


def prepare(settings: Settings, *, always_upgrade: bool = False) -> None:
    """Makes the home folder, brings the database up to date, and prints the first admin key when it is made."""
    for folder in (settings.home, settings.weights_dir, *settings.data_roots):
        if folder.is_relative_to(settings.home):
            folder.mkdir(parents=True, exist_ok=True)
    if always_upgrade or settings.migrate_at_start:
        upgrade(settings.database_url)
    database = open_database(settings.database_url)
    key = ensure_admin_key(database, settings)
    database.close()
    if key:
        typer.echo(f"Admin key, shown this once and kept in {settings.admin_key_path}: {key}")


def read_settings() -> Settings:
    """The settings of the environment; a wrong one ends the command with its name and reason."""
    try:
        return Settings()
    except ValidationError as error:
        for fault in error.errors():
            name = "_".join(str(part) for part in fault["loc"])
            typer.echo(f"REID_{name.upper()}: {fault['msg']}" if name else fault["msg"], err=True)
        raise typer.Exit(2) from error


def _commands() -> list[list[str]]:
    # -P: a folder called `service` where the command is given must not be taken for ours.
    worker = [sys.executable, "-P", "-m", "worker", "--queues"]
    return [
        [sys.executable, "-P", "-m", "service.cli", "api"],
        [*worker, TRAINING_QUEUE],
        [*worker, SHORT_QUEUE],
    ]


def _start_broker(settings: Settings) -> EmbeddedBroker | None:
    if settings.broker_url is not None:
        return None
    return start_embedded_broker(settings.home / "broker", before_exec=_end_with_parent)


def _start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches this process only, which then stops the others in order.
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )


def _end_with_parent() -> None:
    """In a new child: be told to end when `reid up` is killed, so that no port and no GPU stays taken."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(children: list[subprocess.Popen[bytes]], stop: threading.Event) -> int:
    while not stop.wait(0.5):
        for command, child in zip(_commands(), children, strict=True):
            if child.poll() is not None:
                typer.echo(f"{' '.join(command)} ended with status {child.returncode}; stopping.", err=True)
                return 1
    return 0


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
