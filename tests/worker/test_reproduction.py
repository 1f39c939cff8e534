"""`reid reproduce` in a real service: its page holds what the service measured, and a second start goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_core.networks.progressive import ProgressiveNetwork
from reid_core.sample_data import write_sample_data
from service.cli.reproduction.small import BACKBONE
from tests.waiting import HANG_SECONDS, wait_until
from tests.worker.service import Service

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "home", tmp_path)
    service.start()
    yield service
    service.kill_everything()


def start(environment: dict[str, str], out: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "service.cli", "reproduce", *words, "--small", "--out", str(out)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell has jobs in its background ignore Ctrl-C, and their children with them: a test run may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def reproduce(environment: dict[str, str], out: Path, *words: str) -> tuple[int, str]:
    """Exit status and what was said."""
    started = start(environment, out, *words)
    said, _ = started.communicate(timeout=HANG_SECONDS)
    return started.returncode, said


def draw(folder: Path, identities: int) -> Path:
    write_sample_data(folder, identities=identities, cameras=2, pictures_per_camera=2, seed=3)
    return folder


def cells_of(out: Path) -> dict[tuple[str, ...], list[Any]]:
    told = json.loads((out / "results.json").read_text())
    return {tuple(row["labels"]): row["cells"] for row in told["rows"]}


def test_the_grid_of_paper_001_goes_on_where_it_was_stopped_and_shows_what_was_measured(
    service: Service, tmp_path: Path
) -> None:
    words, out = ("001-grid", "--data", str(draw(tmp_path / "people", 10))), tmp_path / "out"
    stopped = start(service.environment, out, *words)
    wait_until(lambda: bool(service.get("/jobs", kind="train")["items"]))
    stopped.send_signal(signal.SIGINT)
    stopped.communicate(timeout=HANG_SECONDS)
    assert stopped.returncode == 130

    status, said = reproduce(service.environment, out, *words)
    assert status == 0, said
    kinds = Counter(job["kind"] for job in service.get("/jobs", limit=200)["items"])
    assert kinds == {"register": 1, "train": 3, "evaluate": 6}
    check_page(out, {each["id"]: each for each in service.get("/evaluations", limit=200)["items"]})


def check_page(out: Path, evaluations: dict[str, Any]) -> None:
    """An error unless every number of the table is one that the service measured, and the page shows it."""
    cells, page = cells_of(out), (out / "index.html").read_text()
    assert [cell["state"] for cell in cells["baseline", "", ""]] == ["measured"] * 4
    assert [cell["state"] for cell in cells["camera bias", "9", "0.7"]] == ["not run"] * 4
    shown = []
    for row in cells.values():
        for cell, read in zip(row, (mean_precision, rank_1, mean_precision, rank_1), strict=True):
            for value in cell["values"]:
                assert value["value"] == read(evaluations[value["evaluation"]])
                shown.append(f"{100 * value['value']:.1f}")
    assert re.findall("<strong>(.*?)</strong>", page) == shown
    assert len(shown) == 12
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def mean_precision(evaluation: Any) -> float:
    return float(evaluation["mAP"])


def rank_1(evaluation: Any) -> float:
    return float(evaluation["cmc"]["1"])


def test_what_fails_costs_its_own_cells_and_says_why(service: Service, tmp_path: Path) -> None:
    few, out = draw(tmp_path / "few", 4), tmp_path / "out"
    status, said = reproduce(service.environment, out, "001-grid", "--data", str(few))
    assert status == 1, said
    (cell, *_) = cells_of(out)["baseline", "", ""]
    assert cell["state"] == "failed"
    assert "4 identities" in cell["reasons"][0]["reason"]
    assert cell["reasons"][0]["reason"] in (out / "index.html").read_text().replace("&#x27;", "'")


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment", ["000-table1", "000-fig5", "002-table4", "003-table2", "003-table5", "003-table6"]
)
def test_other_experiments_run_small_without_a_service_or_data(experiment: str, tmp_path: Path) -> None:
    environment = Service(tmp_path / "home", tmp_path).environment
    status, said = reproduce(environment, tmp_path / "out", experiment)
    assert status == 0, said
    states = [cell["state"] for row in cells_of(tmp_path / "out").values() for cell in row]
    assert "failed" not in states
    assert states.count("measured") > 1
    assert (tmp_path / "home" / "models").is_dir()


@pytest.mark.slow
def test_a_model_that_was_deleted_is_trained_again_and_no_other(service: Service, tmp_path: Path) -> None:
    words = ("003-table2", "--data", str(draw(tmp_path / "people", 40)))
    assert reproduce(service.environment, tmp_path / "out", *words)[0] == 0
    kinds = Counter(job["kind"] for job in service.get("/jobs", limit=200)["items"])
    student = service.get("/models", method="std")["items"][0]
    assert service.http.delete(f"/models/{student['id']}").status_code == 204
    status, said = reproduce(service.environment, tmp_path / "out", *words)
    assert status == 0, said
    again = Counter(job["kind"] for job in service.get("/jobs", limit=200)["items"])
    assert again - kinds == {"train": 1, "evaluate": 1}


@pytest.mark.slow
def test_parameters_are_those_of_the_network(tmp_path: Path) -> None:
    service = Service(tmp_path / "home", tmp_path)
    people = draw(tmp_path / "people", 40)
    status, said = reproduce(service.environment, tmp_path / "out", "003-table1", "--data", str(people))
    assert status == 0, said
    (cell, *_) = cells_of(tmp_path / "out")["DenseNet-161+PTL",]
    with torch.device("meta"):
        network = ProgressiveNetwork(BACKBONE, 20, last_stride=2)
    assert cell["values"][0]["value"] == sum(parameter.numel() for parameter in network.parameters())
