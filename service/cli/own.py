"""A service of a command's own: `reid up` on a free port, for as long as the command runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from reid_core.errors import CoreError
from service.cli.client import Client, Refused

_STORES = ("REID_DATABASE_URL", "REID_BROKER_URL")
"""Beginnings of the settings that would have the command work in a database and a queue that others use."""


def end_as_by_ctrl_c() -> None:
    """Has SIGTERM and SIGHUP end this process as Ctrl-C does, unless whoever started it has them ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def backbone_of(weights: Path) -> str:
    """The name of the backbone that the file is of; raises `Refused` where it is of none."""
    from reid_core.backbones.weights import find_backbone, load_weights_file  # imports PyTorch

    try:
        return find_backbone(load_weights_file(weights), source=repr(weights.name))
    except CoreError as error:
        raise Refused(f"{error.detail} {error.hint}") from error


@contextmanager
def start_service(
    home: Path, data_roots: Sequence[Path], weights_dir: Path | None, *, meanwhile: Callable[[], None] | None = None
) -> Iterator[Client]:
    """Runs `reid up` on a free port of this machine, and `meanwhile` beside its start; ends the service afterwards."""
    port = _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_STORES)} | {
        "REID_HOME": str(home),
        "REID_DATA_ROOTS": ":".join(map(str, data_roots)),
        "REID_LOG_LEVEL": "warning",
    }
    if weights_dir is not None:
        environment["REID_WEIGHTS_DIR"] = str(weights_dir)
    command = [sys.executable, "-P", "-m", "service.cli", "up", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        if meanwhile is not None:
            meanwhile()
        with closing(_connect(process, home, port)) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


def _connect(process: subprocess.Popen[bytes], home: Path, port: int) -> Client:
    key = home / "admin.key"
    while process.poll() is None and not key.exists():
        time.sleep(0.1)
    if process.poll() is not None:
        raise Refused("The service did not start; its messages are above.")
    client = Client(f"http://127.0.0.1:{port}", key.read_text().strip())
    client.wait_until_ready(lambda: process.poll() is None)
    return client


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
