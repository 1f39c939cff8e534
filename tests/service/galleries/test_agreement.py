"""Whatever happens to a gallery, in whatever order: its searches and comparing with all of a plain dictionary agree.

In one process, where a crash is work that ends in the middle; `test_faults` does the like with `kill -9`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as configured
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray
from sqlalchemy import select

from reid_core.errors import Stopped
from reid_core.model import TrainedModel
from reid_core.retrieval.filters import Filters
from reid_core.retrieval.kinds import BUILT_KINDS
from service.db.schema import upgrade
from service.db.session import open_database
from service.db.tables import Gallery, GalleryImage
from service.galleries import reencoding
from service.galleries.erasure import erase_identity, erase_image
from service.galleries.files import generation_of
from service.galleries.images import append
from service.galleries.index import index_in_place
from service.galleries.job import index_gallery
from service.galleries.lifecycle import create_gallery
from service.galleries.removal import remove_erased
from service.galleries.retention import remove_leftovers
from service.galleries.schemas import GalleryBody
from service.search.snapshots import OpenGallery, Snapshots
from service.settings import Settings
from tests.service.galleries.conftest import MODEL_ID
from tests.service.galleries.stock import SIZE, add_model_row, load, save_tiny_model

PEOPLE = ("anna", "bert", "cleo")
CAMERAS = ("1", "2", None)
ALL = 10_000


@dataclass(frozen=True)
class Told:
    """An image as it should be found."""

    vector: NDArray[np.float32]
    identity: str
    camera: str | None


@cache
def _template() -> Path:
    """A home with a model and an empty gallery."""
    home = Path(tempfile.mkdtemp(prefix="reid-agreement-")) / "home"
    settings = Settings(home=home, min_free_bytes=0, device="cpu", threads=1)
    upgrade(settings.database_url)
    save_tiny_model(settings.models_dir / MODEL_ID)
    database = open_database(settings.database_url)
    add_model_row(database, MODEL_ID)
    with database.write() as session:
        create_gallery(session, settings, GalleryBody(name="hall", model="tiny"))
    database.close()
    return home


@cache
def _model() -> TrainedModel:
    return load(Settings(home=_template()), MODEL_ID)


class Agreement(RuleBasedStateMachine):
    """A gallery, a dictionary of what should be in it, and an API process that has followed it from the beginning."""

    @initialize()
    def open(self) -> None:
        self.images: dict[str, Told] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="reid-agreement-"))
        shutil.copytree(_template(), self._folder / "home")
        self.settings = Settings(home=self._folder / "home", min_free_bytes=0, device="cpu", threads=1)
        self.database = open_database(self.settings.database_url)
        with self.database.read() as session:
            self.hall = session.scalars(select(Gallery.id)).one()
        self.snapshots = Snapshots(self.database, self.settings)
        self._added = 0

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self._folder)

    @rule(data=st.data(), count=st.integers(1, 12))
    def add(self, data: st.DataObject, count: int) -> None:
        """Some of the vectors are equal, so that ranks depend on the order in which images came."""
        drawn = st.tuples(st.integers(0, 30), st.sampled_from(PEOPLE), st.sampled_from(CAMERAS))
        self._add(data.draw(st.lists(drawn, min_size=count, max_size=count)))

    @precondition(lambda self: self.images)
    @rule(data=st.data())
    def erase_an_image(self, data: st.DataObject) -> None:
        self._erase(data.draw(st.sampled_from(sorted(self.images))))

    @rule(identity=st.sampled_from(PEOPLE))
    def erase_a_person(self, identity: str) -> None:
        if any(told.identity == identity for told in self.images.values()):
            erase_identity(self.database, self.settings, "hall", identity, key_id=None)
            self.images = {key: told for key, told in self.images.items() if told.identity != identity}

    @rule(kind=st.sampled_from(("flat", *BUILT_KINDS)))
    def build_an_index(self, kind: str) -> None:
        with self.database.write() as session:
            session.get_one(Gallery, self.hall).index_kind = kind
        index_in_place(self.database, self.settings, self.hall, should_stop=lambda: False)

    @rule(data=st.data(), changes=st.lists(st.sampled_from(("add", "erase", "stop")), max_size=3))
    def embed_again(self, data: st.DataObject, changes: list[str]) -> None:
        """With what happens meanwhile, page by page; one that was stopped goes on the next time."""
        left = list(changes)

        def between_pages(done: int, total: int) -> None:
            change = left.pop(0) if left else None
            if change == "add":
                self._add([(done % 31, PEOPLE[0], None)])
            elif change == "erase" and self.images:
                self._erase(data.draw(st.sampled_from(sorted(self.images))))
            elif change == "stop":
                raise Stopped

        with suppress(Stopped):
            index_gallery(
                self.database,
                self.settings,
                self.hall,
                add=None,
                model_for=lambda model_id: _model(),
                progress=lambda phase: between_pages,
                should_stop=lambda: False,
            )

    @rule()
    def restart(self) -> None:
        self.snapshots = Snapshots(self.database, self.settings)

    @rule(count=st.integers(1, 5))
    def crash_in_an_upload(self, count: int) -> None:
        """Vectors are in the file, and their rows are not."""
        with self.database.write() as session:
            gallery = session.get_one(Gallery, self.hall)
            lost = np.stack([_vector(100 + number) for number in range(count)])
            generation_of(session, self.settings, gallery).write(gallery.next_position, (lost,))

    @rule()
    def sweep(self) -> None:
        remove_erased(self.database, self.settings, self.hall)
        remove_leftovers(self.database, self.settings)

    @invariant()
    def searches_find_what_should_be_there(self) -> None:
        if not self.images:
            return  # a search is answered with `no-index`
        opened = self.snapshots.current(self.hall)
        assert opened.snapshot.alive.sum() == len(self.images)
        assert self._found(opened, Filters()) == self._expected(CAMERAS)
        assert self._found(opened, Filters(cameras=("2", ""))) == self._expected(("2", None))
        assert self._found(opened, Filters(), k=5) == self._expected(CAMERAS)[:5]

    def _add(self, drawn: list[tuple[int, str, str | None]]) -> None:
        ids = [f"img_{self._added + number:06}" for number in range(len(drawn))]
        self._added += len(drawn)
        images = [
            GalleryImage(id=key, identity=identity, camera=camera, filename="a", sha256="0", width=1, height=1)
            for key, (_, identity, camera) in zip(ids, drawn, strict=True)
        ]
        vectors = np.stack([_vector(seed) for seed, _, _ in drawn])
        append(self.database, self.settings, self.hall, images, (vectors,))
        for key, vector, (_, identity, camera) in zip(ids, vectors, drawn, strict=True):
            self.images[key] = Told(vector, identity, camera)

    def _erase(self, key: str) -> None:
        erase_image(self.database, self.settings, "hall", key, key_id=None)
        del self.images[key]

    def _found(self, opened: OpenGallery, filters: Filters, k: int = ALL) -> list[str]:
        snapshot = opened.snapshot
        _, positions = snapshot.search(QUERY[None], k, keep=snapshot.keep(filters))
        with self.database.read() as session:
            rows = session.execute(select(GalleryImage.position, GalleryImage.id)).all()
            ids = {row.position: row.id for row in rows}
        return [ids[position] for position in positions[0].tolist()]

    def _expected(self, cameras: tuple[str | None, ...]) -> list[str]:
        """Best first; of equal ones the first to come, which has the smaller id."""
        scores = {key: (told.vector * QUERY).sum() for key, told in self.images.items() if told.camera in cameras}
        return sorted(scores, key=lambda key: (-scores[key], key))


@cache
def _vector(seed: int) -> NDArray[np.float32]:
    vector = np.random.default_rng(seed).standard_normal(SIZE, dtype=np.float32)
    unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return unit


QUERY = _vector(1000)


@pytest.fixture(scope="module", autouse=True)
def _small_pages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reencoding, "PAGE_SIZE", 5)
        yield


TestAgreement = Agreement.TestCase
TestAgreement.settings = configured(
    max_examples=int(os.environ.get("AGREEMENT_EXAMPLES") or 12),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
