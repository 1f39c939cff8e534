"""Explanations name places in both images, are drawn for a while, and keep nothing that erasing would miss."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

from service.db.session import Database
from service.drawing.colours import SERIES
from service.kept_searches import keep_record, sweep_records
from service.keys.lifecycle import create_key
from service.search.explanations.drawing import Side, draw, fitted
from service.search.explanations.pairs import PlacePair
from service.settings import Settings
from tests.service.colour_vision import too_close
from tests.service.galleries.stock import added_ids, files_containing, make_gallery, upload
from tests.service.search.stock import GRID, MATCHER_ID, encode, match, scene

HOUR = 3600


def search(client: httpx.Client, *contents: bytes, **fields: Any) -> dict[str, Any]:
    files = [("image", (f"{number}.png", content)) for number, content in enumerate(contents)]
    answer = client.post("/search", data={"gallery": "hall", "explain": "true", **fields}, files=files)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def search_stored(client: httpx.Client, image_id: str, **parameters: Any) -> dict[str, Any]:
    answer = client.get("/search", params={"gallery": "hall", "image_id": image_id, "explain": True, **parameters})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def location(place: list[float], size: tuple[int, int]) -> int:
    """Finds the cell of the map that has its middle at `place` of an image of `size`."""
    column, row = place[0] * GRID[1] / size[0] - 0.5, place[1] * GRID[0] / size[1] - 0.5
    assert (column, row) == (pytest.approx(round(column)), pytest.approx(round(row)))
    return round(row) * GRID[1] + round(column)


def test_places_that_correspond_are_given_in_pixels(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    size = (48, 160)
    asked = scene(30, size)
    _, query = encode(settings, MATCHER_ID, [asked])
    _, gallery = encode(settings, MATCHER_ID, [scene(number) for number in range(len(ids))])
    for result in search(client, asked, rerank="qaconv")["results"]:
        stored = gallery[ids.index(result["image_id"])]
        similarities = (query[0] @ stored.T).numpy()
        assert 1 <= len(result["correspondences"]) <= 16
        for pair in result["correspondences"]:
            row, column = location(pair["query"], size), location(pair["match"], (32, 64))
            assert pair["similarity"] == pytest.approx(similarities[row, column], abs=2e-3)
            assert similarities[row, column] >= similarities[row].max() - 2e-3
        assert len({tuple(pair["query"]) for pair in result["correspondences"]}) == len(result["correspondences"])


@pytest.mark.parametrize("rerank", ["none", "qaconv", "k_reciprocal"])
def test_every_search_can_be_explained(client: httpx.Client, ids: list[str], rerank: str) -> None:
    body = search_stored(client, ids[0], rerank=rerank, top_k=3)
    plain = client.get("/search", params={"gallery": "hall", "image_id": ids[0], "rerank": rerank, "top_k": 3}).json()
    assert [one["image_id"] for one in body["results"]] == [one["image_id"] for one in plain["results"]]
    assert "explain" in body["timings_ms"]
    itself = next(one for one in body["results"] if one["image_id"] == ids[0])
    assert itself["correspondences"]
    for pair in itself["correspondences"]:
        assert (pair["query"], pair["similarity"]) == (pair["match"], pytest.approx(1, abs=2e-3))
    assert all("correspondences" not in one and "explanation" not in one["links"] for one in plain["results"])


def test_of_several_images_the_closest_explains(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    asked = [scene(2), scene(6), scene(40)]
    logits = match(settings, encode(settings, MATCHER_ID, asked)[1], encode(settings, MATCHER_ID, asked[:2])[1])
    found = {one["image_id"]: one for one in search(client, *asked, rerank="qaconv", top_k=12)["results"]}
    assert [found[ids[number]]["query_picture"] for number in (2, 6)] == [int(p) + 1 for p in logits.argmax(axis=0)]
    drawing = client.get(found[ids[6]]["links"]["explanation"])
    assert drawing.status_code == 200, drawing.text


def test_of_several_images_those_that_explain_are_kept(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    asked = [scene(2), scene(6), scene(40)]
    body = search(client, *asked, top_k=1, fusion="max")
    (shown,) = body["results"]
    number = shown["query_picture"] - 1
    assert [path.name for path in kept(settings)] == [f"picture-{number}", "record.json"]
    assert kept(settings)[0].read_bytes() == asked[number]


def test_explanations_are_drawn(client: httpx.Client, ids: list[str]) -> None:
    for body in (search_stored(client, ids[0]), search(client, scene(0, (64, 96)), rerank="qaconv")):
        drawings = []
        for result in body["results"][:2]:
            drawing = client.get(result["links"]["explanation"])
            assert (drawing.status_code, drawing.headers["content-type"]) == (200, "image/png")
            assert drawing.headers["cache-control"] == "private, no-store"
            with Image.open(io.BytesIO(drawing.content)) as image:
                image.load()
                assert (image.mode, image.height) == ("RGB", 726)
            drawings.append(drawing.content)
        assert drawings[0] != drawings[1]
        assert client.get(f"/v1/search/{body['search_id']}/results/1/explanation.png").content == drawings[0]


def test_lines_end_where_the_places_are() -> None:
    heat = np.ones((2, 1), np.float32)
    drawn = draw_black(heat, [PlacePair((5, 5), (5, 15), 0.5, 0.25)])
    coloured = np.argwhere(drawn.max(axis=2) - drawn.min(axis=2) > 100)
    in_images = coloured[coloured[:, 1] < drawn.shape[1] - 190]  # right of it is the legend
    first, last = in_images[in_images[:, 1].argmin()], in_images[in_images[:, 1].argmax()]
    left, top, width, height = 16, 72, 280, 560
    assert first == pytest.approx([top + height / 4, left + width / 2], abs=10)
    assert last == pytest.approx([top + 42 + 3 * height / 4, left + width + 140 + width / 2], abs=10)


def test_places_that_add_nothing_are_faded() -> None:
    drawn = draw_black(np.array([[0.0], [1.0]], np.float32), [])
    assert drawn[90, 100].mean() > 100
    assert drawn[615, 100].mean() < 20


def test_lines_are_told_apart_by_numbers_and_neighbours_by_colours() -> None:
    heat = np.ones((2, 1), np.float32)
    pairs = [PlacePair((5, height), (5, height), 0.9, 0.1) for height in range(2, 20)]
    drawn = draw_black(heat, pairs)
    legend = drawn[60:480, -180:-140]
    discs = [ImageColor.getrgb(colour) for colour in SERIES[:-1]]
    present = [colour for colour in discs if (abs(legend - colour).max(axis=2) <= 2).sum() > 100]
    assert present == discs
    assert too_close(SERIES[:-1]) == []
    rows = [legend[row * 22 : row * 22 + 22] for row in range(18)]  # with their numbers, none looks like another
    assert min(abs(one - other).sum() for one, other in combinations(rows, 2)) > 1000


def draw_black(heat: NDArray[np.float32], pairs: list[PlacePair]) -> NDArray[np.int64]:
    black = Image.new("RGB", (10, 20))
    title = "rank 1: score 0.500"
    drawn = draw(title, side("query", black, heat), side("match", black, heat), pairs, weights=(0.1, 0.2))
    return np.asarray(drawn).astype(np.int64)


def side(title: str, image: Image.Image, heat: NDArray[np.float32]) -> Side:
    return Side(title, fitted(image), image.size, heat)


def kept(settings: Settings) -> list[Path]:
    return sorted(path for path in settings.searches_dir.rglob("*") if path.is_file())


def test_only_what_was_sent_is_kept_and_only_to_explain(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    sent = scene(77)
    assert search(client, sent, explain="false")["results"]
    assert kept(settings) == []
    stored = search_stored(client, ids[3])["search_id"]
    assert [path.relative_to(settings.searches_dir).as_posix() for path in kept(settings)] == [f"{stored}/record.json"]
    uploaded = search(client, sent)["search_id"]
    folder = settings.searches_dir / uploaded
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "picture-0": 0o600,
        "record.json": 0o600,
    }
    assert (folder / "picture-0").read_bytes() == sent
    vectors, maps = encode(settings, MATCHER_ID, [sent])
    for needle in (vectors.tobytes(), maps.numpy().tobytes(), maps.half().numpy().tobytes()):
        assert files_containing(settings.searches_dir, needle) == []


def test_what_is_kept_of_a_search_goes_with_the_images_that_it_names(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    for erased, image in ((0, ids[0]), (1, ids[1])):
        body = search_stored(client, image, top_k=5)
        sent = search(client, scene(20 + erased), top_k=1, camera=str(erased + 1))["search_id"]
        link = body["results"][1]["links"]["explanation"]
        assert client.get(link).status_code == 200
        gone = body["results"][1 if erased else 0]["image_id"]  # the match, or the query itself
        client.delete(f"/galleries/hall/images/{gone}")
        assert client.get(link).status_code == 404
        assert not (settings.searches_dir / body["search_id"]).exists()
        assert (settings.searches_dir / sent).exists()


def test_a_receipt_names_the_images_that_searchers_sent_with_their_end(client: httpx.Client, ids: list[str]) -> None:
    before = datetime.now(UTC)
    search(client, scene(50), top_k=1, exclude_camera="0")
    receipt = client.delete("/galleries/hall/images", params={"camera": "0"}).json()
    (remaining,) = receipt["remaining"]
    assert "explanations" in remaining["what"]
    assert before < datetime.fromisoformat(remaining["until"]) - timedelta(hours=1) < datetime.now(UTC)


def test_a_search_that_is_answered_while_its_result_is_erased_keeps_nothing(
    client: httpx.Client, ids: list[str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def erase_first(*arguments: Any) -> None:
        client.delete(f"/galleries/hall/images/{ids[4]}")
        keep_record(*arguments)

    monkeypatch.setattr("service.search.engine.keep_record", erase_first)
    assert len(search(client, scene(4), top_k=12)["results"]) == 12
    assert kept(settings) == []


def test_drawings_outlive_changes_of_the_gallery(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    body = search(client, scene(0), top_k=3)
    link = body["results"][0]["links"]["explanation"]
    before = client.get(link).content
    found = {result["image_id"] for result in body["results"]}
    client.delete(f"/galleries/hall/images/{next(image for image in ids if image not in found)}")
    upload(client, "hall", [scene(99)])
    assert client.get(link).content == before
    client.delete("/galleries/hall")
    assert client.get(link).status_code == 404
    assert kept(settings) == []


def test_images_that_are_not_kept_cannot_be_drawn(client: httpx.Client, matcher: object) -> None:
    make_gallery(client, model="matcher", keep_images=False)
    added_ids(upload(client, "hall", [scene(1)]))
    (result,) = search(client, scene(1))["results"]
    assert result["correspondences"]
    answer = client.get(result["links"]["explanation"])
    assert (answer.status_code, "keeps no images" in answer.json()["detail"]) == (404, True)


def test_records_end_with_their_time(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    old, older, fresh = (search(client, scene(5))["search_id"] for _ in range(3))
    for search_id, age in ((old, HOUR + 1), (older, 2 * HOUR), (fresh, HOUR - 60)):
        folder = settings.searches_dir / search_id
        then = folder.stat().st_mtime - age
        os.utime(folder, (then, then))
    assert client.get(f"/search/{old}/results/1/explanation.png").status_code == 404
    assert not (settings.searches_dir / old).exists()
    sweep_records(settings)
    assert [path.name for path in settings.searches_dir.iterdir()] == [fresh]
    assert client.get(f"/search/{fresh}/results/1/explanation.png").status_code == 200


def test_only_who_searched_sees_what_was_sent(client: httpx.Client, ids: list[str], database: Database) -> None:
    with database.write() as session:
        keys = [create_key(session, name=name, scopes=["search"])[1] for name in ("one", "two")]
    files = {"image": scene(7)}
    data = {"gallery": "hall", "explain": "true"}
    asked = client.post("/search", data=data, files=files, headers={"Authorization": f"Bearer {keys[0]}"}).json()
    link = asked["results"][0]["links"]["explanation"]
    statuses = [client.get(link, headers={"Authorization": f"Bearer {key}"}).status_code for key in keys]
    assert (statuses, client.get(link).status_code) == ([200, 404], 200)


NOWHERE = ["search_nobody", "search_" + "0" * 26, "..", "%2e%2e", "..%2f..", "..%5c..", "record.json", "%00", "search_"]


@pytest.mark.parametrize("search_id", NOWHERE)
def test_unknown_searches_are_not_found(client: httpx.Client, ids: list[str], search_id: str) -> None:
    search(client, scene(1))
    assert client.get(f"/search/{search_id}/results/1/explanation.png").status_code == 404


def test_results_that_were_not_given_cannot_be_explained(client: httpx.Client, ids: list[str]) -> None:
    search_id = search(client, scene(1), top_k=2)["search_id"]
    statuses = [client.get(f"/search/{search_id}/results/{rank}/explanation.png").status_code for rank in (0, 1, 2, 3)]
    assert statuses == [404, 200, 200, 404]
    plain = client.get("/search", params={"gallery": "hall", "image_id": ids[0]}).json()["search_id"]
    assert client.get(f"/search/{plain}/results/1/explanation.png").status_code == 404


class TestWithoutKeeping:
    """A service whose operator has nothing kept."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"explanation_minutes": 0})

    def test_nothing_is_kept_and_no_drawing_promised(
        self, client: httpx.Client, ids: list[str], settings: Settings
    ) -> None:
        (result, *_) = search(client, scene(1))["results"]
        assert (bool(result["correspondences"]), "explanation" in result["links"]) == (True, False)
        assert kept(settings) == []
