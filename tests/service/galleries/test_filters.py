"""Images are listed and erased by their labels and their times."""

from __future__ import annotations

import hashlib

import httpx
import pytest

from service.db.tables import Model
from tests.service.galleries.stock import added_ids, image_file, make_gallery, upload

TIMES = ["2026-01-01T10:00:00Z", "2026-01-02T10:00:00Z", "2026-01-03T10:00:00Z", None]


@pytest.fixture
def ids(client: httpx.Client, model: Model) -> list[str]:
    """One image of each of `TIMES`, the first two by camera a."""
    make_gallery(client)
    metadata = [{"captured_at": time, "camera": "a" if number < 2 else "b"} for number, time in enumerate(TIMES)]
    return added_ids(upload(client, "hall", [image_file(number) for number in range(4)], metadata))


def _listed(client: httpx.Client, **filters: str) -> list[str]:
    answer = client.get("/galleries/hall/images", params=filters)
    assert answer.status_code == 200, answer.text
    return [image["id"] for image in answer.json()["items"]]


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({}, [0, 1, 2, 3]),
        ({"captured_after": TIMES[1]}, [1, 2]),
        ({"captured_before": TIMES[1]}, [0]),
        ({"captured_after": TIMES[0], "captured_before": TIMES[2], "camera": "a"}, [0, 1]),
        ({"captured_after": "2026-01-02T11:00:00+01:00", "camera": "b"}, [2]),
    ],
)
def test_lists_and_erasures_agree_on_what_a_filter_means(
    client: httpx.Client, ids: list[str], filters: dict[str, str], numbers: list[int]
) -> None:
    assert _listed(client, **filters) == [ids[number] for number in numbers]
    if filters:
        receipt = client.delete("/galleries/hall/images", params=filters).json()
        assert receipt["removed"]["images"] == len(numbers)
        assert _listed(client) == [image for number, image in enumerate(ids) if number not in numbers]


def test_the_receipt_names_times_and_hides_labels(client: httpx.Client, ids: list[str]) -> None:
    filters = {"captured_before": "2026-01-02T00:00:00Z", "camera": "a"}
    receipt = client.delete("/galleries/hall/images", params=filters).json()
    assert receipt["captured_before"] == "2026-01-02T00:00:00Z"
    assert receipt["camera_sha256"] == hashlib.sha256(b"a").hexdigest()
    (entry,) = [one for one in client.get("/audit").json()["items"] if one["action"] == "gallery.erase_images"]
    assert entry["detail"]["captured_before"] == "2026-01-02T00:00:00Z"
    assert client.delete("/galleries/hall/images", params=filters).status_code == 404


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_times_between_which_nothing_lies_are_refused(client: httpx.Client, ids: list[str], method: str) -> None:
    filters = {"captured_after": TIMES[1], "captured_before": TIMES[1]}
    answer = client.request(method, "/galleries/hall/images", params=filters)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/captured_after")
    assert len(_listed(client)) == 4
