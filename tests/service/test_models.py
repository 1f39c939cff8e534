"""Models are shown, renamed, downloaded in parts and deleted over the API."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest

from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Dataset, Evaluation, Gallery, Job, Model
from service.models.engines import describe_engine
from service.settings import Settings

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def models(database: Database, settings: Settings) -> list[str]:
    """Three models, `a`, `b` and `c`, with a file each."""
    ids = [new_id("mdl") for _ in "abc"]
    with database.write() as session:
        for identifier, name in zip(ids, "abc", strict=True):
            folder = settings.models_dir / identifier
            folder.mkdir(parents=True)
            (folder / "weights.safetensors").write_bytes(CONTENT)
            (folder / "training.log").write_text("not listed")
            session.add(
                Model(
                    id=identifier,
                    name=name,
                    method="bnneck" if name != "c" else "bnneck-camera",
                    settings={"backbone": "resnet18"},
                    lineage={"datasets": []},
                    embedding_size=512,
                    preprocessing={"height": 256},
                    files={"weights.safetensors": {"bytes": len(CONTENT), "sha256": sha256(CONTENT)}},
                )
            )
    return ids


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


METRICS = {"mINP": 0.25, "queries": 4, "gallery": 8, "interval": {"mAP": [0.1, 0.9]}}


def add_evaluation(database: Database, model: str, dataset: str, accuracy: float) -> str:
    row = Evaluation(
        id=new_id("eval"),
        model_id=model,
        dataset_id=dataset,
        rerank="none",
        metrics=METRICS | {"mAP": accuracy, "cmc": {"1": 0.5}, "valid_queries": 3},
        protocol={"cross_camera": True},
    )
    with database.write() as session:
        session.add(row)
    return row.id


def test_a_model_is_shown_with_everything_that_made_it(
    client: httpx.Client, database: Database, models: list[str]
) -> None:
    evaluation = add_evaluation(database, models[0], "ds_1", 0.7)
    body = client.get("/models/a").json()
    assert body == client.get(f"/models/{models[0]}").json()
    assert (body["id"], body["method"], body["embedding_size"]) == (models[0], "bnneck", 512)
    assert (body["settings"], body["lineage"]) == ({"backbone": "resnet18"}, {"datasets": []})
    assert [item["id"] for item in body["evaluations"]] == [evaluation]
    assert body["evaluations"][0]["mAP"] == 0.7
    (file,) = body["files"]
    assert (file["name"], file["bytes"], file["sha256"]) == ("weights.safetensors", len(CONTENT), sha256(CONTENT))
    assert client.get(file["links"]["content"]).content == CONTENT
    assert client.get("/models/nobody").status_code == 404


def test_models_are_listed_newest_first_and_by_method(client: httpx.Client, models: list[str]) -> None:
    assert [item["name"] for item in client.get("/models").json()["items"]] == ["c", "b", "a"]
    by_method = client.get("/models?method=bnneck-camera").json()["items"]
    assert [item["name"] for item in by_method] == ["c"]
    first = client.get("/v1/models?limit=1").json()
    assert first["items"][0]["links"]["self"] == f"/v1/models/{models[2]}"
    assert first["next_cursor"] is not None


def test_files_come_whole_or_in_parts_and_no_others_do(client: httpx.Client, models: list[str]) -> None:
    url = "/models/a/files/weights.safetensors"
    part = client.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, CONTENT[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(CONTENT)}"
    assert client.get(url).headers["etag"] == f'"{sha256(CONTENT)}"'
    for name in ("training.log", "..%2F..%2Freid.db", "%2e%2e", "nothing"):
        assert client.get(f"/models/a/files/{name}").status_code == 404, name
    assert "weights.safetensors" in client.get("/models/a/files/nothing").json()["hint"]
    assert client.get(url, headers={"If-None-Match": f'"{sha256(CONTENT)}"'}).status_code == 304


@pytest.mark.parametrize("asked", ["bytes=99999-", "lines=1-2", "bytes=9-1"])
def test_a_part_that_a_file_does_not_have_is_a_problem(client: httpx.Client, models: list[str], asked: str) -> None:
    answer = client.get("/models/a/files/weights.safetensors", headers={"Range": asked})
    assert (answer.status_code, answer.json()["type"]) == (416, "/problems/range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_a_model_can_be_renamed_to_what_nobody_is_called(
    client: httpx.Client, database: Database, models: list[str]
) -> None:
    assert client.patch("/models/a", json={"name": "entrance"}).json()["name"] == "entrance"
    assert client.get("/models/entrance").json()["id"] == models[0]
    assert client.patch("/models/entrance", json={"name": "entrance"}).status_code == 200
    taken = client.patch("/models/entrance", json={"name": "b"})
    assert (taken.status_code, taken.json()["type"]) == (409, "/problems/name-taken")
    with database.write() as session:
        session.add(Job(id=new_id("job"), kind="train", state="queued", spec={"model_name": "coming"}))
    assert client.patch("/models/entrance", json={"name": "coming"}).status_code == 409
    for impossible in ({"method": "qaconv"}, {"name": "mdl_" + "0" * 26}, {"name": "a\\b"}, {"name": ".."}):
        assert client.patch("/models/entrance", json=impossible).status_code == 422, impossible
    assert client.patch("/models/nobody", json={"name": "x"}).status_code == 404


def test_a_model_in_use_stays(client: httpx.Client, database: Database, models: list[str]) -> None:
    assert client.post("/galleries", json={"name": "hall", "model": "a"}).status_code == 201
    with database.write() as session:
        job = Job(id=new_id("job"), kind="evaluate", state="running", spec={"model": models[1], "dataset": "ds"})
        session.add(job)
    for name, user in (("a", "hall"), ("b", job.id)):
        answer = client.delete(f"/models/{name}")
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/in-use")
        assert user in answer.json()["detail"]
    assert len(client.get("/models").json()["items"]) == 3


def test_a_deleted_model_leaves_nothing(
    client: httpx.Client, database: Database, settings: Settings, models: list[str]
) -> None:
    add_evaluation(database, models[0], "ds_1", 0.7)
    assert client.delete("/models/a").status_code == 204
    assert client.delete("/models/a").status_code == 404
    assert not (settings.models_dir / models[0]).exists()
    with database.read() as session:
        assert session.query(Evaluation).count() == 0
        assert session.query(Gallery).count() == 0


def test_evaluations_are_listed_and_narrowed_down(client: httpx.Client, database: Database, models: list[str]) -> None:
    with database.write() as session:
        session.add(Dataset(id="ds_1", name="lobby", path="/", format="auto", state="ready", uploaded=False))
    first = add_evaluation(database, models[0], "ds_1", 0.5)
    second = add_evaluation(database, models[1], "ds_gone", 0.6)
    third = add_evaluation(database, models[1], "ds_1", 0.7)

    def listed(**filters: str) -> list[str]:
        answer = client.get("/evaluations", params=filters)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    assert listed() == [third, second, first]
    assert listed(model="b") == listed(model=models[1]) == [third, second]
    assert listed(dataset="lobby") == [third, first]
    assert listed(dataset="ds_gone") == [second]
    assert listed(model="c") == []
    unknown = client.get("/evaluations?model=nobody")
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/query/model")


def test_an_evaluation_of_an_earlier_version_is_shown_without_what_it_lacks(
    client: httpx.Client, database: Database, models: list[str]
) -> None:
    older = add_evaluation(database, models[0], "ds_1", 0.5)
    shown = client.get(f"/v1/evaluations/{older}")
    assert shown.status_code == 200, shown.text
    assert shown.json()["links"]["self"] == f"/v1/evaluations/{older}"
    assert not {"verification", "camera_pairs"} & set(shown.json())
    assert client.get("/evaluations/eval_nobody").status_code == 404


def test_an_evaluation_alone_shows_the_curve_and_the_cameras_which_lists_leave_out(
    client: httpx.Client, database: Database, models: list[str]
) -> None:
    identifier = add_evaluation(database, models[0], "ds_1", 0.5)
    rates = {"tpr": {"0.01": 0.9}, "threshold": {"0.01": None}, "matching_pairs": 3, "impostor_pairs": 0}
    pair = {"query": "1", "gallery": "", "mAP": 0.5, "rank1": 0.25, "valid_queries": 3}
    with database.write() as session:
        row = session.get_one(Evaluation, identifier)
        verification = rates | {"curve": [[0.0, 1.0]]}
        row.metrics = row.metrics | {"verification": verification, "camera_pairs": [pair]}
    shown, (listed,) = client.get(f"/evaluations/{identifier}").json(), client.get("/evaluations").json()["items"]
    assert (shown["verification"], shown["camera_pairs"]) == (verification, [pair])
    assert (listed["verification"], "camera_pairs" in listed) == (rates, False)


def test_the_matrix_shows_the_newest_evaluation_of_each_pair(
    client: httpx.Client, database: Database, models: list[str]
) -> None:
    with database.write() as session:
        session.add(Dataset(id="ds_1", name="lobby", path="/", format="auto", state="ready", uploaded=False))
    add_evaluation(database, models[0], "ds_1", 0.1)
    newest = add_evaluation(database, models[0], "ds_1", 0.5)
    other = add_evaluation(database, models[1], "ds_gone", 0.6)
    matrix = client.get("/evaluations/matrix").json()
    assert matrix["models"] == [{"id": models[n], "name": "ab"[n], "method": "bnneck"} for n in (0, 1)]
    assert matrix["datasets"] == [{"id": "ds_1", "name": "lobby"}, {"id": "ds_gone", "name": None}]
    cells = {(m, d): cell["id"] for m, row in matrix["cells"].items() for d, cell in row.items()}
    assert cells == {(models[0], "ds_1"): newest, (models[1], "ds_gone"): other}
    assert matrix["cells"][models[0]]["ds_1"]["mAP"] == 0.5
    assert matrix["quoted"] == []
    assert client.get("/evaluations/matrix?model=a").status_code == 422


def test_papers_numbers_on_a_data_set_stand_beside_and_are_marked_as_quoted(
    client: httpx.Client, database: Database, models: list[str]
) -> None:
    row = {"path": "/", "format": "auto", "state": "ready", "uploaded": False}
    with database.write() as session:
        for key, format, queries in (
            ("ds_1", "msmt17", 11_659),
            ("ds_2", "cuhk03-np", 1328),
            ("ds_3", "market1501", 90),
        ):
            splits = {"query": {"images": queries, "identities": 1, "cameras": 2}}
            session.add(Dataset(id=key, name=key, detected_format=format, splits=splits, **row))
    for number in (1, 2, 3):
        add_evaluation(database, models[0], f"ds_{number}", 0.5)
    quoted = client.get("/evaluations/matrix").json()["quoted"]
    assert {one["dataset"] for one in quoted} == {"ds_1"}, "one's own data in a public format is no public data set"
    told = {(one["method"], *one["trained_on"]): (one["mAP"], one["rank1"], one["place"]) for one in quoted}
    assert told["ResNet-50", "MSMT17"] == (pytest.approx(0.2863), pytest.approx(0.5977), "table 1")
    assert told["QAConv-P + GS, Market-1501", "Market-1501"] == (pytest.approx(0.15), pytest.approx(0.412), "table 1")
    (cross,) = [one["protocol"] for one in quoted if one["method"] == "QAConv-P + GS, Market-1501"]
    assert "another data set" in cross
    lines = client.get("/evaluations/matrix", params={"format": "markdown"}).text.splitlines()
    assert "*mAP 0.286, rank-1 0.598*" in next(line for line in lines if "ResNet\\-50, trained on MSMT17" in line)
    assert any(line.startswith("[1] Quoted, not measured here") for line in lines)


PUBLISHED = {"name": "openvino", "precision": "bf16", "difference": 0.004, "images": 16, "reason": None}


@pytest.mark.parametrize(
    ("changes", "engine", "shown"),
    [
        ({}, PUBLISHED, {"name": "openvino", "precision": "bf16", "difference": 0.004, "reason": None}),
        ({}, None, {"name": "torch", "difference": None, "images": 0}),
        ({"engine": "torch"}, PUBLISHED, {"name": "torch", "difference": None, "reason": "REID_ENGINE=torch"}),
        ({"device": "cuda:1"}, PUBLISHED, {"name": "torch", "reason": "REID_DEVICE=cuda:1"}),
        ({"engine": "onnxruntime"}, PUBLISHED, {"name": "openvino"}),
    ],
)
def test_a_model_says_which_engine_runs_it(
    changes: dict[str, str], engine: dict[str, Any] | None, shown: dict[str, Any], settings: Settings
) -> None:
    model = Model(id="mdl_1", method="bnneck", engine=engine)
    told = describe_engine(model, settings.model_copy(update=changes))
    assert shown.items() <= told.items()
    if changes.get("engine") == "onnxruntime":
        assert "it cannot be used" in told["reason"]


def test_a_model_from_before_engines_says_so(client: httpx.Client, models: list[str]) -> None:
    engine = client.get(f"/models/{models[0]}").json()["engine"]
    assert engine["name"] == "torch"
    assert "published before models had engines" in engine["reason"]


def test_a_card_tells_what_a_model_is_and_what_it_is_not(
    client: httpx.Client, database: Database, models: list[str]
) -> None:
    evaluation = add_evaluation(database, models[0], "ds_1", 0.7)
    trained_on = {"id": "ds_1", "name": "lobby|2", "fingerprint": "abc", "split": "train", "protocol": None}
    with database.write() as session:
        model = session.get_one(Model, models[0])
        model.settings = {"backbone": "resnet18", "schedule": {"epochs": 3, "base_lr": 0.00035}}
        model.lineage = {"datasets": [trained_on], "init_from": "imagenet", "seed": 7, "teacher": None}
    assert client.get("/models/a").json()["links"]["card"] == f"/models/{models[0]}/card"
    card = client.get("/models/a/card").json()
    assert (card["title"], card["method"]) == ("BNNeck strong baseline", "bnneck")
    changed = {one["name"]: (one["recipe"], one["chosen"]) for one in card["changed_settings"]}
    assert changed == {"backbone": ("resnet50", "resnet18"), "schedule.epochs": (120, 3)}
    assert [one["id"] for one in card["evaluations"]] == [evaluation]
    assert [note.split()[-1] for note in card["licences"]] == ["research.", "them."]
    text = client.get("/models/a/card?format=markdown")
    assert text.headers["content-type"].startswith("text/markdown")
    for line in (
        "# a",
        "- data set 'lobby|2', split train, fingerprint `abc`",
        "- started from: imagenet; seed 7",
        "| schedule.epochs | 120 | 3 |",
        "| ds_1 | none | 0.7 | 0.5 | 3 |",
        "- A result is a resemblance and no proof of identity; a person has to decide what follows from it.",
    ):
        assert line in text.text, text.text
    assert client.get("/models/a/card?format=pdf").status_code == 422
    assert client.get("/models/nobody/card").status_code == 404
