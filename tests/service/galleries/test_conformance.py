"""The service answers as its OpenAPI schema says, whatever it is asked: requests made up by schemathesis."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as configured
from hypothesis import strategies as st
from schemathesis import APIOperation, Case
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.db.session import Database
from service.db.tables import Dataset, Evaluation, Model
from tests.service.galleries.stock import added_ids, image_file, make_gallery, upload

pytestmark = pytest.mark.slow

CASES = 1000
EACH = 20
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    allow_header_conformance,
]
EVALUATION = "eval_00000000000000000000000001"
ORDER = ["GET", "POST", "PATCH", "DELETE"]
"""What is there is looked at before it is changed, and deleted last."""


@pytest.fixture
def known(client: httpx.Client, database: Database, model: Model, dataset: Dataset) -> dict[str, str]:
    """Values of parameters that name something that is there: random ones hardly ever do."""
    make_gallery(client)
    images = added_ids(upload(client, "hall", [image_file(seed) for seed in range(6)], [{"identity": "0001"}] * 6))
    with database.read() as session:
        dataset_image = session.query(Dataset).one()
    search = client.get("/search", params={"gallery": "hall", "image_id": images[0]}).json()
    job = client.post("/jobs", json={"kind": "index", "gallery": "hall"}).json()["id"]
    client.post(f"/jobs/{job}/cancel")
    client.post("/api-keys", json={"name": "reader", "scopes": ["read"]})
    add_evaluation(database, model.id, dataset.id)
    return {
        "dataset_id": dataset_image.name,
        "dataset": "lobby",
        "job_id": job,
        "model_id": "tiny",
        "model": "tiny",
        "gallery_id": "hall",
        "gallery": "hall",
        "image_id": images[1],
        "identity": "0001",
        "key_id": "reader",
        "search_id": search["search_id"],
        "rank": "1",
        "slug": "not-found",
        "evaluation_id": EVALUATION,
        "a": EVALUATION,
        "b": EVALUATION,
    }


def add_evaluation(database: Database, model_id: str, dataset_id: str) -> None:
    counts = {"valid_queries": 3, "queries": 4, "gallery": 8}
    with database.write() as session:
        session.add(
            Evaluation(
                id=EVALUATION,
                model_id=model_id,
                dataset_id=dataset_id,
                rerank="none",
                metrics={"cmc": {"1": 0.5}, "mAP": 0.5, "mINP": 0.25, "interval": {"mAP": [0.1, 0.9]}, **counts},
                protocol={},
            )
        )


def test_every_answer_fits_its_schema(client: httpx.Client, known: dict[str, str]) -> None:
    described = client.get("/openapi.json").json()
    statuses: dict[int, int] = {}
    for operation in operations(described):

        @configured(
            max_examples=EACH,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(), names_known=st.booleans())
        def ask(case: Case, names_known: bool) -> None:
            if names_known:
                name_known(case, known)
            answer = case.call(base_url=str(client.base_url), headers=dict(client.headers), timeout=60)
            case.validate_response(answer, checks=CHECKS)
            assert answer.status_code != 500, answer.text
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1

        ask()
    print(f"{sum(statuses.values())} requests: {dict(sorted(statuses.items()))}")
    assert sum(statuses.values()) >= CASES
    assert {200, 201, 202, 204, 404, 409, 422} <= statuses.keys()


def operations(described: dict[str, Any]) -> list[APIOperation]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = schemathesis.openapi.from_dict(described)
    found: Iterator[APIOperation] = (result.ok() for result in schema.get_all_operations())
    return sorted(found, key=lambda operation: ORDER.index(operation.method.upper()))


def name_known(case: Case, known: Mapping[str, str]) -> None:
    """Puts names of things that are there in the place of made-up ones."""
    for values in (case.path_parameters, case.query, case.body):
        if isinstance(values, dict):
            values.update({name: known[name] for name in values.keys() & known.keys()})
