"""Splits for formats whose folders do not tell them: deterministic choices, each stamped in the format's protocol.

What an arrangement leaves out is counted by the reader.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from reid_core.data.contents import Pictures
from reid_core.data.records import DISTRACTOR, Picture

_PRID_SHARED = 200
"""People 1 to 200 of PRID 2011 are the same in both cameras; later numbers are other people in either."""

_SYSU_INFRARED = frozenset({"3", "6"})


def halve_identities(pictures: Pictures, root: Path) -> Pictures:
    """Every second identity in sorted order, from the first on, becomes training data; the others stay where they are.

    For VIPeR, which has 632 people and no split of its own: 316 train, 316 test; and for iLIDS-VID with 300.
    """
    return _train_on(_every_second(picture.identity for split in pictures.values() for picture in split), pictures)


def pair_prid(pictures: Pictures, root: Path) -> Pictures:
    """Half of the people whom both cameras saw train; the gallery has everybody else of the second camera."""
    query = tuple(picture for picture in pictures["query"] if int(picture.identity) <= _PRID_SHARED)
    shared = {picture.identity for picture in query} & {picture.identity for picture in pictures["gallery"]}
    return _train_on(_every_second(shared), {**pictures, "query": query})


def pick_queries(pictures: Pictures, root: Path) -> Pictures:
    """The first picture of every (identity, camera) moves from the gallery to the queries; distractors stay.

    For MARS, whose own choice of query tracklets is kept in a MATLAB file beside the pictures.
    """
    first: dict[tuple[str, str], Picture] = {}
    for picture in pictures["gallery"]:
        if picture.identity != DISTRACTOR:
            first.setdefault((picture.identity, picture.camera), picture)
    queries = {picture.path for picture in first.values()}
    rest = tuple(picture for picture in pictures["gallery"] if picture.path not in queries)
    return {"train": pictures["train"], "query": _by_path(first.values()), "gallery": rest}


def tell_apart(pictures: Pictures, root: Path) -> Pictures:
    """Training identities get the prefix `train-`.

    For MSMT17, which counts people from 0 in training and from 0 again in testing: equal numbers, other people.
    """
    train = tuple(replace(picture, identity=f"train-{picture.identity}") for picture in pictures["train"])
    return {**pictures, "train": train}


def split_sysu(pictures: Pictures, root: Path) -> Pictures:
    """By the lists of identities in `exp`: of the people to test on infrared pictures are asked for among visible ones.

    For SYSU-MM01: 395 people train (296 and 99 of the validation list), 96 test.
    """
    trained, tested = _listed(root, "train_id.txt", "val_id.txt"), _listed(root, "test_id.txt")
    test = [picture for picture in pictures["train"] if int(picture.identity) in tested]
    return {
        "train": tuple(picture for picture in pictures["train"] if int(picture.identity) in trained),
        "query": tuple(picture for picture in test if picture.camera in _SYSU_INFRARED),
        "gallery": tuple(picture for picture in test if picture.camera not in _SYSU_INFRARED),
    }


def _listed(root: Path, *names: str) -> set[int]:
    texts = [(root / "exp" / name).read_text(errors="replace") for name in names if (root / "exp" / name).is_file()]
    return {int(number) for text in texts for number in re.findall(r"[0-9]{1,9}", text)}


def _every_second(identities: Iterable[str]) -> set[str]:
    return set(sorted(set(identities))[::2])


def _train_on(trained: Collection[str], pictures: Pictures) -> Pictures:
    everyone = (picture for split in pictures.values() for picture in split)
    return {
        "train": _by_path(picture for picture in everyone if picture.identity in trained),
        "query": tuple(picture for picture in pictures["query"] if picture.identity not in trained),
        "gallery": tuple(picture for picture in pictures["gallery"] if picture.identity not in trained),
    }


def _by_path(pictures: Iterable[Picture]) -> tuple[Picture, ...]:
    return tuple(sorted(pictures, key=lambda picture: picture.path))
