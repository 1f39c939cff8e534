"""Index jobs of one gallery, run in the test's own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from reid_core.engines.serving import serve
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.galleries.files import Features, generation_of
from service.galleries.job import index_gallery
from service.search.snapshots import Snapshots
from service.settings import Settings


class Worker:
    """Runs index jobs on the gallery `hall`."""

    def __init__(self, database: Database, settings: Settings, gallery_id: str) -> None:
        self.database = database
        self.settings = settings
        self.gallery_id = gallery_id
        self.progress: list[tuple[int, int]] = []
        self.phases: list[str] = []

    def run(
        self,
        add: dict[str, str] | None = None,
        *,
        embed: bool = True,
        at: dict[int, Callable[[], object]] | None = None,
        stop_after: int = 10**9,
    ) -> dict[str, Any]:
        """The job's result; `at` says what happens when so many images are done, `stop_after` how many pages."""
        self.progress, self.phases = [], []

        def on_progress(done: int, total: int) -> None:
            self.progress.append((done, total))
            (at or {}).get(done, lambda: None)()

        def progress(phase: str) -> Callable[[int, int], None]:
            self.phases.append(phase)
            return on_progress if phase == "embed" else lambda done, total: None

        return index_gallery(
            self.database,
            self.settings,
            self.gallery_id,
            add=add,
            embed=embed,
            model_for=lambda model_id: serve(self.settings.models_dir / model_id, torch.device("cpu"), "auto"),
            progress=progress,
            should_stop=lambda: len(self.progress) >= stop_after,
        )

    def gallery(self) -> Gallery:
        with self.database.read() as session:
            return session.get_one(Gallery, self.gallery_id)

    def images(self) -> list[GalleryImage]:
        with self.database.read() as session:
            images = session.query(GalleryImage).filter_by(gallery_id=self.gallery_id)
            return images.order_by(GalleryImage.position).all()

    def vectors(self) -> np.ndarray:
        """(N, D) of the generation in use."""
        return self._features()[0]

    def maps(self) -> np.ndarray:
        """(N, h * w, c) of the generation in use."""
        return self._features()[1]

    def found(self, image: GalleryImage) -> list[str]:
        """Ids in the order of a search by that image's stored vector, through the index as a new process loads it."""
        snapshot = Snapshots(self.database, self.settings).current(self.gallery_id).snapshot
        _, positions = snapshot.search(snapshot.store.read([image.position]), 100)
        ids = {image.position: image.id for image in self.images()}
        return [ids[position] for position in positions[0].tolist()]

    def _features(self) -> Features:
        with self.database.read() as session:
            gallery = session.get_one(Gallery, self.gallery_id)
            generation = generation_of(session, self.settings, gallery)
        return generation.read(range(gallery.next_position), count=gallery.next_position)
