"""The base images that the Dockerfile and the compose file name: as pulled, or stand-ins made of Debian's packages.

A stand-in has the name, the users, the folders and the entrypoint of the image that it stands for; it is for tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RECIPES = Path(__file__).parent / "bases"
_PULL_SECONDS = 600


class NoBases(Exception):
    """Raised where a base image can be neither pulled nor made; its text says why."""


@dataclass(frozen=True, slots=True)
class Base:
    """The recipe of a stand-in: the Debian release, the script that runs in it, and what `docker import` is told."""

    suite: str
    recipe: str
    changes: Sequence[str]
    entrypoint: str | None = None


BASES = {
    "python:3.11-slim-bookworm": Base("bookworm", "python.sh", ('CMD ["python3"]',)),
    "postgres:17-bookworm": Base(
        "trixie",
        "postgres.sh",
        (
            "ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "ENV PGDATA=/var/lib/postgresql/data",
            "ENV LANG=C.UTF-8",
            "VOLUME /var/lib/postgresql/data",
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            'CMD ["postgres"]',
        ),
        "postgres-entrypoint.sh",
    ),
    "redis:8-bookworm": Base(
        "trixie",
        "redis.sh",
        (
            "VOLUME /data",
            "WORKDIR /data",
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            'CMD ["redis-server"]',
        ),
        "redis-entrypoint.sh",
    ),
}


def missing_bases() -> list[str]:
    """The names of the base images that the engine neither holds nor can pull."""
    return [name for name in BASES if not (_is_held(name) or _is_pulled(name))]


def make_base(name: str, cache: Path, environment: Mapping[str, str]) -> None:
    """Gives the engine a stand-in for the base image, with the variables in its environment.

    What was made once is kept as an archive in the folder `cache`. Raises `NoBases`.
    """
    variables = [f'ENV {variable}="{value}"' for variable, value in environment.items()]
    changes = [word for change in (*BASES[name].changes, *variables) for word in ("--change", change)]
    archive = _archive(name, cache)
    subprocess.run(["docker", "import", *changes, str(archive), name], check=True, stdout=subprocess.DEVNULL)


def _is_held(name: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0


def _is_pulled(name: str) -> bool:
    try:
        return (
            subprocess.run(["docker", "pull", "-q", name], capture_output=True, timeout=_PULL_SECONDS).returncode == 0
        )
    except subprocess.TimeoutExpired:
        return False


def _archive(name: str, cache: Path) -> Path:
    archive = cache / f"{name.replace(':', '-')}.tar"
    if not archive.exists():
        if os.geteuid() != 0 or shutil.which("debootstrap") is None:
            raise NoBases(f"{name} cannot be pulled, and a stand-in needs root and Debian's `debootstrap`")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="reid-base-") as folder:
            _make_root(BASES[name], Path(folder) / "root")
            unfinished = archive.with_suffix(".part")
            subprocess.run(["tar", "-C", f"{folder}/root", "-cf", unfinished, "."], check=True)
            unfinished.rename(archive)
    return archive


def _make_root(base: Base, root: Path) -> None:
    try:
        _run("debootstrap", "--variant=minbase", base.suite, str(root))
        script = "set -eu; export DEBIAN_FRONTEND=noninteractive\n" + (RECIPES / base.recipe).read_text()
        _run("chroot", str(root), "sh", "-c", script + "apt-get clean; rm -rf /var/lib/apt/lists/*\n")
    except subprocess.CalledProcessError as error:
        raise NoBases(f"{error.cmd[0]} for {base.recipe} failed: {error.output[-2000:]}") from error
    if base.entrypoint:
        shutil.copy(RECIPES / base.entrypoint, root / "usr/local/bin/docker-entrypoint.sh")


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
