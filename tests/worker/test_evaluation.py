"""Evaluation jobs rank by embeddings, by the matcher or by neighbours, and say which."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid_core.data.records import ImageRecord
from reid_core.errors import Stopped
from reid_core.evaluation.labels import encode_labels
from reid_core.evaluation.open_set import take_out
from reid_core.evaluation.ranking import evaluate_scores
from reid_core.model import MANIFEST_NAME
from reid_core.reranking import Reciprocal, rerank_distances, rerank_embeddings
from service.db.ids import new_ids
from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.db.tables import Dataset, DatasetImage, Evaluation
from service.evaluations.queries import read_results
from service.jobs.lifecycle import claim, enqueue
from service.settings import Settings
from tests.service.galleries.stock import add_model_row, load, save_tiny_model
from tests.service.search.stock import EMBEDDING_SIZE, MATCHER_ID, METHOD, encode, match, save_matching_model, scene
from worker import evaluate
from worker.reporter import Reporter
from worker.work import Work

pytestmark = pytest.mark.usefixtures("scores_in_fp32")

TINY_ID = "mdl_tiny"


@dataclass(frozen=True)
class People:
    """Query and gallery of ten persons whose looks say nothing, their embeddings and maps; half have no match."""

    query: list[ImageRecord]
    gallery: list[ImageRecord]
    vectors: np.ndarray
    others: np.ndarray
    logits: np.ndarray

    def measure(self, scores: np.ndarray) -> dict[str, Any]:
        """The metrics of (Q, G) scores."""
        labels = encode_labels(self.query, self.gallery)
        return evaluate_scores(lambda start, stop: torch.from_numpy(scores)[start:stop], *labels).as_json()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and a database that knows them and the data set."""
    home = tmp_path_factory.mktemp("evaluation") / "home"
    save_matching_model(home / "models" / MATCHER_ID)
    save_tiny_model(home / "models" / TINY_ID)
    return home


@pytest.fixture(scope="module")
def settings(home: Path) -> Settings:
    return Settings(home=home, min_free_bytes=0, device="cpu", threads=1)


@pytest.fixture(scope="module")
def people(settings: Settings) -> People:
    folder = settings.home / "people"
    folder.mkdir()
    images = []
    for number in range(40):
        path = folder / f"{number}.png"
        path.write_bytes(scene(number))
        images.append(ImageRecord(path, f"{number % 10 + 1:04d}", str(number // 10)))
    query, gallery = images[:10], [one for one in images[10:] if one.identity > "0005"]
    (vectors, maps), (others, other_maps) = (
        encode(settings, MATCHER_ID, [one.path.read_bytes() for one in split]) for split in (query, gallery)
    )
    return People(query, gallery, vectors, others, match(settings, maps.half(), other_maps.half()))


@pytest.fixture(scope="module")
def database(settings: Settings, people: People) -> Iterator[Database]:
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    add_model_row(database, MATCHER_ID, "matcher", method=METHOD, size=EMBEDDING_SIZE)
    add_model_row(database, TINY_ID)
    with database.write() as session:
        session.add(_dataset("ds_1", people))
        session.flush()
        session.add_all(_rows("query", people.query) + _rows("gallery", people.gallery))
    yield database
    database.close()


def _dataset(dataset_id: str, people: People) -> Dataset:
    folder = str(people.query[0].path.parent)
    return Dataset(id=dataset_id, name=dataset_id, path=folder, format="auto", state="ready", uploaded=False)


def _rows(split: str, images: list[ImageRecord], dataset_id: str = "ds_1") -> list[DatasetImage]:
    return [
        DatasetImage(
            id=image_id,
            dataset_id=dataset_id,
            split=split,
            position=position,
            path=image.path.name,
            identity=image.identity,
            camera=image.camera,
        )
        for position, (image_id, image) in enumerate(zip(new_ids("img", len(images)), images, strict=True))
    ]


def make_work(settings: Settings, database: Database, *, stop_at: str | None = None, **spec: Any) -> Work:
    """A running job; with `stop_at` it is to end once that phase is shown."""
    resolved = {"model": MATCHER_ID, "dataset": "ds_1", "rerank": "none", "reranker": None, "candidates": None, **spec}
    with database.write() as session:
        job = enqueue(session, "evaluate", resolved)
    assert claim(database, job.id, "worker", 60) == 1
    reporter = Reporter(database, job.id, 1, 60)
    return Work(settings, database, job, 1, reporter, lambda: stop_at is not None and _phase(reporter) == stop_at)


def _phase(reporter: Reporter) -> str | None:
    return (reporter._progress or {}).get("phase")


def run(settings: Settings, database: Database, **spec: Any) -> dict[str, Any]:
    """The job's result, its evaluation row beside it."""
    outcome = evaluate.run(make_work(settings, database, **spec))
    (row,) = outcome.rows
    assert isinstance(row, Evaluation)
    assert (row.rerank, row.reranker_id) == (spec.get("rerank", "none"), spec.get("reranker"))
    assert {**row.metrics, "protocol": row.protocol}.items() <= outcome.result.items()
    return outcome.result


def test_without_re_ranking_embeddings_rank(settings: Settings, database: Database, people: People) -> None:
    result = run(settings, database)
    expected = people.measure(people.vectors @ people.others.T)
    names = ("cmc", "mAP", "mINP", "valid_queries", "queries", "gallery")
    assert {name: result[name] for name in names} == {name: expected[name] for name in names}
    assert "first_stage" not in result
    cells = {(pair["query"], pair["gallery"]): pair["valid_queries"] for pair in result["camera_pairs"]}
    assert cells == {("0", camera): 5 for camera in "123"}
    assert result["verification"]["matching_pairs"] == 15
    assert {name: result["protocol"][name] for name in ("rerank", "reranker", "candidates")} == {
        "rerank": "none",
        "reranker": None,
        "candidates": None,
    }


def test_what_was_found_for_each_query_is_kept(settings: Settings, database: Database, people: People) -> None:
    work = make_work(settings, database, open_set={"share": 0.4, "seed": 3})
    (row,) = evaluate.run(work).rows
    assert isinstance(row, Evaluation)
    results = read_results(settings, row)
    assert (list(results.queries), sum(rank > 0 for rank in results.first_rank)) == (list(range(10)), 3)
    here = {one.identity for one in take_out(people.query, people.gallery, 0.4, 3)[0]}
    kept = np.array([one.identity in here for one in people.gallery])
    for cosines, first in zip(people.vectors @ people.others.T, results.first, strict=True):
        assert first == np.argsort(np.where(kept, -cosines, np.inf), kind="stable")[: len(first)].tolist()
    assert [len(first) for first in results.first] == [9] * 10
    precision = [value for value in results.average_precision if value is not None]
    assert np.mean(precision) == pytest.approx(row.metrics["mAP"])


def test_the_matcher_scores_all_pairs(settings: Settings, database: Database, people: People) -> None:
    result = run(settings, database, rerank="qaconv", reranker=MATCHER_ID)
    expected, first = people.measure(people.logits), people.measure(people.vectors @ people.others.T)
    assert (result["cmc"], result["mAP"]) == (expected["cmc"], pytest.approx(expected["mAP"]))
    assert expected["mAP"] != pytest.approx(first["mAP"])
    assert result["first_stage"] == {"cmc": first["cmc"], "mAP": pytest.approx(first["mAP"])}
    assert (result["protocol"]["rerank"], result["protocol"]["reranker"]) == ("qaconv", MATCHER_ID)
    assert result["protocol"]["similarity"] == "score of the matcher, larger is closer"


@pytest.mark.parametrize("candidates", [1, 4, 1000])
def test_candidates_come_before_the_rest(
    settings: Settings, database: Database, people: People, candidates: int
) -> None:
    result = run(settings, database, rerank="qaconv", reranker=MATCHER_ID, candidates=candidates)
    scores = (people.vectors @ people.others.T).astype(np.float64)
    for row, logits in zip(scores, people.logits, strict=True):
        first = np.argsort(-row, kind="stable")[:candidates]
        row[first] = 10 + logits[first] - logits.min()
    expected = people.measure(scores)
    assert (result["cmc"], result["mAP"]) == (expected["cmc"], pytest.approx(expected["mAP"]))
    assert result["protocol"]["candidates"] == candidates
    assert (result["verification"] is None) is (candidates < len(people.gallery))


def test_another_model_may_find_the_candidates(settings: Settings, database: Database, people: People) -> None:
    result = run(settings, database, model=TINY_ID, rerank="qaconv", reranker=MATCHER_ID)
    alone = run(settings, database, model=TINY_ID)
    assert result["first_stage"] == {"cmc": alone["cmc"], "mAP": alone["mAP"]}
    assert result["mAP"] == pytest.approx(people.measure(people.logits)["mAP"])


def test_neighbours_may_re_rank(settings: Settings, database: Database, people: People) -> None:
    result = run(settings, database, rerank="k_reciprocal")
    scores = rerank_embeddings(people.vectors, people.others, Reciprocal()).scores(0, len(people.query))
    assert result["mAP"] == pytest.approx(people.measure(scores.numpy())["mAP"])
    assert set(result["first_stage"]) == {"cmc", "mAP"}


def test_neighbours_may_re_rank_what_the_matcher_says(settings: Settings, database: Database, people: People) -> None:
    result = run(settings, database, rerank="qaconv+k_reciprocal", reranker=MATCHER_ID)
    contents = [one.path.read_bytes() for one in people.query + people.gallery]
    maps = encode(settings, MATCHER_ID, contents)[1].half()
    distances = 1 - 1 / (1 + np.exp(-match(settings, maps, maps) / 10))
    expected = rerank_distances(distances, Reciprocal())[:10, 10:]
    metrics = people.measure(1 - expected.numpy())
    assert result["mAP"] == pytest.approx(metrics["mAP"])
    assert result["cmc"] == metrics["cmc"]
    assert result["protocol"]["rerank"] == "qaconv+k_reciprocal"
    assert result["first_stage"]["mAP"] == pytest.approx(people.measure(people.vectors @ people.others.T)["mAP"])
    assert result["verification"] is not None


@pytest.mark.parametrize("rerank", ["none", "qaconv"])
def test_several_pictures_of_a_person_and_camera_ask_together(
    settings: Settings, database: Database, people: People, rerank: str
) -> None:
    """The data set's query split has two images by camera 0 of persons 6 to 10, its gallery a third of person 10."""
    changes: dict[str, Any] = {"rerank": rerank, "reranker": MATCHER_ID if rerank == "qaconv" else None}
    name = f"ds_{rerank}"
    images = people.query[5:] + [replace(one, camera="0") for one in people.gallery[:5]]
    gallery = [replace(people.gallery[-1], camera="0"), *people.gallery[5:-1]]
    with database.write() as session:
        session.add(_dataset(name, people))
        session.flush()
        session.add_all(_rows("query", images, name) + _rows("gallery", gallery, name))
    result = run(settings, database, dataset=name, multi_query=True, **changes)
    groups = [[place, place + 5] for place in range(5)]
    groups[4].append(10)
    vectors, maps = encode(settings, MATCHER_ID, [one.path.read_bytes() for one in images + gallery])
    if rerank == "none":
        fused = np.stack([vectors[group].mean(axis=0) for group in groups])
        scores = fused / np.linalg.norm(fused, axis=1, keepdims=True) @ vectors[10:].T
    else:
        logits = match(settings, maps.half(), maps[10:].half())
        scores = np.stack([logits[group].mean(axis=0) for group in groups])
    expected = People(people.query[5:], gallery, vectors, vectors, scores).measure(scores)
    assert (result["queries"], result["cmc"]) == (5, expected["cmc"])
    assert result["mAP"] == pytest.approx(expected["mAP"])
    assert result["protocol"]["multi_query"]


@pytest.mark.parametrize("candidates", [None, 4])
def test_an_open_set_takes_people_out_of_the_gallery(
    settings: Settings, database: Database, people: People, candidates: int | None
) -> None:
    asked = {"share": 0.4, "seed": 3}
    matched = {"rerank": "qaconv", "reranker": MATCHER_ID, "candidates": candidates}
    result = run(settings, database, open_set=asked, **(matched if candidates else {}))
    assert result["open_set"]["taken_out_identities"] == 2
    assert (result["open_set"]["mated_queries"], result["open_set"]["unmated_queries"]) == (3, 7)
    assert result["gallery"] == 9
    assert set(result["open_set"]["rate"]) == {"0.1", "0.01", "0.001"}
    gallery, _ = take_out(people.query, people.gallery, **asked)
    kept = [people.gallery.index(one) for one in gallery]
    cosines, logits = (people.vectors @ people.others.T)[:, kept], people.logits[:, kept]
    if candidates:
        chosen = np.argsort(-cosines, axis=1, kind="stable")[:, :candidates]
        first = [row[places].max() for row, places in zip(logits, chosen, strict=True)]
    else:
        first = cosines.max(axis=1).tolist()
    identities = {one.identity for one in gallery}
    unmated = [score for score, one in zip(first, people.query, strict=True) if one.identity not in identities]
    assert result["open_set"]["threshold"]["0.1"] == pytest.approx(max(unmated), rel=1e-3)


def test_a_result_says_where_re_ranking_made_it_worse(settings: Settings, database: Database) -> None:
    matched = {"rerank": "qaconv", "reranker": MATCHER_ID}
    asked: list[dict[str, Any]] = [{"rerank": "k_reciprocal"}, matched, {"model": TINY_ID, **matched}]
    results = [run(settings, database, **changes) for changes in asked]
    worse = [result["mAP"] < result["first_stage"]["mAP"] for result in results]
    assert set(worse) == {True, False}
    codes = [[warning["code"] for warning in result["warnings"]] for result in results]
    assert codes == [["reranking-below-first-stage"] if one else [] for one in worse]


@pytest.mark.parametrize("rerank", ["none", "qaconv"])
def test_mirror_images_count_where_asked_for_and_the_protocol_says_so(
    settings: Settings, database: Database, people: People, rerank: str
) -> None:
    changes: dict[str, Any] = {"rerank": rerank, "reranker": MATCHER_ID if rerank == "qaconv" else None}
    results = {asked: run(settings, database, flip_average=asked, **changes) for asked in (True, False, None)}
    assert [result["protocol"]["flip_average"] for result in results.values()] == [True, False, False]
    encoder = load(settings, MATCHER_ID).encoder(flip_average=True)
    query, gallery = (
        encoder.encode_files([one.path for one in split], with_maps=True) for split in (people.query, people.gallery)
    )
    if rerank == "qaconv" and query.maps is not None and gallery.maps is not None:
        expected = people.measure(match(settings, query.maps.flatten(1, 2).half(), gallery.maps.flatten(1, 2).half()))
    else:
        expected = people.measure((query.embeddings @ gallery.embeddings.T).numpy())
    assert results[True]["mAP"] == pytest.approx(expected["mAP"])
    assert results[True]["mAP"] != pytest.approx(results[False]["mAP"])
    assert results[None]["mAP"] == results[False]["mAP"]


def test_mirror_images_count_where_the_manifest_says_so(settings: Settings, database: Database, people: People) -> None:
    averaged = "mdl_averaged"
    folder = settings.models_dir / averaged
    shutil.copytree(settings.models_dir / TINY_ID, folder)
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest["preprocessing"]["flip_average"] = True
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    add_model_row(database, averaged, averaged)
    result = run(settings, database, model=averaged)
    assert result["protocol"]["flip_average"]
    assert result["mAP"] == run(settings, database, model=TINY_ID, flip_average=True)["mAP"]
    assert result["mAP"] != run(settings, database, model=TINY_ID)["mAP"]
    matched = run(settings, database, model=averaged, rerank="qaconv", reranker=MATCHER_ID)
    assert (matched["protocol"]["flip_average"], matched["protocol"]["reranker_flip_average"]) == (True, False)


@pytest.mark.parametrize("phase", ["query", "gallery", "rerank"])
def test_embeddings_and_maps_do_not_stay_behind(
    settings: Settings, database: Database, people: People, phase: str
) -> None:
    work = make_work(settings, database, stop_at=phase, rerank="qaconv", reranker=MATCHER_ID)
    with pytest.raises(Stopped):
        evaluate.run(work)
    assert not (work.folder / "scratch").exists()
    (work.folder / "scratch" / "query-maps").mkdir(parents=True)  # what an attempt leaves that is killed
    assert evaluate.run(replace(work, should_stop=lambda: False)).result["queries"] == 10
