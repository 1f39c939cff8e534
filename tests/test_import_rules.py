"""Every import contract of pyproject.toml is broken by a file that breaks it on purpose."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("reid_core", "service", "worker")
BREAKS = [
    ("Imports in the service go down one ladder", "service/datasets/upward.py", "import service.jobs.lifecycle"),
    ("Imports in the service go down one ladder", "service/galleries/sideward.py", "import service.jobs.lifecycle"),
    ("Imports in the service go down one ladder", "service/unplaced.py", ""),
    ("Workers stand on the service, both on the core", "reid_core/upward.py", "import service.settings"),
    ("Workers stand on the service, both on the core", "service/jobs/upward.py", "import worker.work"),
    ("Workers answer no requests", "worker/answering.py", "import service.api.files"),
    ("The core's imports go downward only", "reid_core/losses/upward.py", "import reid_core.training.loop"),
    ("Methods never import each other", "reid_core/methods/newest.py", "import reid_core.methods.bnneck"),
    ("The core knows nothing of HTTP, queues or SQL", "reid_core/data/online.py", "import fastapi"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three packages and their rules, in a folder of their own."""
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint(folder: Path) -> str:
    linter = Path(sys.executable).with_name("lint-imports")
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([linter, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("contract", "name", "statement"), BREAKS)
def test_a_file_that_breaks_a_contract_on_purpose_is_found(
    copy: Path, contract: str, name: str, statement: str
) -> None:
    (copy / name).write_text(f"{statement}\n")
    try:
        assert f"{contract} BROKEN" in lint(copy)
    finally:
        (copy / name).unlink()


def test_without_such_a_file_all_contracts_are_kept(copy: Path) -> None:
    said = lint(copy)
    contracts = {contract for contract, _, _ in BREAKS}
    assert "0 broken" in said
    assert all(f"{contract} KEPT" in said for contract in contracts)
    assert said.count(" KEPT") == len(contracts)
