"""Export jobs leave files beside the weights, listed and whole, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_core.errors import ExportFailed, Stopped
from reid_core.external.runtime import import_onnxruntime
from reid_core.model import MANIFEST_NAME, WEIGHTS_NAME, load_model, save_model
from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.db.tables import Dataset, DatasetImage, Model
from service.errors import Problem
from service.jobs.lifecycle import LeaseLost, claim, enqueue
from service.settings import Settings
from tests.service.galleries.stock import add_dataset, add_model_row, save_tiny_model
from worker import export
from worker.model_files import publish_files
from worker.reporter import Reporter
from worker.work import Work

MODEL = "mdl_tiny"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    save_tiny_model(tmp_path / "home" / "models" / MODEL)
    return Settings(home=tmp_path / "home", min_free_bytes=0, device="cpu", threads=1)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    add_model_row(database, MODEL)
    yield database
    database.close()


def make_work(settings: Settings, database: Database, format: str, *, stop: bool = False) -> Work:
    dataset = add_dataset(database, settings.home / "people")
    with database.write() as session:
        job = enqueue(session, "export", {"model": MODEL, "format": format, "datasets": [dataset.id]})
    assert claim(database, job.id, "worker", 60) == 1
    return Work(settings, database, job, 1, Reporter(database, job.id, 1, 60), lambda: stop)


def listed(database: Database) -> dict[str, Any]:
    with database.read() as session:
        return dict(session.get_one(Model, MODEL).files)


def kept(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.models_dir / MODEL).iterdir())


def test_the_files_are_listed_beside_the_weights_and_the_result_says_how_well_they_agree(
    settings: Settings, database: Database
) -> None:
    work = make_work(settings, database, "onnx")
    result = export.run(work).result
    assert (result["model"], result["format"], result["files"]) == (MODEL, "onnx", ["model.onnx"])
    assert result["agreement"]["pictures"] == 24
    assert 0 <= result["agreement"]["embeddings"] < 1e-4
    assert result["agreement"]["maps"] is None

    assert kept(settings) == ["card.md", MANIFEST_NAME, "model.onnx", WEIGHTS_NAME]
    file = settings.models_dir / MODEL / "model.onnx"
    facts = listed(database)
    assert set(facts) == {"card.md", MANIFEST_NAME, "model.onnx", WEIGHTS_NAME}
    assert "## Limits" in (settings.models_dir / MODEL / "card.md").read_text()
    contents = file.read_bytes()
    assert facts["model.onnx"] == {"bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
    assert import_onnxruntime().InferenceSession(file).get_inputs()[0].shape[1:] == [3, 32, 16]
    assert not (work.folder / "export").exists()

    file.write_bytes(b"damaged")
    export.run(Work(settings, database, work.job, 1, work.reporter, lambda: False))
    assert hashlib.sha256(file.read_bytes()).hexdigest() == listed(database)["model.onnx"]["sha256"]


def test_an_export_that_is_stopped_or_has_lost_its_lease_leaves_nothing(settings: Settings, database: Database) -> None:
    before = listed(database)
    work = make_work(settings, database, "onnx", stop=True)
    with pytest.raises(Stopped):
        export.run(work)
    assert not (work.folder / "export").exists()

    with pytest.raises(LeaseLost):  # another attempt has the job
        export.run(Work(settings, database, work.job, 2, work.reporter, lambda: False))
    assert kept(settings) == [MANIFEST_NAME, WEIGHTS_NAME]
    assert listed(database) == before


def test_an_export_that_broke_between_its_files_lists_none_of_them(settings: Settings, database: Database) -> None:
    work, folder = make_work(settings, database, "openvino"), settings.models_dir / MODEL
    before = listed(database)
    publish_files(work, written(work.folder, "first"))
    assert set(listed(database)) == {*before, "model.xml", "model.bin"}

    (folder / "model.bin").unlink()
    (folder / "model.bin").mkdir()
    with pytest.raises(IsADirectoryError):
        publish_files(work, written(work.folder, "second"))
    assert (folder / "model.xml").read_text() == "second"
    assert listed(database) == before


def written(folder: Path, content: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "model.xml", folder / "model.bin"]
    for file in files:
        file.write_text(content)
    return files


def test_the_images_compared_are_spread_over_all_data_sets(settings: Settings, database: Database) -> None:
    work = make_work(settings, database, "onnx")
    sizes = {"ds_large": 119, "ds_small": 60}
    with database.write() as session:
        for key, count in sizes.items():
            row = {"path": f"/{key}", "format": "auto", "state": "ready", "uploaded": False}
            session.add(Dataset(id=key, name=key, **row))
            session.flush()
            for position in range(count):
                place = {"split": "train", "position": position, "path": str(position)}
                labels = {"identity": "1", "camera": "1"}
                session.add(DatasetImage(id=f"{key}_{position}", dataset_id=key, **place, **labels))
    work.job.spec = {**work.job.spec, "datasets": list(sizes)}
    chosen = export._choose_images(work)
    assert len(set(chosen)) == len(chosen) == 60
    assert [sum(path.parent.name == key for path in chosen) for key in sizes] == [40, 20]
    assert int(chosen[-1].name) >= 57


def test_an_export_whose_data_sets_were_deleted_meanwhile_says_what_to_do(
    settings: Settings, database: Database
) -> None:
    work = make_work(settings, database, "onnx")
    work.job.spec = {**work.job.spec, "datasets": ["ds_gone"]}
    with pytest.raises(Problem, match="have been deleted") as caught:
        export.run(work)
    assert "Name as dataset" in str(caught.value.hint)
    assert not (work.folder / "export").exists()


def test_a_full_disk_is_told_before_anything_is_written(settings: Settings, database: Database) -> None:
    full = settings.model_copy(update={"min_free_bytes": 2**62})
    work = make_work(full, database, "onnx")
    with pytest.raises(Problem, match="free") as caught:
        export.run(work)
    assert caught.value.slug == "disk-full"
    assert not (work.folder / "export").exists()


@pytest.mark.slow
def test_embeddings_that_are_no_numbers_agree_with_nothing(settings: Settings, database: Database) -> None:
    folder = settings.models_dir / MODEL
    model = load_model(folder, torch.device("cpu"))
    with torch.no_grad():
        next(model.network.parameters()).fill_(torch.nan)
    save_model(
        folder,
        model.network,
        method="bnneck",
        settings=model.settings,
        num_classes=4,
        preprocessing=model.manifest.preprocessing,
    )
    with pytest.raises(ExportFailed, match="up to nan away"):
        export.run(make_work(settings, database, "onnx"))
    assert kept(settings) == [MANIFEST_NAME, WEIGHTS_NAME]
