"""One folder for each person and no splits: the split is drawn here, by person, and stays as it was drawn."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable

from reid_core.data.contents import Images
from reid_core.data.records import ImageRecord

SEED = 0
PROTOCOL = (
    f"drawn by person with seed {SEED}: half of the people train; of the others one image of each camera that has "
    "several, or else one image of the person, is a query; the rest is the gallery"
)


def draw_split(images: Collection[ImageRecord], trained: Collection[str] = ()) -> Images:
    """The images in splits; people in `trained`, drawn at an earlier reading, train again.

    Who trains depends on labels and the seed alone. A person of one image is not asked for.
    """
    people: dict[str, list[ImageRecord]] = defaultdict(list)
    for image in images:
        people[image.identity].append(image)
    training = set(trained) & set(people)
    # People with one image teach little and cannot be asked for; they come last and end in the gallery.
    order = sorted(people, key=lambda identity: (len(people[identity]) < 2, _rank(identity)))
    missing = max(0, (len(people) + 1) // 2 - len(training))
    training |= set([identity for identity in order if identity not in training][:missing])
    queries = {image.path for person, own in people.items() if person not in training for image in _queries(own)}
    tested = [image for image in images if image.identity not in training]
    return {
        "train": tuple(image for image in images if image.identity in training),
        "query": tuple(image for image in tested if image.path in queries),
        "gallery": tuple(image for image in tested if image.path not in queries),
    }


def _queries(images: Iterable[ImageRecord]) -> list[ImageRecord]:
    """One of each camera that has several, or else one of the person's; none where no other camera could find it."""
    cameras: dict[str, list[ImageRecord]] = defaultdict(list)
    for image in sorted(images, key=lambda image: _rank(image.path.name)):
        cameras[image.camera].append(image)
    if len(cameras) == 1 and "" not in cameras:
        return []
    several = [own[0] for own in cameras.values() if len(own) > 1]
    return several or [own[0] for own in cameras.values()][: len(cameras) - 1][:1]


def _rank(text: str) -> str:
    return hashlib.sha256(f"{SEED}/{text}".encode()).hexdigest()
