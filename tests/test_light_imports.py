"""Starting is light: what needs no network never imports PyTorch, and searches wait for no torchvision."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = ("service.cli.up", "service.main", "worker.__main__", "worker.run", "worker.register")


USES_TORCHVISION = ("reid_core.data.augmentation", "reid_core.backbones.resnet", "reid_core.backbones.instance_norm")


@pytest.mark.parametrize("module", USES_TORCHVISION)
def test_what_uses_torchvision_may_be_imported_first(module: str) -> None:
    ended = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("module", LIGHT)
def test_it_is_imported_without_pytorch(module: str) -> None:
    program = f"import sys; sys.modules['torch'] = sys.modules['torchvision'] = None; import {module}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("module", [*LIGHT, "service.cli.demo", "service.cli.reproduction.command"])
def test_it_is_imported_without_matplotlib(module: str) -> None:
    program = f"import sys; sys.modules['matplotlib'] = None; import {module}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_engines_are_imported_for_models_that_they_run_alone() -> None:
    core = ("reid_core.model", "reid_core.export", "reid_core.engines.serving", "reid_core.engines.publishing")
    modules = ("service.main", "service.search.engine", *core, "worker.evaluate", "worker.train", "worker.index")
    program = "import sys; sys.modules['onnx'] = sys.modules['onnxruntime'] = sys.modules['openvino'] = None; import "
    ended = subprocess.run([sys.executable, "-c", program + ", ".join(modules)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_the_engine_of_searches_brings_pytorch_without_torchvision() -> None:
    """torchvision takes as long as PyTorch itself; until the first network is built nobody needs it."""
    program = "import sys; sys.modules['torchvision'] = None; import service.search.engine; import torch"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("module", ["service.main", "worker.__main__"])
def test_what_runs_all_the_time_is_imported_without_what_few_requests_need(module: str) -> None:
    program = f"import sys; sys.modules['pyarrow'] = sys.modules['httpx'] = None; import {module}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
