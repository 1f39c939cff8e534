"""POST /datasets: what is accepted and what is refused at once."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import httpx

from service.settings import Settings
from tests.service.datasets.registering import (
    files_below,
    make_market,
    post,
    slug,
    upload,
    zipped,
)


def test_the_same_under_v1_has_links_below_v1(client: httpx.Client, market: Path) -> None:
    answer = client.post("/v1/datasets", json={"name": "lobby", "path": str(market)})

    assert answer.headers["location"] == f"/v1/datasets/{answer.json()['id']}"
    assert answer.json()["links"]["job"].startswith("/v1/jobs/")


def test_the_same_request_with_an_idempotency_key_registers_once(client: httpx.Client, market: Path) -> None:
    body, headers = {"name": "lobby", "path": "market"}, {"Idempotency-Key": "once"}
    first = client.post("/datasets", json=body, headers=headers)
    again = client.post("/datasets", json=body, headers=headers)

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()


def test_a_body_of_another_type_is_refused(client: httpx.Client) -> None:
    for headers in ({"Content-Type": "text/csv"}, {}):
        answer = client.post("/datasets", content=b"name,path", headers=headers)
        assert (answer.status_code, slug(answer)) == (415, "unsupported-media")
    broken = client.post("/datasets", content=b"{", headers={"Content-Type": "application/json"})
    assert (broken.status_code, slug(broken)) == (400, "malformed-request")


def test_a_wrong_path_is_answered_at_once_and_leaves_nothing(
    client: httpx.Client, settings: Settings, tmp_path: Path
) -> None:
    root = settings.data_roots[0]
    make_market(tmp_path / "elsewhere")
    root.mkdir(parents=True)
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "notes.txt").write_text("a file")
    cases = {
        "../../elsewhere": "path-outside-data-roots",
        str(tmp_path / "elsewhere"): "path-outside-data-roots",
        "link": "path-outside-data-roots",
        "/etc": "path-outside-data-roots",
        "missing": "invalid-dataset",
        "notes.txt": "invalid-dataset",
    }
    for path, expected in cases.items():
        answer = client.post("/datasets", json={"name": "lobby", "path": path})
        assert (answer.status_code, slug(answer)) == (422, expected), path
        assert answer.json()["hint"]
    assert client.get("/datasets").json()["items"] == []
    assert client.get("/jobs").json()["items"] == []


def test_paths_are_taken_as_people_write_them(client: httpx.Client, settings: Settings, market: Path) -> None:
    below = market.parent / "floor 1"
    below.mkdir()
    market.rename(below / "market")
    for number, path in enumerate(("floor 1\\market", "./floor 1/market/", "floor 1/./market")):
        post(client, name=f"lobby {number}", path=path)
    home = client.post("/datasets", json={"name": "lobby", "path": "~/market"})
    assert "~ stands for no folder" in home.json()["hint"]


def test_a_link_out_of_the_data_roots_is_refused_and_where_it_leads_is_told(
    client: httpx.Client, settings: Settings, tmp_path: Path
) -> None:
    outside = make_market(tmp_path / "disk" / "market")
    settings.data_roots[0].mkdir(parents=True)
    (settings.data_roots[0] / "linked").symlink_to(outside)
    answer = client.post("/datasets", json={"name": "lobby", "path": "linked"})
    assert (answer.status_code, slug(answer)) == (422, "path-outside-data-roots")
    assert f"'linked' leads to {outside}" in answer.json()["detail"]
    assert "REID_DATA_ROOTS" in answer.json()["hint"]


def test_an_unknown_format_is_answered_with_the_known_ones(client: httpx.Client, market: Path) -> None:
    answer = client.post("/datasets", json={"name": "lobby", "path": "market", "format": "market"})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/format"
    assert {"auto", "market1501", "folders"} <= set(re.findall(r"\w+", answer.json()["detail"]))
    half_a_character = b'{"name": "lobby", "path": "market", "format": "\\ud800"}'
    half = client.post("/datasets", content=half_a_character, headers={"Content-Type": "application/json"})
    assert (half.status_code, half.json()["errors"][0]["pointer"]) == (422, "/format")


def test_names_that_mislead_or_fit_no_address_are_refused(client: httpx.Client, market: Path) -> None:
    for name in ("", "a/b", "a\nb", "a" * 101, "..", "a\\b", " ", "ds_" + "0" * 26, "job_" + "z" * 26):
        answer = client.post("/datasets", json={"name": name, "path": "market"})
        assert answer.status_code == 422, name
        assert answer.json()["errors"][0]["pointer"] == "/name"


def test_a_name_is_the_same_however_it_is_typed(client: httpx.Client, market: Path) -> None:
    shown = post(client, name=" Jose\u0301 ", path="market")

    assert shown["name"] == "Jos\u00e9"
    for typed in ("Jos\u00e9", "Jose\u0301", " Jos\u00e9"):
        assert client.get(f"/datasets/{quote(typed)}").json()["id"] == shown["id"]
        assert slug(client.post("/datasets", json={"name": typed, "path": "market"})) == "name-taken"


def test_a_name_is_given_once(client: httpx.Client, settings: Settings, market: Path, tmp_path: Path) -> None:
    post(client, name="lobby", path="market")

    again = client.post("/datasets", json={"name": "lobby", "path": "market"})
    sent = upload(client, zipped(market), name="lobby")

    assert (again.status_code, slug(again)) == (409, "name-taken")
    assert (sent.status_code, slug(sent)) == (409, "name-taken")
    assert files_below(settings.uploads_dir) == []
    assert len(client.get("/jobs").json()["items"]) == 1
