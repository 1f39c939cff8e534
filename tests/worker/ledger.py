"""A gallery as a plain dictionary, what can be done to it, and whether a service agrees with it, down to the disk."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from sqlalchemy.orm import Session

from reid_core.retrieval.maps import map_bytes
from reid_core.retrieval.store import HEADER_BYTES
from service.db.session import open_database
from service.db.tables import Gallery, GalleryImage, Model, PendingErasure, PendingRemoval
from service.galleries.files import open_store, vector_bytes
from tests.waiting import wait_until
from tests.worker.service import Service

HALL = "hall"
PEOPLE = ("anna", "bert", "cleo", "dora", "emil")
SIZE_LIMIT = 40
"""Images, about: so many that an erasure leaves others, so few that a round is short."""


@dataclass(frozen=True, slots=True)
class Told:
    """The labels of an image."""

    identity: str
    camera: str
    external_id: str


Images = dict[str, Told]
"""The gallery by its images' SHA-256."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One request, and what it makes of the gallery."""

    name: str
    send: Callable[[httpx.Client], httpx.Response]
    apply: Callable[[Images], Images]


class Ledger:
    """The gallery `hall` as it should be. Every choice comes from `chance`, so that a seed repeats it."""

    def __init__(self, chance: random.Random) -> None:
        self.images: Images = {}
        self._chance = chance
        self._sent: dict[str, bytes] = {}
        self._ids: dict[str, str] = {}
        self._features: dict[str, set[bytes]] = {}
        self._checked_gone: set[str] = set()

    def choose(self) -> Operation:
        """Draws the next operation."""
        if len(self.images) < 8:
            return self._upload("add")
        if len(self.images) > SIZE_LIMIT:
            return self._erase_identity()
        kinds = [
            *[lambda: self._upload("add")] * 4,
            *[lambda: self._upload("replace")] * 2,
            *[lambda: self._upload("skip")],
            *[self._erase_image] * 3,
            *[self._erase_identity] * 2,
            *[self._erase_by_filters] * 2,
            *[self._explain],
        ]
        return self._chance.choice(kinds)()

    def settle(self, service: Service, lost: Operation | None) -> None:
        """Finds out whether the operation whose answer was lost was done; an error where it was done by half."""
        listed = self._listed(service)
        actual = {item["sha256"]: Told(item["identity"], item["camera"], item["external_id"]) for item in listed}
        possible = [self.images] if lost is None else [self.images, lost.apply(self.images)]
        difference = _difference(actual, possible[-1])
        assert actual in possible, f"{lost and lost.name}: neither done nor not done\n{difference}"
        self.images = actual
        self._ids |= {item["sha256"]: item["id"] for item in listed}

    def check(self, service: Service) -> None:
        """An error unless counts, filters, searches and every byte on disk are as they should be."""
        hall = service.get(f"/galleries/{HALL}")
        assert hall["images"] == len(self.images)
        for identity in PEOPLE:
            wanted = sorted(digest for digest, told in self.images.items() if told.identity == identity)
            assert sorted(item["sha256"] for item in self._listed(service, identity=identity)) == wanted
        self._check_searches(service)
        self._check_gone(service)

        def found() -> str:
            return self._found_on_disk(service)

        wait_until(lambda: not found(), why=found)
        self._learn_features(service)

    def check_all_bytes(self, service: Service) -> None:
        """An error where a byte of any image that was ever erased is anywhere under the home."""
        gone = [digest for digest in self._sent if digest not in self.images]
        assert not self._leaks(service, gone)

    def _listed(self, service: Service, **filters: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = service.get(f"/galleries/{HALL}/images", limit=200, **filters)["items"]
        return items

    def _check_searches(self, service: Service) -> None:
        if not self.images:
            return
        digest = self._chance.choice(sorted(self.images))
        for rerank in ("none", "qaconv"):
            asked = {"gallery": HALL, "image_id": self._ids[digest], "rerank": rerank}
            results = service.get("/search", **asked, top_k=1000, candidates=1000)["results"]
            assert sorted(result["image_id"] for result in results) == sorted(self._ids[one] for one in self.images)
            (itself,) = (result for result in results if result["image_id"] == self._ids[digest])
            assert itself["retrieval_score"] > 0.999
            if rerank == "none":
                self._check_ranks(service, self._ids[digest], results)

    def _check_ranks(self, service: Service, query: str, results: list[dict[str, Any]]) -> None:
        """An error unless ranks and scores are those of comparing with every vector that lies on disk."""
        with _reading(service) as session:
            hall = session.query(Gallery).filter_by(name=HALL).one()
            size = session.get_one(Model, hall.model_id).embedding_size
            places = {image.id: image.position for image in session.query(GalleryImage).filter_by(gallery_id=hall.id)}
        store = open_store(service.home / "galleries" / hall.id / str(hall.generation), size, count=hall.next_position)
        scores = dict(zip(places, store.read(list(places.values())) @ store.read(places[query]), strict=True))
        np.testing.assert_allclose([one["score"] for one in results], sorted(scores.values(), reverse=True), atol=1e-5)
        np.testing.assert_allclose(
            [one["score"] for one in results], [scores[one["image_id"]] for one in results], atol=1e-5
        )

    def _check_gone(self, service: Service) -> None:
        for digest in sorted(self._ids.keys() - self.images.keys() - self._checked_gone):
            gone = self._ids[digest]
            for path in (f"/galleries/{HALL}/images/{gone}", f"/search?gallery={HALL}&image_id={gone}"):
                answer = service.http.get(path)
                assert answer.status_code == 410, f"{path}: {answer.status_code} {answer.text}"

    def _found_on_disk(self, service: Service) -> str:
        """Names what lies under the home and should not; "" where all is well."""
        gone = sorted(self._sent.keys() - self.images.keys() - self._checked_gone)
        checked = sorted(self._checked_gone)
        leaks = self._leaks(service, gone + self._chance.sample(checked, min(len(checked), 10)))
        with _reading(service) as session:
            hall = session.query(Gallery).filter_by(name=HALL).one()
            size = session.get_one(Model, hall.model_id).embedding_size
            rows = session.query(GalleryImage).filter_by(gallery_id=hall.id).all()
            models = {row.id for row in session.query(Model)}
            pending = session.query(PendingErasure).count() + session.query(PendingRemoval).count()
        if pending:
            return f"{pending} removals are pending"
        folder = service.home / "galleries" / hall.id
        known = {image.file for image in rows}
        leaks += [f"image {path.name}" for path in folder.glob("pictures/*") if path.name not in known]
        leaks += [f"upload {path.name}" for path in (service.home / "galleries" / ".arriving").glob("gal_*")]
        leaks += [f"model {path.name}" for path in (service.home / "models").glob("*") if path.name not in models]
        for generation, column in ((hall.generation, "position"), (hall.generation + 1, "rebuilt_position")):
            taken = {getattr(image, column) for image in rows}
            for place, record in _features(folder / str(generation), hall, size):
                leaks += [f"{generation}, {place}"] if any(record) and place not in taken else []
        used = hall.index["file"] if hall.index else None
        leaks += [f"index {path}" for path in folder.glob("*/*index-*") if path.name != used]
        ids = {image.id for image in rows}
        for record in (service.home / "searches").glob("*/record.json"):
            named = json.loads(record.read_text())
            shown = {named["image_id"], *(result["image_id"] for result in named["results"])} - {None}
            leaks += [f"record {record}"] if not shown <= ids else []
        if not leaks:
            self._checked_gone |= set(gone)
        return ", ".join(leaks)

    def _leaks(self, service: Service, digests: list[str]) -> list[str]:
        needles = [
            (digest, needle) for digest in digests for needle in (self._sent[digest], *self._features.get(digest, ()))
        ]
        found = []
        for path in sorted(service.home.rglob("*")):
            try:
                content = path.read_bytes() if path.is_file() and path.name != "ballast" else b""
            except FileNotFoundError:
                continue
            found += [f"{digest[:8]} in {path}" for digest, needle in needles if needle in content]
        return found

    def _learn_features(self, service: Service) -> None:
        """Remembers vectors and maps as they lie on disk, to look for them once they are erased."""
        with _reading(service) as session:
            hall = session.query(Gallery).filter_by(name=HALL).one()
            size = session.get_one(Model, hall.model_id).embedding_size
            rows = {image.position: image.sha256 for image in session.query(GalleryImage).filter_by(gallery_id=hall.id)}
        folder = service.home / "galleries" / hall.id / str(hall.generation)
        for place, record in _features(folder, hall, size):
            if place in rows:
                self._features.setdefault(rows[place], set()).add(record)

    def _upload(self, on_conflict: str) -> Operation:
        count = self._chance.randint(1, 4)
        known = sorted({told.external_id for told in self.images.values()})
        images: Images = {}
        for _ in range(count):
            content = _image(self._chance)
            digest = hashlib.sha256(content).hexdigest()
            self._sent[digest] = content
            again = on_conflict != "add" and known and self._chance.random() < 0.6
            external_id = self._chance.choice(known) if again else f"key-{digest[:12]}"
            images[digest] = Told(self._chance.choice(PEOPLE), self._chance.choice("123"), external_id)
        files = [("files", (f"{digest[:8]}.png", self._sent[digest])) for digest in images]
        metadata = [asdict(told) for told in images.values()]

        def send(client: httpx.Client) -> httpx.Response:
            path = f"/galleries/{HALL}/images?on_conflict={on_conflict}"
            return client.post(path, files=files, data={"metadata": json.dumps(metadata)})

        def apply(before: Images) -> Images:
            after = dict(before)
            for digest, told in images.items():
                same = [one for one, other in after.items() if other.external_id == told.external_id]
                if on_conflict == "skip" and same:
                    continue
                for one in same if on_conflict == "replace" else ():
                    del after[one]
                after[digest] = told
            return after

        return Operation(f"{on_conflict} {count}", send, apply)

    def _erase_image(self) -> Operation:
        digest = self._chance.choice(sorted(self._ids.keys() & self.images.keys()))
        path = f"/galleries/{HALL}/images/{self._ids[digest]}"
        return Operation("erase one", lambda client: client.delete(path), _without(lambda one, _: one == digest))

    def _erase_identity(self) -> Operation:
        identity = self._chance.choice(sorted({told.identity for told in self.images.values()}))
        path, body = f"/galleries/{HALL}/identities/erase", {"identity": identity}
        return Operation(
            f"erase {identity}",
            lambda client: client.post(path, json=body),
            _without(lambda _, told: told.identity == identity),
        )

    def _erase_by_filters(self) -> Operation:
        told = self.images[self._chance.choice(sorted(self.images))]
        filters = self._chance.choice(
            [{"external_id": told.external_id}, {"identity": told.identity, "camera": told.camera}]
        )
        return Operation(
            f"erase by {'+'.join(filters)}",
            lambda client: client.delete(f"/galleries/{HALL}/images", params=filters),
            _without(lambda _, other: all(getattr(other, name) == value for name, value in filters.items())),
        )

    def _explain(self) -> Operation:
        content = self._sent[self._chance.choice(sorted(self.images))]
        data = {"gallery": HALL, "explain": "true", "top_k": "3"}
        # Sent as a file of its own, so that what is kept of it is not the image that is looked for.
        sent = Image.open(io.BytesIO(content)).resize((20, 40))
        file = io.BytesIO()
        sent.save(file, "PNG")
        return Operation(
            "explain",
            lambda client: client.post("/search", data=data, files={"image": file.getvalue()}),
            lambda before: before,
        )


def _without(which: Callable[[str, Told], bool]) -> Callable[[Images], Images]:
    return lambda before: {digest: told for digest, told in before.items() if not which(digest, told)}


def _difference(actual: Images, expected: Images) -> str:
    return f"unexpected {actual.keys() - expected.keys()}, missing {expected.keys() - actual.keys()}"


@contextmanager
def _reading(service: Service) -> Iterator[Session]:
    """A look into the database by a connection that is closed again: while one is open here, reading the same file to
    look for bytes would take its locks from it (SQLite, "How to corrupt", 2.2)."""
    database = open_database(f"sqlite:///{service.home}/reid.db")
    with database.read() as session:
        yield session
    database.close()


def _features(folder: Path, gallery: Gallery, size: int) -> Iterator[tuple[int, bytes]]:
    """(position, bytes) of every vector and map in a generation's folder, read as plain files."""
    record_bytes = {"embeddings": vector_bytes(size), "maps": map_bytes(**gallery.maps) if gallery.maps else 0}
    for name, step in record_bytes.items():
        if (folder / name).exists():
            content = (folder / name).read_bytes()[HEADER_BYTES:]
            yield from ((start // step, content[start : start + step]) for start in range(0, len(content), step))


def _image(chance: random.Random) -> bytes:
    """An image unlike any other, of the network's own size."""
    noise = np.random.default_rng(chance.getrandbits(64)).integers(0, 255, (8, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((32, 64), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()
