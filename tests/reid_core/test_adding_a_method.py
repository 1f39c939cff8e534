"""The method that docs/adding-a-method.md adds is held to the contract of all methods; docs name every method."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reid_core.methods import METHODS
from reid_core.methods.method import Method
from tests.reid_core import test_methods

ROOT = Path(__file__).parents[2]
CONTRACT = [check for name, check in vars(test_methods).items() if name.startswith("test_")]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Method:
    """The method of the page, registered as it says."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adding-a-method.md").read_text(), re.DOTALL)
    file = tmp_path / "circle.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("circle", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(METHODS, "circle", module.CIRCLE)
    return METHODS["circle"]


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_the_worked_example_keeps_the_contract(check: Callable[..., None], circle: Method, tmp_path: Path) -> None:
    wanted = inspect.signature(check).parameters
    given: dict[str, Any] = {"method": circle, "tmp_path": tmp_path}
    check(**{name: given[name] for name in wanted})


@pytest.mark.parametrize("name", METHODS)
def test_readme_and_docs_name_every_method(name: str) -> None:
    for page in ("README.md", "docs/methods.md"):
        assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", (ROOT / page).read_text()), page
