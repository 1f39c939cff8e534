"""Failures as pictures: strips of the real images with ticks and crosses, bars, a heat map."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageColor
from sqlalchemy import select

from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Evaluation, Job
from service.drawing.colours import INK, NEUTRAL, PAPER, RIGHT, SCALE, WRONG
from service.evaluations.queries import QueryResults, write_results
from service.settings import Settings
from tests.service.colour_vision import PLAIN, too_close
from tests.service.galleries.stock import add_model_row

DATASET, MODEL = "ds_1", "mdl_1"
QUERY, GALLERY = ("a/1", "a/2", "b/1", "c/1"), ("a/3", "b/3", "b/2", "x/1", "b/4")
RESULTS = QueryResults(
    queries=[0, 1, 2, 3],
    people=[0, 0, 1, 2],
    matches=[1, 1, 2, 0],
    average_precision=[0.2, 1.0, 0.75, None],
    first_rank=[5, 1, 2, 0],
    first=[[1, 2, 4, 3, 0], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 2, 4, 3, 0]],
    scores=[[0.9, 0.8, 0.7, 0.6, 0.5]] * 3 + [[0.5, 0.4, 0.3, 0.2, None]],
)
PERFECT = QueryResults(
    queries=[0], people=[0], matches=[1], average_precision=[1.0], first_rank=[1], first=[[0]], scores=[[0.9]]
)
VIEWS = ("worst_queries", "hardest_identities", "confused_cameras", "label_suspects")

LEFT, TOP, FRAME, WIDTH, HEIGHT, COLUMN = 16, 102, 4, 80, 152, 112
"""Where the first tile of a sheet stands, and how far the next."""


def colour_of(place: int) -> tuple[int, int, int]:
    """The one colour of the gallery image at that place."""
    return (40 * place, 255 - 40 * place, 100)


@pytest.fixture
def folder(database: Database, settings: Settings) -> Path:
    """A data set of images of one colour each, in its folder."""
    add_model_row(database, MODEL, "plain")
    folder = settings.home / "uploads" / "people"
    with database.write() as session:
        path = str(folder)
        session.add(Dataset(id=DATASET, name="people", path=path, format="auto", state="ready", uploaded=False))
        session.flush()
        for split, labels in (("query", QUERY), ("gallery", GALLERY)):
            (folder / split).mkdir(parents=True)
            for place, label in enumerate(labels):
                session.add(_image(split, place, *label.split("/")))
                Image.new("RGB", (32, 64), colour_of(place)).save(folder / split / f"{place}.png")
    return folder


def _image(split: str, position: int, identity: str, camera: str) -> DatasetImage:
    return DatasetImage(
        id=f"img_{split}{position}",
        dataset_id=DATASET,
        split=split,
        position=position,
        path=f"{split}/{position}.png",
        identity=identity,
        camera=camera,
    )


def add_evaluation(database: Database, settings: Settings, results: QueryResults = RESULTS) -> str:
    job_id, identifier = new_id("job"), new_id("eval")
    metrics = {"mAP": 0.5, "cmc": {"1": 0.5}, "valid_queries": 3, "mINP": 0.25, "queries": 4, "gallery": 5}
    row: dict[str, Any] = {"model_id": MODEL, "dataset_id": DATASET, "rerank": "none"}
    with database.write() as session:
        session.add(Job(id=job_id, kind="evaluate", spec={}, state="succeeded"))
        session.flush()
        protocol = {"multi_query": False, "open_set": None}
        made = Evaluation(id=identifier, job_id=job_id, metrics=metrics | {"interval": {}}, protocol=protocol, **row)
        session.add(made)
    write_results(settings.jobs_dir / job_id, results)
    return identifier


def draw(client: httpx.Client, path: str, **query: Any) -> np.ndarray:
    answer = client.get(path, params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    assert answer.headers["cache-control"] == "private, no-cache"
    with Image.open(io.BytesIO(answer.content)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def tile(drawn: np.ndarray, row: int, column: int, row_height: int) -> tuple[str, tuple[int, ...], int]:
    """A tile's frame, the colour in its middle, and how many pixels the mark beside it has."""
    left, top = LEFT + column * COLUMN + (10 if column else 0), TOP + row * row_height
    frame = drawn[top + 1, left + 1]
    beside = drawn[top : top + 30, left + WIDTH + 1 : left + COLUMN - 4]
    middle = drawn[top + HEIGHT // 2, left + WIDTH // 2]
    return "#%02x%02x%02x" % tuple(frame), tuple(middle.tolist()), int((beside != 255).any(axis=2).sum())  # noqa: UP031


@pytest.mark.usefixtures("folder")
def test_worst_queries_stand_beside_what_was_found(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    evaluation = add_evaluation(database, settings)
    links = client.get(f"/v1/evaluations/{evaluation}/failures").json()["links"]
    assert {name: client.get(f"/v1/evaluations/{evaluation}").json()["links"][name] for name in VIEWS} == {
        name: links[name] for name in VIEWS
    }
    drawn = draw(client, links["worst_queries"])
    row_height = (drawn.shape[0] - TOP - 16) // 3
    query, *results = (tile(drawn, 0, column, row_height) for column in range(6))
    assert query == (NEUTRAL, colour_of(0), 0)  # nothing is judged, no mark
    assert [frame for frame, _, _ in results] == [WRONG] * 4 + [RIGHT]
    assert [middle for _, middle, _ in results] == [colour_of(place) for place in RESULTS.first[0]]
    assert min(mark for _, _, mark in results) > 40
    cross, tick = (drawn[TOP : TOP + 30, LEFT + 10 + column * COLUMN + WIDTH :][:, :24] for column in (1, 5))
    shapes = [(part != 255).any(axis=2) for part in (cross, tick)]
    assert (shapes[0] != shapes[1]).sum() > 40  # told apart without their colours
    assert draw(client, links["worst_queries"], limit=1).shape[0] == TOP + 16 + row_height


@pytest.mark.usefixtures("folder")
def test_label_suspects_stand_beside_their_neighbours(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    evaluation = add_evaluation(database, settings)
    drawn = draw(client, f"/evaluations/{evaluation}/failures/label_suspects.png")
    query, *results = (tile(drawn, 0, column, drawn.shape[0]) for column in range(6))
    assert query[:2] == (NEUTRAL, colour_of(3))
    assert [frame for frame, _, _ in results] == [WRONG] * 5
    assert [middle for _, middle, _ in results] == [colour_of(place) for place in RESULTS.first[3]]


def test_an_image_that_is_gone_leaves_an_empty_frame(
    client: httpx.Client, database: Database, settings: Settings, folder: Path
) -> None:
    path = f"/evaluations/{add_evaluation(database, settings)}/failures/worst_queries.png"
    before = draw(client, path)
    (folder / "gallery" / "1.png").unlink()
    (folder / "gallery" / "2.png").write_bytes(b"no image")
    after = draw(client, path)
    row_height = (after.shape[0] - TOP - 16) // 3
    paper = tuple(ImageColor.getrgb(PAPER))
    assert [tile(after, 0, column, row_height)[1] in (paper, (34, 34, 34)) for column in (1, 2, 3)] == [
        True,
        True,
        False,
    ]
    assert tile(before, 0, 1, row_height)[1] == colour_of(1)


@pytest.mark.usefixtures("folder")
def test_people_and_cameras_are_charts(client: httpx.Client, database: Database, settings: Settings) -> None:
    evaluation = add_evaluation(database, settings)
    bars = draw(client, f"/evaluations/{evaluation}/failures/hardest_identities.png")
    blue = (bars == ImageColor.getrgb(RIGHT)).all(axis=2)
    longest = [int(length) for length in np.unique(blue.sum(axis=1))[-2:]]
    assert longest[0] / longest[1] == pytest.approx(0.6 / 0.75, abs=0.02)  # mAP of a and of b
    cameras = draw(client, f"/evaluations/{evaluation}/failures/confused_cameras.png")
    import matplotlib

    lightest = np.array(matplotlib.colormaps[SCALE](1.0)[:3]) * 255  # 2 of 2 queries of camera 1
    assert (abs(cameras - lightest) <= 1).all(axis=2).sum() > 10_000


@pytest.mark.usefixtures("folder")
def test_hostile_labels_are_cut_and_change_no_layout(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    evaluation = add_evaluation(database, settings)
    plain = {view: draw(client, f"/evaluations/{evaluation}/failures/{view}.png").shape for view in VIEWS}
    with database.write() as session:
        for image in session.scalars(select(DatasetImage)):
            image.identity = f"{image.identity}<img src=x onerror=alert(1)>$\\frac{{1}}{{2}}$ \u202e大{'long' * 50}"
            image.camera = image.identity
    for view in VIEWS:
        assert draw(client, f"/evaluations/{evaluation}/failures/{view}.png").shape[1:] == plain[view][1:], view


@pytest.mark.usefixtures("folder")
def test_without_failures_the_pictures_say_so(client: httpx.Client, database: Database, settings: Settings) -> None:
    evaluation = add_evaluation(database, settings, PERFECT)
    shapes = {view: draw(client, f"/evaluations/{evaluation}/failures/{view}.png").shape for view in VIEWS}
    assert shapes["label_suspects"][0] < 200


def test_pictures_of_failures_need_the_data_set(client: httpx.Client, database: Database, settings: Settings) -> None:
    add_model_row(database, MODEL, "plain")
    evaluation = add_evaluation(database, settings)
    for view in VIEWS:
        assert client.get(f"/evaluations/{evaluation}/failures/{view}.png").status_code == 409
    assert client.get(f"/evaluations/{evaluation}/failures/best.png").status_code == 422
    assert client.get("/evaluations/eval_no/failures/worst_queries.png").status_code == 404


def test_right_and_wrong_are_plain_for_every_kind_of_colour_vision() -> None:
    assert too_close((RIGHT, WRONG), PLAIN) == []
    assert too_close((RIGHT, WRONG, NEUTRAL, PAPER, INK)) == []
    before = ("#1a9641", "#d7191c")  # the green and the red that stood here
    assert {vision for vision, *_ in too_close(before, PLAIN)} == {"protanopia", "deuteranopia"}
