"""The examples run as their first lines say, on drawn people."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reid_core.sample_data import write_sample_data
from tests.worker.service import Service

EXAMPLES = Path(__file__).parents[1] / "examples"
OF_THE_CORE = {
    "train_and_search.py": "query: identity",
    "add_a_method.py": "bnneck-cosine: loss",
    "evaluate_embeddings.py": "queries: rank-1",
}


@pytest.fixture
def people(tmp_path: Path) -> Path:
    write_sample_data(tmp_path / "data" / "people", identities=16, cameras=2, seed=1)
    return tmp_path / "data" / "people"


def run(name: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, EXAMPLES / name, *arguments, "1"]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*OF_THE_CORE, "search_over_http.py"}


@pytest.mark.parametrize("name", OF_THE_CORE)
def test_an_example_of_the_core_runs(name: str, people: Path) -> None:
    assert OF_THE_CORE[name] in run(name, str(people))


def test_the_example_over_http_runs(people: Path, tmp_path: Path) -> None:
    service = Service(tmp_path / "home", people.parent)
    service.start()
    try:
        key = (service.home / "admin.key").read_text().strip()
        said = run("search_over_http.py", "people", REID_API=service.address, REID_KEY=key)
        assert "query: identity" in said
        assert said.count("camera") == 5
    finally:
        service.kill_everything()
