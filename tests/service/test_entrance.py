"""The ways in: links, the page that needs no other host, addresses behind a proxy, other origins, near names."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import httpx
import pytest

from reid_core.methods import METHODS
from service.db.session import Database
from service.keys.lifecycle import create_key
from service.main import create_app
from service.settings import Settings
from tests.service.galleries.stock import add_model_row
from tests.service.serving import open_client, serve

PAGE = {"Accept": "text/html,application/xhtml+xml"}


class Addresses(HTMLParser):
    """All that a page names to be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_links_lead_on_from_the_root(client: httpx.Client, prefix: str) -> None:
    entrance = client.get(f"{prefix}/", headers={"Authorization": ""}).json()
    assert entrance["title"] == "Re-ID Search"
    assert entrance["links"]["galleries"] == f"{prefix}/galleries"
    for name, link in entrance["links"].items():
        needs_more = {"search": 422, "ready": 503}
        assert client.get(link).status_code == needs_more.get(name, 200), link


def test_browsers_are_sent_to_the_page(client: httpx.Client) -> None:
    answer = client.get("/", headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


def test_the_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs", headers={"Authorization": ""})
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    addresses = Addresses()
    addresses.feed(page.text)
    assert len(addresses.found) == 3
    for address in [*addresses.found, *re.findall(r"url: '([^']*)'", page.text)]:
        assert address.startswith("/"), address
        loaded = client.get(address, headers={"Authorization": ""})
        assert loaded.status_code == 200, address
    assert "https://" not in page.text
    assert '"validatorUrl": null' in page.text
    assert client.get("/docs/main.py").status_code == 404


@pytest.mark.parametrize("taken_off", [True, False], ids=["prefix taken off", "prefix left in"])
def test_links_are_right_behind_a_proxy(settings: Settings, taken_off: bool) -> None:
    app = create_app(settings.model_copy(update={"root_path": "/tools/reid"}))
    with serve(app) as address, open_client(address + ("" if taken_off else "/tools/reid")) as client:
        client.headers["X-API-Key"] = settings.admin_key_path.read_text().strip()
        assert client.get("/", headers=PAGE).headers["location"] == "/tools/reid/docs"
        assert client.get("/").json()["links"]["jobs"] == "/tools/reid/jobs"
        assert client.get("/v1/").json()["links"]["jobs"] == "/tools/reid/v1/jobs"
        page = client.get("/docs").text
        assert "url: '/tools/reid/openapi.json'" in page
        assert 'src="/tools/reid/docs/swagger-ui-bundle.js"' in page
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/tools/reid"}]
        assert client.get("/galleries/none").json()["instance"] == "/tools/reid/galleries/none"
        assert client.post("/search", json={}, headers={"X-API-Key": ""}).status_code == 401
        made = client.post("/datasets", json={"name": "x", "path": str(make_folder(settings))})
        assert made.headers["location"] == made.json()["links"]["self"] == f"/tools/reid/datasets/{made.json()['id']}"


def make_folder(settings: Settings) -> str:
    folder = settings.data_roots[0] / "x"
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def test_pages_of_named_origins_may_call_and_others_not(settings: Settings) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key, idempotency-key"}
    ours, other = {"Origin": "https://lab.example"}, {"Origin": "https://evil.example"}
    allowed = "access-control-allow-origin"
    with serve(create_app(settings)) as address, open_client(address) as client:
        assert allowed not in client.get("/version", headers=ours).headers
    opened = settings.model_copy(update={"cors_origins": ("https://lab.example", "https://other.example")})
    with serve(create_app(opened)) as address, open_client(address) as client:
        preflight = client.options("/jobs", headers=ours | ask)
        assert (preflight.status_code, preflight.headers[allowed]) == (200, "https://lab.example")
        assert client.options("/jobs", headers=other | ask).status_code == 400
        refused = client.get("/methods", headers=ours)
        assert (refused.status_code, refused.headers[allowed]) == (401, "https://lab.example")
        assert "X-Request-ID" in refused.headers["access-control-expose-headers"]
        assert allowed not in client.get("/version", headers=other).headers
        assert "access-control-allow-credentials" not in preflight.headers


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REID_CORS_ORIGINS", "https://a.example, https://b.example")
    assert Settings().cors_origins == ("https://a.example", "https://b.example")


def test_a_misspelt_name_is_answered_with_those_like_it(client: httpx.Client, database: Database) -> None:
    add_model_row(database, "mdl_00000000000000000000000001", "entrance-2024")
    add_model_row(database, "mdl_00000000000000000000000002", "lobby")
    with database.write() as session:
        searcher = create_key(session, name="searcher", scopes=["write"])[1]
    answer = client.get("/models/entrance-2042")
    assert answer.status_code == 404
    assert answer.json()["hint"].startswith("Did you mean 'entrance-2024'?")
    body = {"name": "hall", "model": "loby"}
    assert "Did you mean 'lobby'" in client.post("/galleries", json=body).json()["hint"]
    other = client.post("/galleries", json=body, headers={"Authorization": f"Bearer {searcher}"})
    assert (other.status_code, "lobby" in other.text) == (404, False)
    assert "Did you mean" not in client.get("/models/nothing-like-it").json()["hint"]


def test_a_method_is_read_by_its_name(client: httpx.Client) -> None:
    listed = {method["name"]: method for method in client.get("/methods").json()["items"]}
    for name in METHODS:
        assert client.get(f"/methods/{name}").json() == listed[name]
    missing = client.get("/methods/bneck")
    assert missing.status_code == 404
    assert "Did you mean 'bnneck'" in missing.json()["hint"]
    assert "qaconv-gs" in missing.json()["hint"]


def test_an_address_that_there_is_not_says_where_to_go_on(client: httpx.Client) -> None:
    assert client.get("/gallerys").json()["hint"] == "`GET /` says where to go on."
