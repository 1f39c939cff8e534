"""The stack as its users run it: the project's files in a folder of their own, and Compose in that folder."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.cli.client import Client
from tests.compose.report import Failed

PROJECT = Path(__file__).parents[2]
PARTS = (
    "Dockerfile",
    ".dockerignore",
    "docker-compose.yml",
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "LICENSE",
)
PACKAGES = ("reid_core", "service", "worker")
NAME = "reid-compose-test"
_SHELL = 'set -eu\ndocker() { if [ "$1" = compose ]; then shift; compose "$@"; else command docker "$@"; fi; }\n'


class Stack:
    """Compose on a copy of the project in `folder`, under a project name and an image name of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        _copy_project(folder)
        self._command = [compose_binary()]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("REID_")}
        settings = {"REID_IMAGE": NAME, "REID_PORT": str(port), "COMPOSE_PROJECT_NAME": NAME}
        self._environment = {**clean, "BUILDKIT_PROGRESS": "plain", "COMPOSE_PROGRESS": "plain", **settings}

    def compose(self, *words: str, read: bytes | None = None, **environment: str) -> str:
        """Runs `docker compose` with the words and returns its output; raises `Failed` with its messages."""
        return self._run([*self._command, *words], read, environment).decode()

    def compose_bytes(self, *words: str) -> bytes:
        """The same as the bytes that it writes."""
        return self._run([*self._command, *words], None, {})

    def shell(self, script: str) -> str:
        """Runs the script by bash in the folder, as a user would, until its first error; returns its output."""
        compose = f'compose() {{ {" ".join(self._command)} "$@"; }}\n'
        return self._run(["bash", "-c", compose + _SHELL + script], None, {}).decode()

    def config(self) -> Any:
        """The compose file as Compose reads it."""
        return json.loads(self.compose("config", "--format", "json"))

    def admin_key(self) -> str:
        return self.compose("exec", "-T", "api", "cat", "/var/lib/reid/admin.key").strip()

    @contextmanager
    def client(self, port: int | None = None) -> Iterator[Client]:
        """A client of the API, or of its replica on another port, once that is ready for work."""
        client = Client(f"http://127.0.0.1:{port or self.port}", self.admin_key())
        client.wait_until_ready(lambda: True)
        try:
            yield client
        finally:
            client.close()

    def memory(self) -> str:
        """The memory of every running container, e.g. `api 340 MiB, redis 8 MiB`."""
        names = self.compose("ps", "--format", "{{.Name}}").split()
        lines = self._run(["docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *names], None, {})
        return ", ".join(_memory_line(line) for line in sorted(lines.decode().splitlines()))

    def remove(self) -> None:
        """Removes containers, volumes and the image."""
        self.compose("--profile", "backup", "down", "--volumes", "--remove-orphans", "--timeout", "5")
        self._run(["docker", "image", "rm", "--force", NAME], None, {})

    def _run(self, command: list[str], read: bytes | None, environment: dict[str, str]) -> bytes:
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment | environment, input=read, capture_output=True
        )
        if done.returncode != 0:
            said = (done.stdout[-1000:] + done.stderr[-3000:]).decode(errors="replace")
            raise Failed(f"{' '.join(command)[-200:]} ended with status {done.returncode}: {said}")
        return done.stdout


def compose_binary() -> str:
    """The path of the development dependency's Compose; its own script would lose the exit status."""
    spec = importlib.util.find_spec("compose")
    if spec is None or spec.origin is None:
        raise RuntimeError("there is no Compose; `make setup` installs it")
    return str(Path(spec.origin).parent / "docker-compose")


def _copy_project(folder: Path) -> None:
    for name in PARTS:
        shutil.copy(PROJECT / name, folder / name)
    for name in PACKAGES:
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("data", "weights"):
        (folder / name).mkdir()


def _memory_line(line: str) -> str:
    """`reid-compose-test-api-1 340.2MiB / 23.5GiB` as `api 340 MiB`."""
    name, amount = line.split()[:2]
    number = amount.rstrip("KMGiB")
    return f"{name.removeprefix(f'{NAME}-').rsplit('-', 1)[0]} {float(number):.0f} {amount[len(number) :]}"
