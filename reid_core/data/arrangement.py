"""Splits for formats whose folders do not tell them: deterministic choices, each stamped in the format's protocol.

What an arrangement leaves out is counted by the reader.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from reid_core.data.contents import Images
from reid_core.data.records import DISTRACTOR, ImageRecord

_PRID_SHARED = 200
"""People 1 to 200 of PRID 2011 are the same in both cameras; later numbers are other people in either."""

_SYSU_INFRARED = frozenset({"3", "6"})


def halve_identities(images: Images, root: Path) -> Images:
    """Every second identity in sorted order, from the first on, becomes training data; the others stay where they are.

    For VIPeR, which has 632 people and no split of its own: 316 train, 316 test; and for iLIDS-VID with 300.
    """
    return _train_on(_every_second(image.identity for split in images.values() for image in split), images)


def pair_prid(images: Images, root: Path) -> Images:
    """Half of the people whom both cameras saw train; the gallery has everybody else of the second camera."""
    query = tuple(image for image in images["query"] if int(image.identity) <= _PRID_SHARED)
    shared = {image.identity for image in query} & {image.identity for image in images["gallery"]}
    return _train_on(_every_second(shared), {**images, "query": query})


def pick_queries(images: Images, root: Path) -> Images:
    """The first image of every (identity, camera) moves from the gallery to the queries; distractors stay.

    For MARS, whose own choice of query tracklets is kept in a MATLAB file beside the images.
    """
    first: dict[tuple[str, str], ImageRecord] = {}
    for image in images["gallery"]:
        if image.identity != DISTRACTOR:
            first.setdefault((image.identity, image.camera), image)
    queries = {image.path for image in first.values()}
    rest = tuple(image for image in images["gallery"] if image.path not in queries)
    return {"train": images["train"], "query": _by_path(first.values()), "gallery": rest}


def prefix_train_identities(images: Images, root: Path) -> Images:
    """Training identities get the prefix `train-`.

    For MSMT17, which counts people from 0 in training and from 0 again in testing: equal numbers, other people.
    """
    train = tuple(replace(image, identity=f"train-{image.identity}") for image in images["train"])
    return {**images, "train": train}


def split_sysu(images: Images, root: Path) -> Images:
    """By the lists of identities in `exp`: of the people to test on infrared images are asked for among visible ones.

    For SYSU-MM01: 395 people train (296 and 99 of the validation list), 96 test.
    """
    trained, tested = _listed(root, "train_id.txt", "val_id.txt"), _listed(root, "test_id.txt")
    test = [image for image in images["train"] if int(image.identity) in tested]
    return {
        "train": tuple(image for image in images["train"] if int(image.identity) in trained),
        "query": tuple(image for image in test if image.camera in _SYSU_INFRARED),
        "gallery": tuple(image for image in test if image.camera not in _SYSU_INFRARED),
    }


def _listed(root: Path, *names: str) -> set[int]:
    texts = [(root / "exp" / name).read_text(errors="replace") for name in names if (root / "exp" / name).is_file()]
    return {int(number) for text in texts for number in re.findall(r"[0-9]{1,9}", text)}


def _every_second(identities: Iterable[str]) -> set[str]:
    return set(sorted(set(identities))[::2])


def _train_on(trained: Collection[str], images: Images) -> Images:
    everyone = (image for split in images.values() for image in split)
    return {
        "train": _by_path(image for image in everyone if image.identity in trained),
        "query": tuple(image for image in images["query"] if image.identity not in trained),
        "gallery": tuple(image for image in images["gallery"] if image.identity not in trained),
    }


def _by_path(images: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
    return tuple(sorted(images, key=lambda image: image.path))
