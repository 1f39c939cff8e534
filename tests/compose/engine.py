"""A Docker engine: the one that DOCKER_HOST or the Docker client has, or one of our own for as long as it is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

BRIDGE = "172.29.250.1/24"
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_WEIGHTS = ((Path("/sys/fs/cgroup/cpu"), "cpu.shares", "65536"), (Path("/sys/fs/cgroup"), "cpu.weight", "6400"))
"""Of the control group of all containers: by itself it weighs as much as one process of the machine."""


class NoEngine(Exception):
    """Raised where no Docker engine can be had; its text says why."""


@contextmanager
def engine() -> Iterator[str]:
    """Has `docker` reach an engine meanwhile, and gives its version. Raises `NoEngine`."""
    with ExitStack() as ending:
        if shutil.which("docker") is None:
            raise NoEngine("there is no `docker` command; install Debian's docker.io, or Docker's own packages")
        if not _answers():
            if "DOCKER_HOST" in os.environ:
                raise NoEngine(f"the engine of DOCKER_HOST={os.environ['DOCKER_HOST']} does not answer")
            ending.enter_context(_own_engine())
        yield server_version()


def server_version() -> str:
    """The engine's version and its way to store images, e.g. `28.5.2, overlayfs`."""
    words = ["docker", "info", "--format", "{{.ServerVersion}}, {{.Driver}}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def _own_engine() -> Iterator[None]:
    if os.geteuid() != 0:
        raise NoEngine("no engine answers, and only root can start one: start Docker, or set DOCKER_HOST")
    if shutil.which("dockerd") is None:
        raise NoEngine("no engine answers, and there is no `dockerd` to start: install Debian's docker.io")
    with _folder() as folder, _firewall_restored(), (folder / "log").open("wb") as log:
        _give_weight()
        daemon = subprocess.Popen(_command(folder), stdout=log, stderr=log, start_new_session=True)
        os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
        try:
            _await(daemon, folder / "log")
            yield
        finally:
            del os.environ["DOCKER_HOST"]
            daemon.terminate()
            daemon.wait(_STOP_SECONDS)
            subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for all that the engine writes, removed at the end unless something is still mounted in it."""
    folder = Path(tempfile.mkdtemp(prefix="reid-engine-"))
    try:
        yield folder
    finally:
        if str(folder) not in Path("/proc/mounts").read_text():
            shutil.rmtree(folder)


def _command(folder: Path) -> list[str]:
    return [
        "dockerd",
        f"--host=unix://{folder}/docker.sock",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/run",
        f"--pidfile={folder}/pid",
        f"--bip={BRIDGE}",
        *_own_priority(),
    ]


def _own_priority() -> list[str]:
    """Keeps older engines from lowering their own score, for which root in a container lacks the capability."""
    manual = subprocess.run(["dockerd", "--help"], capture_output=True, text=True).stdout
    return ["--oom-score-adjust=0"] if "--oom-score-adjust" in manual else []


def _await(daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _answers():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise NoEngine(f"dockerd does not start: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def _answers() -> bool:
    return subprocess.run(["docker", "version"], capture_output=True).returncode == 0


@contextmanager
def _firewall_restored() -> Iterator[None]:
    """Puts the rules of the firewall and the forwarding of packets back as they were."""
    before = {tool: _rules(tool) for tool in ("iptables", "ip6tables")}
    forwarding = _FORWARDING.read_text()
    try:
        yield
    finally:
        for tool, rules in before.items():
            if rules is not None:
                subprocess.run([f"{tool}-restore"], input=rules, text=True, check=True)
        _FORWARDING.write_text(forwarding)


def _rules(tool: str) -> str | None:
    """The rules as `iptables-restore` takes them, with a table that had none as an empty one; None without the tool."""
    saved = subprocess.run([f"{tool}-save"], capture_output=True, text=True)
    if saved.returncode != 0:
        return None
    empty = {
        "filter": ("INPUT", "FORWARD", "OUTPUT"),
        "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    }
    missing = [table for table in empty if f"*{table}\n" not in saved.stdout]
    return saved.stdout + "".join(
        "\n".join([f"*{table}", *(f":{chain} ACCEPT [0:0]" for chain in empty[table]), "COMMIT", ""])
        for table in missing
    )


def _give_weight() -> None:
    for folder, name, weight in _WEIGHTS:
        if (folder / name).exists() or (folder / "cgroup.controllers").exists():
            group = folder / "docker"
            group.mkdir(exist_ok=True)
            if (group / name).exists():
                (group / name).write_text(weight)
            return
