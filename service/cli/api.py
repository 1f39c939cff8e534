"""`reid api`: the API in this process, or in several that share its port."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading

import typer

from service.cli.parts import STOP_SECONDS, python_part, stop_together
from service.cli.up import read_settings
from service.home import keep_private
from service.settings import Settings

_RUNNING_SECONDS = 0.5
"""Pause between looks at the processes."""

_CANNOT_START = (1, 3)
"""Exit statuses of a process that could not start: ours, and uvicorn's."""

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's variable for the folder in which it adds up what several processes count."""


def run_api(*, as_one_of_several: bool) -> None:
    """The API on REID_HOST and REID_PORT, in REID_API_PROCESSES processes, or as one of these."""
    settings = read_settings()
    keep_private()
    if as_one_of_several:
        _serve(settings, [_shared_port(settings)])
    elif settings.api_processes == 1:
        _serve(settings, None)
    else:
        raise typer.Exit(_serve_together(settings))


def _serve(settings: Settings, sockets: list[socket.socket] | None) -> None:
    import uvicorn

    from service.server import server_config

    server = uvicorn.Server(
        server_config("service.main:create_app", settings, log_config=None, log_level=settings.log_level)
    )
    server.run(sockets)
    if not server.started:
        raise typer.Exit(1)


def _serve_together(settings: Settings) -> int:
    """Runs the processes until SIGINT or SIGTERM: the exit status, 1 where one ends before it has served at all.

    The system deals connections out evenly. (From one socket that all of them had, whoever woke first would take
    every connection that waits.) One that dies is started again, and the others get the new ones meanwhile.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with _shared_port(settings), tempfile.TemporaryDirectory(prefix="reid-metrics-") as metrics:
        environment = {**os.environ, METRICS_FOLDER: metrics, "REID_THREADS": str(_threads(settings))}
        words = ["service.cli", "api", "--one-of-several"]
        parts = [
            python_part(f"API process {number}", words, environment) for number in range(1, settings.api_processes + 1)
        ]
        try:
            while not stop.wait(_RUNNING_SECONDS):
                for part in parts:
                    if part.has_ended and part.process.returncode in _CANNOT_START:
                        return 1  # it has said why
                    part.revive()
        finally:
            stop_together(parts, STOP_SECONDS - 1)  # before `reid up` kills this process
    return 0


def _threads(settings: Settings) -> int:
    """The threads of each process: all of them together have one for each core."""
    return settings.threads or max(1, (os.cpu_count() or 1) // settings.api_processes)


def _shared_port(settings: Settings) -> socket.socket:
    """A socket of its own on the port, which those of the other processes may have, too."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    shared = socket.socket(family, socket.SOCK_STREAM)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        shared.bind((settings.host, settings.port))
    except OSError as error:
        shared.close()
        typer.echo(f"{settings.host} port {settings.port} cannot be listened on: {error.strerror}", err=True)
        raise typer.Exit(1) from error
    return shared
