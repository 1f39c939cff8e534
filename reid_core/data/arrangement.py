"""Splits for formats whose folders do not tell them: deterministic choices, each stamped in the format's protocol."""

from __future__ import annotations

from dataclasses import replace

from reid_core.data.contents import Pictures
from reid_core.data.records import DISTRACTOR, Picture


def halve_identities(pictures: Pictures) -> Pictures:
    """Every second identity in sorted order, from the first on, becomes training data; the others stay where they are.

    For VIPeR, which has 632 people and no split of its own: 316 train, 316 test.
    """
    everyone = [picture for split in pictures.values() for picture in split]
    trained = set(sorted({picture.identity for picture in everyone})[::2])
    return {
        "train": _by_path([picture for picture in everyone if picture.identity in trained]),
        "query": tuple(picture for picture in pictures["query"] if picture.identity not in trained),
        "gallery": tuple(picture for picture in pictures["gallery"] if picture.identity not in trained),
    }


def pick_queries(pictures: Pictures) -> Pictures:
    """The first picture of every (identity, camera) moves from the gallery to the queries; distractors stay.

    For MARS, whose own choice of query tracklets is kept in a MATLAB file beside the pictures.
    """
    first: dict[tuple[str, str], Picture] = {}
    for picture in pictures["gallery"]:
        if picture.identity != DISTRACTOR:
            first.setdefault((picture.identity, picture.camera), picture)
    queries = {picture.path for picture in first.values()}
    rest = tuple(picture for picture in pictures["gallery"] if picture.path not in queries)
    return {"train": pictures["train"], "query": _by_path(list(first.values())), "gallery": rest}


def tell_apart(pictures: Pictures) -> Pictures:
    """Training identities get the prefix `train-`.

    For MSMT17, which counts people from 0 in training and from 0 again in testing: equal numbers, other people.
    """
    train = tuple(replace(picture, identity=f"train-{picture.identity}") for picture in pictures["train"])
    return {**pictures, "train": train}


def _by_path(pictures: list[Picture]) -> tuple[Picture, ...]:
    return tuple(sorted(pictures, key=lambda picture: picture.path))
