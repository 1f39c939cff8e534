"""Proposed persons: found among images without identity, and consistent whatever becomes of these."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from reid_core.clustering import Clustering
from service.db.ids import new_ids
from service.db.session import Database
from service.db.tables import Cluster, ClusterImage, Gallery, GalleryImage, Job
from service.errors import Problem
from service.galleries.clustering import cluster_gallery
from service.galleries.clusters import Proposal, add_clusters, take_from_clusters
from service.galleries.erasure import erase_image
from service.galleries.images import append
from service.galleries.lifecycle import create_gallery, lock_gallery
from service.galleries.reviewing import reject_cluster
from service.galleries.schemas import GalleryBody
from service.jobs.body_schemas import ClusteringSettings
from service.settings import Settings
from tests.reid_core.test_clustering import draw_people
from tests.service.galleries.conftest import MODEL_ID
from tests.service.galleries.stock import SIZE, add_model_row

PEOPLE, EACH = 5, 6


class Hall:
    """A gallery of five people, six images each; the first person's are named."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings = database, settings
        add_model_row(database, MODEL_ID)
        with database.write() as session:
            self.id = create_gallery(session, settings, GalleryBody(name="hall", model="tiny")).id
        self.images = new_ids("img", PEOPLE * EACH)
        rows = [self._row(number, image) for number, image in enumerate(self.images)]
        append(database, settings, self.id, rows, (draw_people(PEOPLE, EACH, spread=0.15, size=SIZE),))

    def person(self, number: int) -> list[str]:
        return self.images[number * EACH : (number + 1) * EACH]

    def cluster(self) -> dict[str, Any]:
        return cluster_gallery(
            self.database,
            self.settings,
            self.id,
            Clustering(),
            on_progress=lambda done, total: None,
            should_stop=lambda: False,
        )

    def _row(self, number: int, image: str) -> GalleryImage:
        return GalleryImage(
            id=image,
            identity="anna" if number < EACH else None,
            camera=f"{number % 2}",
            filename=f"{number}.png",
            sha256="0",
            width=16 + number,
            height=32,
        )


@pytest.fixture
def hall(database: Database, settings: Settings) -> Hall:
    return Hall(database, settings)


def proposed(client: httpx.Client) -> list[dict[str, Any]]:
    answer = client.get("/galleries/hall/clusters")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def members(client: httpx.Client, cluster: dict[str, Any]) -> list[str]:
    answer = client.get(cluster["links"]["images"])
    assert answer.status_code == 200, answer.text
    return [image["id"] for image in answer.json()["items"]]


def review(client: httpx.Client, cluster: dict[str, Any], what: str, body: Any = None, status: int = 200) -> Any:
    answer = client.post(f"{cluster['links']['self']}/{what}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def test_images_without_identity_become_proposed_persons(client: httpx.Client, hall: Hall) -> None:
    assert hall.cluster() == {"images": 24, "clusters": 4, "left_alone": 0}
    clusters = proposed(client)
    assert sorted(members(client, cluster) for cluster in clusters) == [hall.person(number) for number in range(1, 5)]
    first = next(cluster for cluster in clusters if cluster["cover"] == hall.person(1)[-1])
    assert (first["images"], first["cameras"], first["confidence"]) == (6, ["0", "1"], 1.0)
    assert first["gallery"] == hall.id
    assert client.get(first["links"]["self"]).json() == first


def test_clusters_come_in_pages_surest_first(client: httpx.Client, hall: Hall) -> None:
    with hall.database.write() as session:
        proposals = [Proposal(tuple(hall.person(2)), 0.9), Proposal(tuple(hall.person(3)), 0.4)]
        add_clusters(session, hall.id, proposals)
    first = client.get("/galleries/hall/clusters", params={"limit": 1}).json()
    second = client.get("/galleries/hall/clusters", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [page["items"][0]["confidence"] for page in (first, second)] == [0.9, 0.4]
    assert second["next_cursor"] is None


def test_an_accepted_cluster_is_a_person_and_no_longer_proposed(client: httpx.Client, hall: Hall) -> None:
    hall.cluster()
    cluster = proposed(client)[0]
    images = members(client, cluster)
    revision = client.get("/galleries/hall").json()["revision"]
    answer = review(client, cluster, "accept", {"identity": " bert "})
    assert answer == {"identity": "bert", "images": 6, "revision": revision + 1, "cluster": None}
    named = client.get("/galleries/hall/images", params={"identity": "bert"}).json()["items"]
    assert [image["id"] for image in named] == images
    assert len(proposed(client)) == 3
    assert client.get(cluster["links"]["self"]).status_code == 404
    review(client, cluster, "accept", {"identity": "bert"}, 404)
    assert hall.cluster()["clusters"] == 3


def test_some_of_a_cluster_can_be_accepted(client: httpx.Client, hall: Hall) -> None:
    hall.cluster()
    cluster = proposed(client)[0]
    images = members(client, cluster)
    answer = review(client, cluster, "accept", {"identity": "bert", "images": images[:4]})
    assert (answer["images"], answer["cluster"]["images"]) == (4, 2)
    assert members(client, cluster) == images[4:]
    refused = review(client, cluster, "accept", {"identity": "bert", "images": [images[0]]}, 422)
    assert refused["errors"][0]["code"] == "not-of-the-cluster"
    assert members(client, cluster) == images[4:]


def test_a_split_makes_clusters_of_its_groups_and_leaves_the_others_alone(client: httpx.Client, hall: Hall) -> None:
    hall.cluster()
    cluster = proposed(client)[0]
    images = members(client, cluster)
    for groups in ([images[:2]], [images[:2], images[1:3]], [images[:2], hall.person(0)[:1]], [images[:2], []]):
        review(client, cluster, "split", {"groups": groups}, 422)
    parts = review(client, cluster, "split", {"groups": [images[:2], images[2:5]]})["items"]
    assert [members(client, part) for part in parts] == [images[:2], images[2:5]]
    assert [part["confidence"] for part in parts] == [None, None]
    assert client.get(cluster["links"]["self"]).status_code == 404
    assert len(proposed(client)) == 5


def test_a_rejected_cluster_does_not_come_again(client: httpx.Client, hall: Hall) -> None:
    hall.cluster()
    cluster = proposed(client)[0]
    review(client, cluster, "reject", status=204)
    assert client.get(cluster["links"]["self"]).status_code == 404
    assert len(proposed(client)) == 3
    assert hall.cluster() == {"images": 24, "clusters": 3, "left_alone": 6}
    assert len(proposed(client)) == 3


def test_an_image_that_is_named_elsewhere_is_in_no_cluster(client: httpx.Client, hall: Hall) -> None:
    hall.cluster()
    cluster = proposed(client)[0]
    images = members(client, cluster)
    client.patch(f"/galleries/hall/images/{images[0]}", json={"camera": "9"})
    assert members(client, cluster) == images
    client.patch(f"/galleries/hall/images/{images[0]}", json={"identity": "bert"})
    assert members(client, cluster) == images[1:]
    for image in images[1:]:
        client.patch(f"/galleries/hall/images/{image}", json={"identity": "bert"})
    assert client.get(cluster["links"]["self"]).status_code == 404
    with hall.database.read() as session:
        assert session.query(Cluster).count() == 3


def test_erased_images_are_in_no_cluster_and_the_receipt_counts_them(client: httpx.Client, hall: Hall) -> None:
    hall.cluster()
    cluster = proposed(client)[0]
    images = members(client, cluster)
    review(client, cluster, "accept", {"identity": "bert", "images": images[:2]})
    receipt = client.delete("/galleries/hall/identities/bert").json()
    assert receipt["removed"]["cluster_entries"] == 0
    receipt = client.delete("/galleries/hall/images", params={"camera": "0"}).json()
    assert receipt["removed"]["cluster_entries"] == 11
    assert [cluster["images"] for cluster in proposed(client)] == [2, 3, 3, 3]
    client.delete("/galleries/hall/images", params={"camera": "1"})
    assert proposed(client) == []
    with hall.database.read() as session:
        assert (session.query(Cluster).count(), session.query(ClusterImage).count()) == (0, 0)


def test_a_change_of_labels_looks_at_the_clusters_of_its_images_only(hall: Hall) -> None:
    with hall.database.write() as session:
        (theirs,) = add_clusters(session, hall.id, [Proposal(tuple(hall.person(1)), 0.9)])
        # Never there in use; an untouched one shows which clusters are looked at.
        session.add(Cluster(id="clu_untouched", gallery_id=hall.id, confidence=0.9))
    with hall.database.write() as session:
        take_from_clusters(session, hall.id, hall.person(1))
    erase_image(hall.database, hall.settings, hall.id, hall.person(2)[0], key_id=None)
    with hall.database.read() as session:
        assert session.get(Cluster, theirs) is None
        assert session.get(Cluster, "clu_untouched") is not None


def test_clustering_again_takes_the_place_of_what_was_proposed(client: httpx.Client, hall: Hall) -> None:
    hall.cluster()
    before = [cluster["id"] for cluster in proposed(client)]
    parts = review(client, proposed(client)[0], "split", {"groups": [[hall.person(1)[0]], [hall.person(1)[1]]]})
    hall.cluster()
    after = [cluster["id"] for cluster in proposed(client)]
    assert len(after) == 4
    assert not {*before, *(part["id"] for part in parts["items"])} & set(after)


def test_a_deleted_gallery_takes_its_clusters_with_it(client: httpx.Client, hall: Hall) -> None:
    hall.cluster()
    assert client.delete("/galleries/hall").status_code == 204
    with hall.database.read() as session:
        assert (session.query(Cluster).count(), session.query(ClusterImage).count()) == (0, 0)
    with pytest.raises(Problem):
        hall.cluster()


def test_a_gallery_without_images_has_no_clusters(client: httpx.Client, hall: Hall) -> None:
    client.delete("/galleries/hall/images", params={"camera": "0"})
    client.delete("/galleries/hall/images", params={"camera": "1"})
    assert hall.cluster() == {"images": 0, "clusters": 0, "left_alone": 0}


def test_clusters_are_kept_alike_on_every_database(each_database: Database, settings: Settings) -> None:
    hall = Hall(each_database, settings)
    assert hall.cluster()["clusters"] == 4
    with each_database.write() as session:
        lock_gallery(session, hall.id)
        cluster = session.query(Cluster).order_by(Cluster.id).first()
        assert cluster is not None
        reject_cluster(session, hall.id, cluster.id, key_id=None)
    erase_image(each_database, settings, hall.id, hall.person(2)[0], key_id=None)
    assert hall.cluster()["clusters"] == 3
    with each_database.read() as session:
        gallery = session.get_one(Gallery, hall.id)
        assert gallery.images == 29
        assert session.query(ClusterImage).filter_by(image_id=hall.person(2)[0]).count() == 0


def test_the_defaults_of_requests_are_those_of_clustering(client: httpx.Client, database: Database, hall: Hall) -> None:
    asked, default = ClusteringSettings(), Clustering()
    assert (asked.threshold, asked.least) == (default.threshold, default.least)
    job = client.post("/galleries/hall/cluster")
    assert (job.status_code, job.json()["kind"]) == (202, "cluster")
    assert job.json()["spec"] == {"gallery": hall.id, "clustering": {"threshold": 0.4, "least": 2}}
    hook = {"url": "https://lab.example/reid", "secret": "a secret of our own"}
    told = client.post("/galleries/hall/cluster", json={"webhook": hook}).json()
    assert "webhook" not in str(told["spec"])
    with database.read() as session:
        assert session.get_one(Job, told["id"]).webhook_url == hook["url"]
    assert client.post("/galleries/hall/cluster", json={"threshold": 1}).status_code == 422
    assert client.post("/galleries/none/cluster").status_code == 404
