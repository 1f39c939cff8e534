"""Jobs of many searches find what single searches find, whatever their queries come from."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from reid_core.errors import Stopped
from service.clock import utc_now
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Dataset, Job, Model
from service.errors import Problem
from service.galleries.opening import open_snapshot
from service.jobs.lifecycle import claim, enqueue, find_job, succeed
from service.jobs.query_files import BLOCK
from service.jobs.uploaded_queries import KEPT, remove_lost_queries, uploaded_path
from service.keys.lifecycle import create_key
from service.settings import Settings
from service.storage import held_file
from tests.service.galleries.jobs import Worker
from tests.service.galleries.stock import SIZE, added_ids, image_file, make_gallery, upload
from worker import search_batch
from worker.reporter import Reporter
from worker.work import Work

COUNT = 24


@pytest.fixture
def ids(client: httpx.Client, model: Model) -> list[str]:
    make_gallery(client)
    metadata = [{"camera": str(number % 3)} for number in range(COUNT)]
    return added_ids(upload(client, "hall", [image_file(number) for number in range(COUNT)], metadata))


def _lines(queries: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(query).encode() + b"\n" for query in queries)


def _parquet(queries: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    kinds = {"id": pyarrow.string(), "image_id": pyarrow.string(), "embedding": pyarrow.list_(pyarrow.float32())}
    schema = pyarrow.schema([(name, kinds[name]) for name in kinds if any(name in query for query in queries)])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(queries, schema), file)
    return file.getvalue()


def _send(client: httpx.Client, content: bytes, **fields: Any) -> httpx.Response:
    return client.post("/search/batch/jobs", files={"queries": ("q", content)}, data={"gallery": "hall", **fields})


def _work(database: Database, settings: Settings, job_id: str, *, stop_after: int = 10**9) -> Work:
    """The next attempt, which is told to stop after so many looks."""
    attempt, looks = claim(database, job_id, "w", 60), iter(range(stop_after))
    assert attempt is not None
    with database.read() as session:
        job = find_job(session, job_id)
    reporter = Reporter(database, job_id, attempt, 60)
    return Work(settings, database, job, attempt, reporter, lambda: next(looks, None) is None)


def test_a_key_that_may_not_search_starts_no_batch_and_the_audit_log_names_the_gallery(
    client: httpx.Client, database: Database, ids: list[str]
) -> None:
    with database.write() as session:
        key = create_key(session, name="writer", scopes=["read", "write"])[1]
    bearer, content = {"Authorization": f"Bearer {key}"}, _lines([{"image_id": ids[0]}])
    refused = client.post(
        "/search/batch/jobs", files={"queries": ("q", content)}, data={"gallery": "hall"}, headers=bearer
    )
    by_gallery = {"kind": "search_batch", "gallery": "hall", "queries": {"gallery": "hall"}}
    for answer in (refused, client.post("/jobs", json=by_gallery, headers=bearer)):
        assert (answer.status_code, "scope 'search'" in answer.json()["detail"]) == (403, True), answer.text
    assert client.get("/jobs/job_1/files/results.jsonl", headers=bearer).status_code == 403
    job = _send(client, content).json()["id"]
    gallery = client.get("/galleries/hall").json()["id"]
    (entry,) = [one for one in client.get("/audit").json()["items"] if one["target"] == job]
    assert entry["detail"] == {"kind": "search_batch", "gallery": gallery}


def _finish(client: httpx.Client, database: Database, settings: Settings, answer: httpx.Response) -> dict[str, Any]:
    """The result of the job that `answer` tells of, carried out as a worker does."""
    assert answer.status_code == 202, answer.text
    work = _work(database, settings, answer.json()["id"])
    outcome = search_batch.run(work)
    with database.write() as session:
        succeed(session, work.job.id, work.attempt, outcome.result)
    assert outcome.clean_up is not None
    outcome.clean_up()
    result: dict[str, Any] = client.get(answer.headers["Location"]).json()["result"]
    return result


def _rows(client: httpx.Client, answer: httpx.Response, result: dict[str, Any]) -> list[dict[str, Any]]:
    (name,) = result["files"]
    content = client.get(f"{answer.headers['Location']}/files/{name}")
    assert content.status_code == 200
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in content.text.splitlines()]
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(content.content)).to_pylist()
    return rows


def _alone(client: httpx.Client, query: dict[str, Any], **options: Any) -> list[tuple[str, float]]:
    if "embedding" in query:
        answer = client.post("/search", json={"gallery": "hall", "embedding": query["embedding"], **options})
    else:
        answer = client.get("/search", params={"gallery": "hall", "image_id": query["image_id"], **options})
    return [(result["image_id"], result["score"]) for result in answer.json()["results"]]


def _told(row: dict[str, Any]) -> list[tuple[str, float]]:
    return [(result["image_id"], pytest.approx(result["score"], abs=1e-6)) for result in row["results"]]


@pytest.mark.parametrize("pack", [_lines, _parquet])
@pytest.mark.parametrize("options", [{}, {"rerank": "k_reciprocal", "candidates": 9}])
def test_a_file_of_queries(
    client: httpx.Client, database: Database, settings: Settings, ids: list[str], pack: Any, options: dict[str, Any]
) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, SIZE)).astype(np.float32).tolist()
    queries = [{"id": f"mine-{number}", "embedding": vector} for number, vector in enumerate(vectors)]
    queries += [
        {"image_id": ids[4]},
        {"image_id": "img_unknown"},
        {"embedding": [1.0, 2.0]},
        {"embedding": [0.0] * SIZE},
    ]
    common = {"top_k": 5, "camera": ["0", "1"], **options}
    answer = _send(client, pack(queries), format="parquet" if pack is _parquet else "jsonl", **common)
    result = _finish(client, database, settings, answer)
    rows = _rows(client, answer, result)
    assert [row["query"] for row in rows] == list(range(7))
    assert [row["id"] for row in rows[:5]] == ["mine-0", "mine-1", "mine-2", ids[4], "img_unknown"]
    for query, row in zip(queries[:4], rows[:4], strict=True):
        assert _told(row) == _alone(client, query, **common)
    assert [bool(row["problem"]) for row in rows] == [False] * 4 + [True] * 3
    assert "has 2 numbers, not 512" in rows[5]["problem"]
    assert (result["queries"], result["problems"], len(result["revisions"])) == (7, 3, 1)
    assert not list(settings.uploads_dir.iterdir()), "the queries are gone once they are answered"


@pytest.mark.parametrize("of", ["split", "gallery"])
def test_the_images_of_a_split_or_a_gallery_are_queries(
    client: httpx.Client, database: Database, settings: Settings, ids: list[str], dataset: Dataset, of: str
) -> None:
    queries = {"dataset": "lobby", "split": "gallery"} if of == "split" else {"gallery": "hall"}
    body = {"kind": "search_batch", "gallery": "hall", "queries": queries, "top_k": 3, "exclude_self": True}
    answer = client.post("/jobs", json=body)
    rows = _rows(client, answer, _finish(client, database, settings, answer))
    asked = [row["id"] for row in rows]
    assert asked == ids if of == "gallery" else len(set(asked)) == 24
    for row in rows[:6]:
        assert row["id"] not in [result["image_id"] for result in row["results"]]
        alone = _alone(client, {"image_id": row["id"]}, top_k=3, exclude_self=True)
        assert [image for image, _ in _told(row)] == [image for image, _ in alone]


def test_an_attempt_goes_on_behind_the_last_block_of_the_one_before(
    client: httpx.Client, database: Database, settings: Settings, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(1).normal(size=(3 * BLOCK - 5, SIZE)).round(3).tolist()
    content = _lines([{"embedding": vector} for vector in vectors])
    whole, broken = _send(client, content, top_k=4), _send(client, content, top_k=4)
    unbroken = _rows(client, whole, _finish(client, database, settings, whole))
    job_id = broken.json()["id"]
    with pytest.raises(Stopped):
        search_batch.run(_work(database, settings, job_id, stop_after=1))
    assert len(list((settings.jobs_dir / job_id / "blocks").iterdir())) == 2
    with database.write() as session:
        session.get_one(Job, job_id).state = "interrupted"
    written: list[str] = []
    original = search_batch._write_block
    monkeypatch.setattr(
        search_batch, "_write_block", lambda path, rows: (written.append(path.name), original(path, rows))
    )
    assert _rows(client, broken, _finish(client, database, settings, broken)) == unbroken
    assert [name[:8] for name in written] == ["00000002"], "only what was missing is searched"
    assert [path.name for path in (settings.jobs_dir / job_id).iterdir()] == ["results.jsonl"]


def test_the_file_of_results_is_sent_as_models_files_are(
    client: httpx.Client, database: Database, settings: Settings, ids: list[str]
) -> None:
    answer = _send(client, _lines([{"image_id": ids[0]}]))
    address = f"{answer.headers['Location']}/files/results.jsonl"
    assert client.get(address).status_code == 404
    result = _finish(client, database, settings, answer)
    whole = client.get(address)
    assert (whole.headers["Content-Type"], len(whole.content)) == (
        "application/x-ndjson",
        result["files"]["results.jsonl"]["bytes"],
    )
    assert whole.headers["ETag"] == f'"{result["files"]["results.jsonl"]["sha256"]}"'
    assert client.get(address, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    assert client.get(address, headers={"Range": "bytes=0-3"}).content == whole.content[:4]
    assert client.get(f"{answer.headers['Location']}/files/log.txt").status_code == 404


def test_a_retry_of_a_job_whose_queries_are_gone_says_so(
    client: httpx.Client, database: Database, settings: Settings, ids: list[str]
) -> None:
    answer = _send(client, _lines([{"image_id": ids[0]}]))
    _finish(client, database, settings, answer)
    again = client.post(f"{answer.headers['Location']}/retry").json()["id"]
    with pytest.raises(Problem, match="gone"):
        search_batch.run(_work(database, settings, again))


@pytest.mark.parametrize(
    ("content", "fields", "status", "told"),
    [
        (b"", {}, 422, "no queries"),
        (b"not json\n", {}, 422, "line 1 is not JSON"),
        (b'{"image_id": "a", "embedding": [1.0]}\n', {}, 422, "line 1"),
        (b'{"embedding": [1.0, NaN]}\n', {}, 422, "line 1"),
        (b"PAR1 and no more", {}, 422, "Parquet"),
        (_parquet([{"id": "a"}]), {}, 422, "no column embedding or image_id, but id"),
        (b'{"image_id": "a"}\n', {"top_k": "1001"}, 422, "REID_MAX_TOP_K"),
        (b'{"image_id": "a"}\n', {"rerank": "qaconv"}, 422, "/rerank"),
        (b'{"image_id": "a"}\n', {"gallery": "nowhere"}, 404, "nowhere"),
        (b'{"image_id": "a"}\n', {"webhook": "no json", "top_k": "many"}, 422, "/webhook"),
        (
            b'{"image_id": "a"}\n',
            {"webhook": '{"url": "http://10.0.0.1/", "secret": "0123456789abcdef"}'},
            422,
            "10.0.0.1",
        ),
    ],
)
def test_what_cannot_be_a_job_is_refused_and_leaves_no_file(
    client: httpx.Client,
    settings: Settings,
    ids: list[str],
    content: bytes,
    fields: dict[str, str],
    status: int,
    told: str,
) -> None:
    answer = _send(client, content, **fields)
    assert (answer.status_code, told in answer.text) == (status, True), answer.text
    assert not list(settings.uploads_dir.glob("*"))
    assert client.get("/jobs").json()["items"] == []


def test_a_rebuild_that_ends_before_the_files_are_opened_is_followed(
    client: httpx.Client, database: Database, settings: Settings, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [{"image_id": image_id} for image_id in ids]
    before = _finish(client, database, settings, answer := _send(client, _lines(queries)))
    rebuilds = [Worker(database, settings, client.get("/galleries/hall").json()["id"]).run]

    def open_late(*arguments: Any) -> Any:
        if rebuilds:
            rebuilds.pop()()
        return open_snapshot(*arguments)

    monkeypatch.setattr(search_batch, "open_snapshot", open_late)
    after = _finish(client, database, settings, again := _send(client, _lines(queries)))
    assert after["revisions"] > before["revisions"]
    assert [_told(row) for row in _rows(client, again, after)] == [
        [(result["image_id"], result["score"]) for result in row["results"]] for row in _rows(client, answer, before)
    ]


def test_queries_that_nobody_needs_are_swept_up_but_not_those_that_arrive_or_wait(
    client: httpx.Client, database: Database, settings: Settings, model: Model
) -> None:
    gallery_id = str(make_gallery(client)["id"])
    long_ago, lately = utc_now() - KEPT - timedelta(hours=1), utc_now() - KEPT + timedelta(hours=1)

    def job(state: str, finished_at: datetime | None, *, file: str | None = None, gallery: str = gallery_id) -> str:
        job_id = new_id("job")
        with database.write() as session:
            spec = {"gallery": gallery, "queries": {"file": file or job_id}}
            row = enqueue(session, "search_batch", spec, job_id=job_id)
            row.state, row.finished_at = state, finished_at
        return job_id

    waiting, failed = job("queued", None), job("failed", lately)
    retried = job("failed", long_ago)
    job("queued", None, file=retried)
    done, old, orphan = job("succeeded", lately), job("cancelled", long_ago), job("queued", None, gallery="gal_1")
    replaced = job("failed", lately)
    job("succeeded", lately, file=replaced)
    lost, arriving = new_id("job"), new_id("job")
    settings.uploads_dir.mkdir(parents=True)
    for job_id in (waiting, failed, retried, done, old, orphan, replaced, lost):
        uploaded_path(settings, job_id).write_bytes(b"embeddings of people")
    with held_file(uploaded_path(settings, arriving)):
        remove_lost_queries(database, settings)
        kept = {path.name.removesuffix(".queries") for path in settings.uploads_dir.iterdir()}
        assert kept == {waiting, failed, retried, arriving}
