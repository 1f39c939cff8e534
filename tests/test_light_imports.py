"""Starting is light: what needs no network never imports PyTorch."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = ("service.cli.up", "service.main", "worker.__main__", "worker.run", "worker.registration")


@pytest.mark.parametrize("module", LIGHT)
def test_it_is_imported_without_pytorch(module: str) -> None:
    program = f"import sys; sys.modules['torch'] = sys.modules['torchvision'] = None; import {module}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
