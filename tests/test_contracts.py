"""The import contracts of pyproject.toml hold: each of them fails on a file that breaks it on purpose."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("reid_core", "service", "worker")

BREAKS = [
    ("service/datasets/climbing.py", "import service.jobs.lifecycle", "Imports in the service go down one ladder"),
    ("service/galleries/climbing.py", "import service.jobs.lifecycle", "Imports in the service go down one ladder"),
    ("service/unplaced.py", "", "Imports in the service go down one ladder"),
    ("service/jobs/working.py", "import worker.work", "Workers stand on the service, both on the core"),
    ("reid_core/losses/climbing.py", "import reid_core.training.loop", "The core's imports go downward only"),
    ("reid_core/unplaced.py", "", "The core's imports go downward only"),
    ("reid_core/methods/newest.py", "import reid_core.methods.bnneck", "Methods never import each other"),
    ("reid_core/data/online.py", "import fastapi", "The core knows nothing of HTTP, queues or SQL"),
    ("worker/answering.py", "import service.api.files", "Workers answer no requests"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_tree_keeps_every_contract(copy: Path) -> None:
    assert broken_contracts(copy) == set()


@pytest.mark.parametrize(("path", "line", "contract"), BREAKS)
def test_a_file_that_breaks_a_contract_is_noticed(copy: Path, path: str, line: str, contract: str) -> None:
    file = copy / path
    file.write_text(f"{line}\n")
    try:
        assert contract in broken_contracts(copy)
    finally:
        file.unlink()


def broken_contracts(folder: Path) -> set[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    names = {line.removesuffix(" BROKEN") for line in ended.stdout.splitlines() if line.endswith(" BROKEN")}
    assert (ended.returncode == 0) is (names == set()), ended.stdout + ended.stderr
    return names
