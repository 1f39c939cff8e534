"""Jobs over the API: what cancel, resume and retry do to them, and what is refused before one is made."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import torch
from fastapi import FastAPI
from safetensors.torch import save_file

from reid_core.backbones import build_backbone
from reid_core.backbones.instance_norm import insert_instance_norm
from service.clock import utc_now
from service.db.ids import new_id, new_ids
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Gallery, Model
from service.jobs import enqueue
from service.jobs.body_schemas import JobBody
from service.jobs.kinds import KINDS
from service.jobs.lifecycle import FINISHED
from service.jobs.planning import PLANS
from service.jobs.schemas import Kind
from service.main import create_app
from service.settings import Settings
from tests.service.serving import open_client, serve

TRAINING: dict[str, Any] = {
    "kind": "train",
    "method": "bnneck",
    "dataset": "lobby",
    "init_from": None,
    "settings": {"batch": {"identities": 2}},
}

FEW: dict[str, Any] = TRAINING["settings"]

MOBILE = TRAINING | {"settings": {"batch": {"identities": 2}, "backbone": "mobilenet_v2"}}


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def sent(app: FastAPI) -> list[str]:
    """The jobs that were put on a queue, in order."""
    return []


@pytest.fixture
def client(app: FastAPI, settings: Settings, sent: list[str]) -> Iterator[httpx.Client]:
    with serve(app) as address:
        app.state.send = lambda job_id, kind: sent.append(job_id)
        key = settings.admin_key_path.read_text().strip()
        with open_client(address, {"X-API-Key": key}) as client:
            yield client


@pytest.fixture
def lobby(database: Database, tmp_path: Path) -> Dataset:
    """A data set called `lobby` with an image of each of three people to train on."""
    return add_dataset(database, tmp_path, "lobby", people=3)


def add_dataset(database: Database, folder: Path, name: str, *, people: int) -> Dataset:
    dataset = Dataset(id=new_id("ds"), name=name, path=str(folder), format="auto", state="ready", uploaded=False)
    with database.write() as session:
        session.add(dataset)
        session.flush()
        for number, image_id in enumerate(new_ids("img", people)):
            place = {"split": "train", "position": number, "path": f"{number}.jpg", "identity": str(number)}
            session.add(DatasetImage(id=image_id, dataset_id=dataset.id, camera="1", **place))
    return dataset


def add_job(database: Database, state: str, kind: str = "train", **spec: Any) -> str:
    """A job in that state; its id."""
    with database.write() as session:
        job = enqueue(session, kind, spec)
        job.state, job.finished_at = state, utc_now() if state in FINISHED else None
    return job.id


def add_model(database: Database, name: str) -> str:
    model = Model(
        id=new_id("mdl"),
        name=name,
        method="bnneck",
        settings={},
        lineage={},
        embedding_size=8,
        preprocessing={},
        files={},
    )
    with database.write() as session:
        session.add(model)
    return model.id


def test_only_what_waits_again_is_sent_and_every_change_is_in_the_audit_log(
    client: httpx.Client, database: Database, sent: list[str]
) -> None:
    job = add_job(database, "queued")
    states = [client.post(f"/jobs/{job}/{change}") for change in ("cancel", "resume", "cancel", "retry")]

    assert [answer.status_code for answer in states] == [202] * 4
    assert [answer.json()["state"] for answer in states] == ["cancelled", "queued", "cancelled", "queued"]
    retried = states[-1].json()["id"]
    assert states[-1].headers["location"] == f"/jobs/{retried}"
    assert sent == [job, retried]
    assert [(entry["action"], entry["target"]) for entry in client.get("/audit").json()["items"]] == [
        ("job.retry", retried),
        ("job.cancel", job),
        ("job.resume", job),
        ("job.cancel", job),
    ]


def test_a_job_whose_models_name_is_anothers_by_now_does_not_start_again(
    client: httpx.Client, database: Database, sent: list[str]
) -> None:
    succeeded, cancelled = (add_job(database, state, model_name="entrance") for state in ("succeeded", "cancelled"))
    add_model(database, "entrance")

    for path in (f"/jobs/{succeeded}/retry", f"/jobs/{cancelled}/retry", f"/jobs/{cancelled}/resume"):
        refused = client.post(path)
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/name-taken"), path
        assert "rename" in refused.json()["hint"]
    assert sent == []

    assert client.patch("/models/entrance", json={"name": "old entrance"}).status_code == 200
    assert client.post(f"/jobs/{succeeded}/retry").status_code == 202
    assert client.post(f"/jobs/{cancelled}/resume").status_code == 409  # the retried one will have the name
    assert len(sent) == 1


def test_an_interrupted_job_has_kept_its_models_name(client: httpx.Client, database: Database) -> None:
    job = add_job(database, "interrupted", model_name="entrance")
    assert client.post(f"/jobs/{job}/resume").status_code == 202


def test_a_gallery_shows_the_job_that_was_retried_for_it(client: httpx.Client, database: Database) -> None:
    with database.write() as session:
        gallery = Gallery(
            id=new_id("gal"), name="hall", model_id=add_model(database, "m"), index_kind="flat", keep_images=True
        )
        session.add(gallery)
    job = add_job(database, "failed", "index", gallery=gallery.id)
    assert client.get("/galleries/hall").json()["job"] == job

    retried = client.post(f"/jobs/{job}/retry").json()["id"]

    shown = client.get("/galleries/hall").json()
    assert (shown["job"], shown["state"]) == (retried, "building")


def test_a_retry_of_what_is_gone_is_a_job_like_any_other(client: httpx.Client, database: Database) -> None:
    job = add_job(database, "failed", "index", gallery="gal_gone")
    assert client.post(f"/jobs/{job}/retry").status_code == 202


@pytest.mark.usefixtures("lobby")
@pytest.mark.parametrize("name", ["missing.safetensors", "..", "ü" * 255])
def test_weights_that_are_not_there_are_answered_with_those_that_are(
    client: httpx.Client, settings: Settings, name: str
) -> None:
    (settings.weights_dir / "folder").mkdir(parents=True)
    (settings.weights_dir / "osnet.safetensors").touch()

    refused = client.post("/jobs", json=TRAINING | {"init_from": {"weights": name}})

    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/weights-unusable")
    assert refused.json()["errors"][0]["pointer"] == "/init_from/weights"
    assert refused.json()["hint"].endswith("one of: osnet.safetensors.")


@pytest.mark.usefixtures("lobby")
@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_a_weights_file_is_opened_before_the_job_starts(client: httpx.Client, settings: Settings, dry_run: str) -> None:
    settings.weights_dir.mkdir(parents=True, exist_ok=True)
    (settings.weights_dir / "resnet50_market.pth").write_bytes(b"PK\3\4")
    save_file({"conv1.weight": torch.zeros(1)}, settings.weights_dir / "other.safetensors")
    with torch.random.fork_rng():
        save_file(build_backbone("mobilenet_v2", last_stride=2).state_dict(), settings.weights_dir / "fits.safetensors")
    answers = {
        name: client.post(f"/jobs?dry_run={dry_run}", json=MOBILE | {"init_from": {"weights": name}})
        for name in ("resnet50_market.pth", "other.safetensors", "fits.safetensors")
    }

    assert [answer.status_code for answer in answers.values()] == [422, 422, 200 if dry_run == "true" else 202]
    assert "safetensors.torch.save_file" in answers["resnet50_market.pth"].json()["hint"]
    assert "does not fit this backbone" in answers["other.safetensors"].json()["detail"]
    assert answers["other.safetensors"].json()["errors"][0]["pointer"] == "/init_from/weights"


@pytest.mark.usefixtures("lobby")
@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_a_training_starts_from_imagenet_weights_unless_told_otherwise(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dry_run: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody answers there
    body = {name: value for name, value in MOBILE.items() if name != "init_from"}
    refused = client.post(f"/jobs?dry_run={dry_run}", json=body)
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/weights-unusable")
    assert "could not be fetched" in refused.json()["detail"]
    assert refused.json()["errors"][0]["pointer"] == "/init_from"
    for way_out in ('{"weights": "<file name>"}', "from a model", "null"):
        assert way_out in refused.json()["hint"]
    assert client.get("/jobs").json()["items"] == []

    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth").touch()
    accepted = client.post(f"/jobs?dry_run={dry_run}", json=body)
    assert accepted.status_code == (200 if dry_run == "true" else 202)
    assert accepted.json()["spec"]["init_from"] == "imagenet"


@pytest.mark.usefixtures("lobby")
def test_settings_follow_from_the_start_unless_they_are_named(client: httpx.Client, settings: Settings) -> None:
    def resolve(init_from: Any, **changes: Any) -> dict[str, Any]:
        asked = {"backbone": "resnet18", "batch": {"identities": 2, "images_per_identity": 4}, **changes}
        body = TRAINING | {"method": "qaconv-pk", "init_from": init_from, "settings": asked}
        answer = client.post("/jobs?dry_run=true", json=body)
        assert answer.status_code == 200, answer.text
        chosen = answer.json()["spec"]["settings"]
        names = ("normalisation", "instance_norm", "freeze_backbone_bn", "backbone_rate")
        return {name: chosen[name] for name in names}

    settings.weights_dir.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        plain, halved = (build_backbone("resnet18", last_stride=2) for _ in range(2))
        insert_instance_norm(halved, "ibn-a")
    save_file(plain.state_dict(), settings.weights_dir / "plain.safetensors")
    save_file(halved.state_dict(), settings.weights_dir / "halved.safetensors")

    random = resolve(None)
    papers = {"normalisation": "none", "instance_norm": "block", "freeze_backbone_bn": False}
    assert random == papers | {"backbone_rate": 1}
    trained = {"normalisation": "imagenet", "instance_norm": "none", "freeze_backbone_bn": True, "backbone_rate": 0.1}
    assert resolve({"weights": "plain.safetensors"}) == trained
    assert resolve({"weights": "halved.safetensors"}) == trained | {"instance_norm": "ibn-a"}
    assert resolve({"weights": "plain.safetensors"}, instance_norm="block", freeze_backbone_bn=False) == {
        "normalisation": "imagenet",
        "instance_norm": "block",
        "freeze_backbone_bn": False,
        "backbone_rate": 0.1,
    }


@pytest.mark.usefixtures("lobby")
def test_a_preset_is_named_and_advised_for_short_runs(client: httpx.Client) -> None:
    paper = client.post("/jobs?dry_run=true", json=TRAINING).json()
    assert [warning["code"] for warning in paper["warnings"]] == ["too-short-for-preset"]
    assert 'settings.preset "small"' in paper["warnings"][0]["hint"]
    assert paper["spec"]["settings"]["preset"] == "paper"

    small = client.post("/jobs?dry_run=true", json=TRAINING | {"settings": {"preset": "small", **FEW}}).json()
    assert small["warnings"] == []
    described = client.get("/methods/bnneck").json()["presets"]
    assert described["paper"] == {}
    assert small["spec"]["settings"]["schedule"]["base_lr"] == described["small"]["schedule"]["base_lr"]

    named = {"preset": "small", **FEW, "schedule": {"base_lr": 0.5}}
    chosen = client.post("/jobs?dry_run=true", json=TRAINING | {"settings": named}).json()["spec"]["settings"]
    assert (chosen["schedule"]["base_lr"], chosen["schedule"]["shape"]) == (0.5, "cosine")

    images = {"image": {"height": 64, "width": 32}, **named}
    random = client.post("/jobs?dry_run=true", json=TRAINING | {"method": "pyramid", "settings": images}).json()
    assert random["spec"]["settings"]["backbone_rate"] == 1, "a preset's rate is for trained weights"

    unknown = client.post("/jobs?dry_run=true", json=TRAINING | {"settings": {"preset": "tiny"}})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/settings/preset")
    stage = {"dataset": "lobby", "settings": {"preset": "small"}}
    body = {name: value for name, value in TRAINING.items() if name != "dataset"} | {"chain": [stage]}
    refused = client.post("/jobs?dry_run=true", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/chain/0/settings/preset")


def test_a_data_set_is_used_once_it_is_ready(client: httpx.Client, database: Database, lobby: Dataset) -> None:
    with database.write() as session:
        session.get_one(Dataset, lobby.id).state = "pending"
        job = enqueue(session, "register", {"dataset": lobby.id}, datasets=[lobby.id])
    reading = client.post("/jobs", json=TRAINING)
    assert (reading.status_code, reading.json()["type"]) == (409, "/problems/wrong-state")

    client.post(f"/jobs/{job.id}/cancel")
    given_up = client.post("/jobs", json=TRAINING).json()

    assert (given_up["status"], given_up["errors"][0]["pointer"]) == (422, "/dataset")
    assert "cancelled" in given_up["detail"]
    assert f"/jobs/{job.id}/resume" in given_up["hint"]


def test_a_log_is_read_while_it_grows(client: httpx.Client, database: Database, settings: Settings) -> None:
    job = add_job(database, "running")
    assert client.get(f"/jobs/{job}/logs").text == ""
    log = settings.jobs_dir / job / "log.txt"
    log.parent.mkdir(parents=True)
    over = threading.Event()

    def write() -> None:
        with log.open("ab", buffering=0) as file:
            while not over.is_set():
                file.write(b"epoch\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        answers = [client.get(f"/jobs/{job}/logs") for _ in range(30)]
    finally:
        over.set()
        writer.join()
    assert {answer.status_code for answer in answers} == {200}
    assert answers[-1].text.startswith("epoch\n")


@pytest.mark.parametrize(
    ("method", "asked", "pointer"),
    [
        ("qaconv-gs", {"backbone": "densenet121"}, "/settings/instance_norm"),
        ("qaconv-gs", {"batch": {"size": 30}}, "/settings/batch"),
        ("pyramid", {"parts": 5, "levels": "11111"}, "/settings/parts"),
        ("pyramid", {"levels": "111"}, "/settings/levels"),
    ],
)
def test_settings_that_are_impossible_together_are_refused_before_a_job_is_made(
    client: httpx.Client, lobby: Dataset, sent: list[str], method: str, asked: dict[str, Any], pointer: str
) -> None:
    answer = client.post("/jobs", json=TRAINING | {"method": method, "settings": asked})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert not sent


@pytest.fixture
def chained(database: Database, lobby: Dataset, tmp_path: Path) -> dict[str, Any]:
    """A training on `lobby`, then on `hall` and `yard` as one, then on `lobby` again with two epochs."""
    for name, people in (("hall", 2), ("yard", 4)):
        add_dataset(database, tmp_path / name, name, people=people)
    last = {"dataset": lobby.id, "settings": {"schedule": {"epochs": 2}}}
    chain = [{"dataset": "lobby"}, {"dataset": ["hall", "yard"]}, last]
    settings = {**TRAINING["settings"], "schedule": {"epochs": 5}}
    return {"kind": "train", "method": "bnneck", "chain": chain, "init_from": None, "settings": settings}


def test_a_chain_is_written_out_stage_by_stage_and_needs_all_its_data_sets(
    client: httpx.Client, chained: dict[str, Any], lobby: Dataset, sent: list[str]
) -> None:
    spec = client.post("/jobs", json=chained).json()["spec"]
    assert len(sent) == 1
    assert not {"dataset", "settings"} & spec.keys()
    assert [stage["settings"]["schedule"]["epochs"] for stage in spec["chain"]] == [5, 5, 2]
    assert [stage["settings"]["batch"]["identities"] for stage in spec["chain"]] == [2, 2, 2]
    first, (hall, yard), last = [stage["dataset"] for stage in spec["chain"]]
    assert (first, last) == (lobby.id, lobby.id)
    assert hall != yard
    for name in ("lobby", "hall", "yard"):
        refused = client.delete(f"/datasets/{name}")
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/in-use"), name


def test_the_estimate_of_a_chain_adds_up_its_stages(client: httpx.Client, chained: dict[str, Any]) -> None:
    def estimate(body: dict[str, Any]) -> dict[str, Any]:
        answer = client.post("/jobs?dry_run=true", json=body)
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()["estimate"]
        return shown

    whole = estimate(chained)
    alone = [estimate(chained | {"chain": [stage]}) for stage in chained["chain"]]
    assert [part["pictures"] for part in alone] == [3, 6, 3]
    assert whole["pictures"] == 12
    assert whole["memory_bytes"] == max(part["memory_bytes"] for part in alone)
    plain = {name: chained[name] for name in ("kind", "method", "init_from", "settings")} | chained["chain"][0]
    assert estimate(plain)["memory_bytes"] == alone[0]["memory_bytes"]


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"dataset": "lobby"}, ["/dataset", "/chain"]),
        ({"chain": None}, ["/dataset", "/chain"]),
        ({"chain": []}, ["/chain"]),
        ({"chain": [{"dataset": "lobby"}] * 11}, ["/chain"]),
        ({"chain": [{"dataset": "lobby"}, {"settings": {}}]}, ["/chain/1/dataset"]),
        ({"chain": [{"dataset": "lobby"}, {"dataset": "lobby", "method": "mgn"}]}, ["/chain/1/method"]),
        ({"chain": [{"dataset": "lobby"}, {"dataset": ["hall", "hall"]}]}, ["/chain/1/dataset"]),
        (
            {"chain": [{"dataset": "lobby"}, {"dataset": "lobby", "settings": {"schedule": {"epoch": 1}}}]},
            ["/chain/1/settings/schedule/epoch"],
        ),
        (
            {"chain": [{"dataset": "lobby"}, {"dataset": "lobby", "settings": {"backbone": "resnet18"}}]},
            ["/chain/1/settings"],
        ),
        (  # tensors of the same shapes, other strides
            {"chain": [{"dataset": "lobby"}, {"dataset": "lobby", "settings": {"last_stride": 2}}]},
            ["/chain/1/settings"],
        ),
        (  # three windows of one stripe, two of two and one of three
            {
                "method": "pyramid",
                "settings": {"parts": 3, "levels": "100", "batch": {"identities": 2}},
                "chain": [{"dataset": "lobby"}, {"dataset": "lobby", "settings": {"levels": "011"}}],
            },
            ["/chain/1/settings"],
        ),
        (
            {"chain": [{"dataset": "lobby"}, {"dataset": "lobby", "settings": {"batch": {"identities": 4}}}]},
            ["/chain/1/settings/batch/identities"],
        ),
        ({"settings": {"batch": {"identity": 2}}}, ["/settings/batch/identity"]),
    ],
)
def test_a_chain_that_cannot_work_is_refused_where_it_is_wrong(
    client: httpx.Client, chained: dict[str, Any], sent: list[str], changes: dict[str, Any], pointers: list[str]
) -> None:
    answer = client.post("/jobs", json=chained | changes)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers
    assert not sent


BODIES = get_args(get_args(JobBody)[0])

STARTED_ELSEWHERE = {"register", "delete", "cluster"}
"""By the routes of data sets and galleries."""


def test_every_kind_of_job_is_named_passed_on_planned_and_carried_out() -> None:
    posted = {body.model_fields["kind"].annotation for body in BODIES}
    assert set(KINDS) == set(get_args(Kind))
    assert set(PLANS) == {name for kind in posted for name in get_args(kind)} == set(KINDS) - STARTED_ELSEWHERE
    assert all(find_spec(kind.worker) for kind in KINDS.values())
    assert all("webhook" in body.model_fields for body in BODIES)
