"""The images of a data set, over HTTP and as trainings take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from service.datasets.images import images, joined_images, other_people
from service.datasets.registration import register
from service.db.session import Database
from service.settings import Settings
from tests.reid_core.images import make_images
from tests.service.datasets.registering import (
    Register,
    add_row,
    make_market,
    post,
    slug,
)


def test_images_are_browsed_by_split_identity_and_camera(client: httpx.Client, market: Path, run: Register) -> None:
    run(post(client, name="lobby", path="market"))

    def browse(query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.get(f"/datasets/lobby/images?{query}").json()["items"]
        return found

    assert len(browse("limit=200")) == 34
    assert len(browse("split=query")) == 6
    assert {item["identity"] for item in browse("identity=0002")} == {"0002"}
    wanted = browse("split=gallery&identity=0003&camera=2")
    assert [item["path"] for item in wanted] == [
        "bounding_box_test/0003_c2s1_000000_00.png",
        "bounding_box_test/0003_c2s1_000001_00.png",
    ]
    assert (wanted[0]["width"], wanted[0]["height"], wanted[0]["frame"]) == (16, 32, 0)
    assert browse("camera=7") == []
    assert client.get("/datasets/lobby/images?split=val").status_code == 422
    assert client.get("/datasets/lobby/images?person=1").status_code == 422
    one = client.get(wanted[0]["links"]["self"])
    assert one.json() == wanted[0]


def test_pages_of_images_meet_without_gap_or_overlap(client: httpx.Client, market: Path, run: Register) -> None:
    run(post(client, name="lobby", path="market"))
    seen, cursor = [], ""
    while cursor is not None:
        page = client.get(f"/datasets/lobby/images?limit=7{cursor and f'&cursor={cursor}'}").json()
        seen += [(item["split"], item["path"]) for item in page["items"]]
        cursor = page["next_cursor"]

    order = {"train": 0, "query": 1, "gallery": 2}
    assert len(seen) == len(set(seen)) == 34
    assert seen == sorted(seen, key=lambda image: (order[image[0]], image[1]))


def test_the_content_is_the_file_until_it_is_gone(client: httpx.Client, market: Path, run: Register) -> None:
    run(post(client, name="lobby", path="market"))
    image = client.get("/datasets/lobby/images?split=query&limit=1").json()["items"][0]
    file = market / image["path"]

    content = client.get(image["links"]["content"])
    assert content.content == file.read_bytes()
    assert content.headers["content-type"] == "image/png"
    unchanged = client.get(image["links"]["content"], headers={"If-None-Match": content.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")

    file.unlink()
    gone = client.get(image["links"]["content"])
    assert (gone.status_code, slug(gone)) == (404, "not-found")
    assert "gone" in gone.json()["detail"]


def test_a_link_put_in_later_does_not_lead_out_of_the_data_set(
    client: httpx.Client, settings: Settings, market: Path, run: Register
) -> None:
    run(post(client, name="lobby", path="market"))
    image = client.get("/datasets/lobby/images?limit=1").json()["items"][0]
    (market / image["path"]).unlink()
    (market / image["path"]).symlink_to(settings.admin_key_path)

    answer = client.get(image["links"]["content"])

    assert answer.status_code == 404
    assert settings.admin_key_path.read_text().strip() not in answer.text


def test_an_image_belongs_to_its_data_set_only(client: httpx.Client, settings: Settings, run: Register) -> None:
    for name in ("one", "two"):
        make_market(settings.data_roots[0] / name)
        run(post(client, name=name, path=name))
    image = client.get("/datasets/one/images?limit=1").json()["items"][0]

    assert client.get(f"/datasets/two/images/{image['id']}").status_code == 404
    assert client.get(f"/datasets/two/images/{image['id']}/content").status_code == 404
    assert client.get("/datasets/three").status_code == 404


def test_images_come_with_absolute_paths_and_in_the_order_of_their_paths(
    database: Database, settings: Settings, market: Path
) -> None:
    dataset = add_row(database, market, "lobby")
    register(database, settings, dataset.id)

    with database.read() as session:
        query = images(session, settings, dataset, "query")

    assert [image.path for image in query] == sorted((market / "query").iterdir())
    assert (query[1].identity, query[1].camera, query[1].frame) == ("0001", "2", 0)


def test_joined_data_sets_keep_people_and_cameras_apart(database: Database, settings: Settings) -> None:
    datasets = []
    for name in ("one", "two"):
        folder = settings.data_roots[0] / name
        make_images(folder / "shots", identities=2, cameras=1, each=1)
        rows = ["0001_c1s1_000000_00.png,0001,gallery,1", "0002_c1s1_000000_00.png,0000,gallery,"]
        (folder / "manifest.csv").write_text("path,identity,split,camera\n" + "".join(f"shots/{row}\n" for row in rows))
        datasets.append(add_row(database, folder, name))
        register(database, settings, datasets[-1].id)

    with database.read() as session:
        alone = joined_images(session, settings, [(datasets[0], "gallery")])
        joined = joined_images(session, settings, [(dataset, "gallery") for dataset in datasets])

    one, two = (dataset.id for dataset in datasets)
    assert [(image.identity, image.camera) for image in alone] == [("0001", "1"), ("0000", "")]
    assert [(image.identity, image.camera) for image in joined] == [
        (f"{one}/0001", f"{one}/1"),
        (f"{one}/0000", ""),
        (f"{two}/0001", f"{two}/1"),
        (f"{two}/0000", ""),
    ]


def test_people_who_are_trained_on_are_not_among_the_others(database: Database, settings: Settings) -> None:
    folder = settings.data_roots[0] / "overlapping"
    shots = make_images(folder / "shots", identities=4, cameras=2, each=1)
    splits = {("0001", "1"): "train", ("0001", "2"): "query", ("0002", "1"): "query", ("0002", "2"): "gallery"}
    lines = [
        f"shots/{shot.path.name},{shot.identity},{splits.get((shot.identity, shot.camera), 'gallery')},{shot.camera}"
        for shot in shots
    ]
    (folder / "manifest.csv").write_text("path,identity,split,camera\n" + "\n".join(lines) + "\n")
    dataset = add_row(database, folder, "overlapping")
    register(database, settings, dataset.id)

    with database.read() as session:
        others = other_people(session, settings, [(dataset, "train")])
        none = other_people(session, settings, [(dataset, "all")])

    assert [(image.identity, image.camera) for image in others] == [("0002", "1"), ("0002", "2")]
    assert none == []
