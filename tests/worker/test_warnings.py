"""What a training job tells when it has learned nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from reid_core.data.sample import write_sample_data
from tests.reid_core.small import SMALL
from tests.worker.service import Service


@pytest.mark.slow
def test_a_training_that_learned_nothing_says_so_while_it_runs_and_in_its_result(tmp_path: Path) -> None:
    people = tmp_path / "data" / "people"
    write_sample_data(people, identities=24, cameras=2, seed=1)
    service = Service(tmp_path / "home", people.parent)
    service.start()
    try:
        service.register("people", people)
        body = {"kind": "train", "method": "bnneck", "dataset": "people", "device": "cpu", "seed": 3}
        too_fast = SMALL | {"schedule": SMALL["schedule"] | {"base_lr": 0.5}}
        job = service.wait_for(str(service.post("/jobs", body | {"settings": too_fast})["id"]), "succeeded")

        (warning,) = job["result"]["warnings"]
        curves = service.get(f"/jobs/{job['id']}/metrics")
        ((_, before),), ((last, after),) = curves["training_rank1_before"], curves["training_rank1"]
        assert after <= before
        assert warning["code"] == "learned-nothing"
        assert warning["stage"] == 1
        assert f"After {last:.0f} steps {after:.1%}" in warning["detail"]
        assert "base_lr (it is 0.5)" in warning["hint"]
        events = service.http.get(f"/jobs/{job['id']}/events", headers={"Accept": "application/json"}).json()["items"]
        assert [event["data"] for event in events if event["event"] == "warning"] == [warning]
        assert warning["detail"] in service.http.get(f"/jobs/{job['id']}/logs").text
    finally:
        service.stop()
