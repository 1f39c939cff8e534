"""Lists, searches by person, probabilities and feedback agree with a dictionary, whatever is done in whatever order.

The engine is that of an API process which has followed the gallery from the beginning, or was started again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck
from hypothesis import settings as configured
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray
from sqlalchemy import select

from reid_core.calibration.curves import Curve
from reid_core.calibration.folds import HeldOutFit
from reid_core.calibration.persons import posterior
from reid_core.calibration.record import FILE_NAME, Calibration, write_calibrations
from reid_core.calibration.shift import describe_origin
from reid_core.data.records import DISTRACTOR
from service.auth import EVERYONE
from service.db.schema import upgrade
from service.db.session import open_database
from service.db.tables import Cluster, Feedback, Gallery, GalleryImage
from service.decoding import Decoder
from service.galleries.clusters import Proposal, images_of, replace_proposals
from service.galleries.erasure import erase_identity, erase_image
from service.galleries.feedback import add_feedback
from service.galleries.feedback_schemas import FeedbackBody
from service.galleries.identities import list_identities, rename_identity
from service.galleries.image_schemas import ImageDetails
from service.galleries.images import append
from service.galleries.labelling import edit_image
from service.galleries.lifecycle import create_gallery, lock_gallery
from service.galleries.reviewing import accept_cluster, reject_cluster, split_cluster
from service.galleries.schemas import GalleryBody
from service.search.engine import Engine
from service.search.journal import keeping_journal
from service.search.schemas import EmbeddingQuery
from service.settings import Settings
from tests.service.galleries.conftest import MODEL_ID
from tests.service.galleries.stock import SIZE, add_model_row, save_tiny_model

LABELS = ("anna", "bert", "Cleo/2", DISTRACTOR, None)
PEOPLE = LABELS[:3]
CAMERAS = ("1", "2", None)
CURVE = Curve("logistic", (-1.0, 1.0), (-10.0, 10.0))


@dataclass(frozen=True)
class Told:
    """An image as it should be found."""

    vector: NDArray[np.float32]
    identity: str | None
    camera: str | None
    captured_at: datetime | None

    @property
    def is_somebody(self) -> bool:
        return self.identity not in (None, DISTRACTOR)


@cache
def _template() -> Path:
    """A home with a model, its calibration and an empty gallery."""
    home = Path(tempfile.mkdtemp(prefix="reid-persons-")) / "home"
    settings = Settings(home=home, min_free_bytes=0, device="cpu", threads=1)
    upgrade(settings.database_url)
    folder = settings.models_dir / MODEL_ID
    save_tiny_model(folder)
    fit = HeldOutFit(CURVE, {}, 0.0, ())
    origin = describe_origin(np.stack([_vector(seed) for seed in range(8)]), np.arange(8) // 2)
    write_calibrations(folder / FILE_NAME, {"none": Calibration("none", fit, origin, {}, fit)})
    database = open_database(settings.database_url)
    add_model_row(database, MODEL_ID)
    with database.write() as session:
        create_gallery(session, settings, GalleryBody(name="hall", model="tiny"))
    database.close()
    return home


class Persons(RuleBasedStateMachine):
    """A gallery, and dictionaries of its images, of what was said of their pairs, and of its proposed persons."""

    @initialize()
    def open(self) -> None:
        self.images: dict[str, Told] = {}
        self.pairs: dict[tuple[str, str], bool] = {}
        self.clusters: dict[str, set[str]] = {}
        self.rejected: list[set[str]] = []
        self._added = 0
        self._folder = Path(tempfile.mkdtemp(prefix="reid-persons-"))
        shutil.copytree(_template(), self._folder / "home")
        self.settings = Settings(home=self._folder / "home", min_free_bytes=0, device="cpu", threads=1)
        self._start()

    def _start(self) -> None:
        with ExitStack() as stack:
            self.database = open_database(self.settings.database_url)
            stack.callback(self.database.close)
            journal = stack.enter_context(keeping_journal(self.database, self.settings))
            self.engine = Engine(self.database, self.settings, Decoder(self.settings), journal)
            stack.callback(self.engine.close)
            self._running = stack.pop_all()
        with self.database.read() as session:
            self.hall = session.scalars(select(Gallery.id)).one()

    def teardown(self) -> None:
        self._running.close()
        shutil.rmtree(self._folder)

    @rule()
    def restart(self) -> None:
        self._running.close()
        self._start()

    @rule(
        drawn=st.lists(
            st.tuples(
                st.integers(0, 30),
                st.sampled_from(LABELS),
                st.sampled_from(CAMERAS),
                st.one_of(st.none(), st.integers(0, 9)),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def add(self, drawn: list[tuple[int, str | None, str | None, int | None]]) -> None:
        told = [Told(_vector(seed), identity, camera, _moment(hour)) for seed, identity, camera, hour in drawn]
        ids = [f"img_{self._added + number:06}" for number in range(len(told))]
        self._added += len(told)
        rest = {"filename": "a", "sha256": "0", "width": 1, "height": 1}
        images = [
            GalleryImage(id=key, identity=one.identity, camera=one.camera, captured_at=one.captured_at, **rest)
            for key, one in zip(ids, told, strict=True)
        ]
        append(self.database, self.settings, self.hall, images, (np.stack([one.vector for one in told]),))
        self.images.update(zip(ids, told, strict=True))

    @precondition(lambda self: self.images)
    @rule(
        data=st.data(),
        changes=st.fixed_dictionaries(
            {},
            optional={
                "identity": st.sampled_from(LABELS),
                "camera": st.sampled_from(CAMERAS),
                "captured_at": st.one_of(st.none(), st.integers(0, 9)).map(lambda hour: _moment(hour)),
            },
        ).filter(bool),
    )
    def edit_an_image(self, data: st.DataObject, changes: Mapping[str, Any]) -> None:
        key = data.draw(st.sampled_from(sorted(self.images)))
        edit_image(self.database, "hall", key, ImageDetails(**changes), key_id=None)
        self.images[key] = replace(self.images[key], **changes)
        if changes.get("identity") is not None:
            self._take_from_clusters({key})

    @rule(data=st.data())
    def propose_persons(self, data: st.DataObject) -> None:
        """As a cluster job does; what was rejected is not proposed again, nor one image alone."""
        unnamed = sorted(key for key, told in self.images.items() if told.identity is None)
        numbers = data.draw(st.lists(st.integers(0, 2), min_size=len(unnamed), max_size=len(unnamed)))
        groups = [[key for key, mine in zip(unnamed, numbers, strict=True) if mine == number] for number in range(3)]
        proposals = [Proposal(tuple(group), 0.5) for group in groups if group]
        expected = [set(group) for group in groups if len(group) > 1]
        expected = [group for group in expected if not any(group <= rejected for rejected in self.rejected)]
        with self.database.write() as session:
            replace_proposals(session, lock_gallery(session, self.hall), proposals)
        self.clusters = self._listed_clusters()
        assert sorted(map(sorted, self.clusters.values())) == sorted(map(sorted, expected))

    @precondition(lambda self: self.clusters)
    @rule(data=st.data(), identity=st.sampled_from(PEOPLE), whole=st.booleans())
    def accept_a_cluster(self, data: st.DataObject, identity: str, whole: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.clusters)))
        members = sorted(self.clusters[key])
        some = members if whole else data.draw(st.lists(st.sampled_from(members), min_size=1, unique=True))
        with self.database.write() as session:
            accept_cluster(session, "hall", key, identity, None if whole else some, key_id=None)
        for image in some:
            self.images[image] = replace(self.images[image], identity=identity)
        self._take_from_clusters(set(some))

    @precondition(lambda self: any(len(images) > 1 for images in self.clusters.values()))
    @rule(data=st.data())
    def split_a_cluster(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, images in self.clusters.items() if len(images) > 1)))
        members = data.draw(st.permutations(sorted(self.clusters[key])))
        ends = sorted(data.draw(st.lists(st.integers(1, len(members)), min_size=2, max_size=2, unique=True)))
        groups = [members[: ends[0]], members[ends[0] : ends[1]]]
        with self.database.write() as session:
            parts = split_cluster(session, "hall", key, groups, key_id=None)
        del self.clusters[key]
        self.clusters.update(zip(parts, map(set, groups), strict=True))

    @precondition(lambda self: self.clusters)
    @rule(data=st.data())
    def reject_a_cluster(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.clusters)))
        with self.database.write() as session:
            reject_cluster(session, "hall", key, key_id=None)
        self.rejected.append(self.clusters.pop(key))

    @rule(label=st.sampled_from(PEOPLE), new_label=st.sampled_from(PEOPLE))
    def rename_or_merge(self, label: str, new_label: str) -> None:
        images = [key for key, told in self.images.items() if told.identity == label]
        if not images:
            return
        there = any(told.identity == new_label for told in self.images.values())
        renaming = rename_identity(self.database, "hall", label, new_label, key_id=None)
        for key in images:
            self.images[key] = replace(self.images[key], identity=new_label)
        assert (renaming.renamed, renaming.merged) == (len(images), there and label != new_label)
        assert renaming.images == sum(told.identity == new_label for told in self.images.values())

    @precondition(lambda self: len(self.images) > 1)
    @rule(data=st.data(), same=st.booleans())
    def say(self, data: st.DataObject, same: bool) -> None:
        images = st.lists(st.sampled_from(sorted(self.images)), min_size=2, max_size=2, unique=True)
        query, image = data.draw(images)
        body = FeedbackBody(query_image=query, image=image, same=same)
        pair = min(query, image), max(query, image)
        _, is_new = add_feedback(self.database, self.settings, "hall", body, EVERYONE)
        assert is_new is (pair not in self.pairs)
        self.pairs[pair] = same

    @precondition(lambda self: self.images)
    @rule(data=st.data())
    def erase_an_image(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.images)))
        receipt = erase_image(self.database, self.settings, "hall", key, key_id=None)
        assert receipt.feedback == self._forget({key})

    @rule(identity=st.sampled_from(PEOPLE))
    def erase_a_person(self, identity: str) -> None:
        images = {key for key, told in self.images.items() if told.identity == identity}
        if images:
            receipt = erase_identity(self.database, self.settings, "hall", identity, key_id=None)
            assert (receipt.removed.images, receipt.removed.feedback) == (len(images), self._forget(images))

    @invariant()
    def persons_are_listed_as_they_are(self) -> None:
        expected = {}
        for label in PEOPLE:
            told = [one for one in self.images.values() if one.identity == label]
            moments = [one.captured_at for one in told if one.captured_at]
            if told:
                cameras = tuple(sorted({one.camera for one in told if one.camera}))
                expected[label] = len(told), cameras, min(moments, default=None), max(moments, default=None)
        with self.database.read() as session:
            listed = list_identities(session, self.hall, after=None, limit=10)
            by_camera = list_identities(session, self.hall, after=None, limit=10, camera="1")
            assert session.get_one(Gallery, self.hall).images == len(self.images)
        found = {one.label: (one.images, one.cameras, one.first_seen, one.last_seen) for one in listed}
        assert found == expected
        assert [one.label for one in by_camera] == sorted(label for label in found if "1" in found[label][1])

    @invariant()
    def feedback_is_what_was_said(self) -> None:
        with self.database.read() as session:
            kept = session.scalars(select(Feedback)).all()
        assert {(pair.first_image_id, pair.second_image_id): pair.same for pair in kept} == self.pairs

    @invariant()
    def proposed_persons_hold_unnamed_images_only(self) -> None:
        assert self._listed_clusters() == self.clusters
        proposed = [image for images in self.clusters.values() for image in images]
        assert len(proposed) == len(set(proposed))
        assert all(self.images[image].identity is None for image in proposed)

    @invariant()
    def searches_find_the_persons(self) -> None:
        for cameras in ((), ("1", "")):
            self._search_by_person(cameras)

    def _search_by_person(self, cameras: tuple[str, ...]) -> None:
        if not self.images:
            return  # a search is answered with `no-index`
        query = EmbeddingQuery(
            gallery="hall", embedding=QUERY.tolist(), group_by="identity", top_k=1000, group_size=20, camera=cameras
        )
        outcome = self.engine.search(query, key_id=None)
        expected: dict[str, list[str]] = {}
        for key, told in self.images.items():
            if not cameras or (told.camera or "") in cameras:
                expected.setdefault(str(told.identity) if told.is_somebody else key, []).append(key)
        assert outcome.persons is not None
        found, place = {}, 0
        for person in outcome.persons:
            shown = [match.image.id for match in outcome.matches[place : place + len(person.candidates)]]
            place += len(shown)
            found[person.identity or shown[0]] = person.score, sorted(shown)
        assert {name: shown for name, (_, shown) in found.items() if len(shown) < 20} == {
            name: sorted(keys) for name, keys in expected.items() if len(keys) < 20
        }
        means = {name: np.mean([self.images[key].vector @ QUERY for key in keys]) for name, keys in expected.items()}
        np.testing.assert_allclose([found[name][0] for name in means], list(means.values()), atol=1e-5)
        scores = [score for score, _ in found.values()]
        assert scores == sorted(scores, reverse=True)
        people = len({told.identity if told.is_somebody else key for key, told in self.images.items()})
        assert outcome.judgement is not None
        expected_chances = posterior(CURVE.evidence(scores), people, 0.5)
        np.testing.assert_allclose(outcome.judgement.probabilities, expected_chances, rtol=1e-6)

    def _listed_clusters(self) -> dict[str, set[str]]:
        proposed = select(Cluster.id).where(Cluster.gallery_id == self.hall, Cluster.rejected_at.is_(None))
        with self.database.read() as session:
            return {key: set(images_of(session, key)) for key in session.scalars(proposed).all()}

    def _take_from_clusters(self, images: set[str]) -> None:
        left = {key: members - images for key, members in self.clusters.items()}
        self.clusters = {key: members for key, members in left.items() if members}
        self.rejected = [members - images for members in self.rejected if members - images]

    def _forget(self, images: set[str]) -> int:
        """The number of pairs that go with these images, which go."""
        lost = [pair for pair in self.pairs if not images.isdisjoint(pair)]
        for pair in lost:
            del self.pairs[pair]
        for key in images:
            del self.images[key]
        self._take_from_clusters(images)
        return len(lost)


def _moment(hour: int | None) -> datetime | None:
    return None if hour is None else datetime(2026, 5, 1, tzinfo=UTC) + timedelta(hours=hour)


@cache
def _vector(seed: int) -> NDArray[np.float32]:
    vector = np.random.default_rng(seed).standard_normal(SIZE, dtype=np.float32)
    unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return unit


QUERY = _vector(1000)

TestPersons = Persons.TestCase
TestPersons.settings = configured(
    max_examples=int(os.environ.get("AGREEMENT_EXAMPLES") or 12),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
