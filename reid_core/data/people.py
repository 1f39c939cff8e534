"""One folder for each person and no splits: the split is drawn here, by person, and stays as it was drawn."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable

from reid_core.data.contents import Pictures
from reid_core.data.records import Picture

SEED = 0
PROTOCOL = (
    f"drawn by person with seed {SEED}: half of the people train; of the others one picture of each camera that has "
    "several, or else one picture of the person, is a query; the rest is the gallery"
)


def draw_split(pictures: Collection[Picture], trained: Collection[str] = ()) -> Pictures:
    """The pictures in splits; people in `trained`, drawn at an earlier reading, train again.

    Who trains depends on labels and the seed alone. A person of one picture is not asked for.
    """
    people: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        people[picture.identity].append(picture)
    training = set(trained) & set(people)
    # People with one picture teach little and cannot be asked for; they come last and end in the gallery.
    order = sorted(people, key=lambda identity: (len(people[identity]) < 2, _rank(identity)))
    missing = max(0, (len(people) + 1) // 2 - len(training))
    training |= set([identity for identity in order if identity not in training][:missing])
    queries = {picture.path for person, own in people.items() if person not in training for picture in _queries(own)}
    tested = [picture for picture in pictures if picture.identity not in training]
    return {
        "train": tuple(picture for picture in pictures if picture.identity in training),
        "query": tuple(picture for picture in tested if picture.path in queries),
        "gallery": tuple(picture for picture in tested if picture.path not in queries),
    }


def _queries(pictures: Iterable[Picture]) -> list[Picture]:
    """One of each camera that has several, or else one of the person's; none where no other camera could find it."""
    cameras: dict[str, list[Picture]] = defaultdict(list)
    for picture in sorted(pictures, key=lambda picture: _rank(picture.path.name)):
        cameras[picture.camera].append(picture)
    if len(cameras) == 1 and "" not in cameras:
        return []
    several = [own[0] for own in cameras.values() if len(own) > 1]
    return several or [own[0] for own in cameras.values()][: len(cameras) - 1][:1]


def _rank(text: str) -> str:
    return hashlib.sha256(f"{SEED}/{text}".encode()).hexdigest()
