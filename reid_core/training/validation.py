"""Accuracy on training identities that were held out, so that curves are drawn without touching a test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reid_core.data.records import Picture
from reid_core.evaluation.ranking import encode_labels, evaluate
from reid_core.retrieval.encoder import Encoder


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pictures of identities that are not trained on: the first of each (identity, camera) asks, the others answer."""

    query: tuple[Picture, ...]
    gallery: tuple[Picture, ...]


def hold_out(pictures: Sequence[Picture], fraction: float, seed: int) -> tuple[list[Picture], HeldOut | None]:
    """The pictures to train on and those held out: `fraction` of the identities seen on more than one camera."""
    cameras: dict[str, set[str]] = {}
    for picture in pictures:
        cameras.setdefault(picture.identity, set()).add(picture.camera)
    eligible = sorted(identity for identity, seen in cameras.items() if len(seen) > 1)
    count = round(fraction * len(eligible))
    if count == 0:
        return list(pictures), None
    chosen = set(np.random.default_rng(seed).choice(eligible, count, replace=False).tolist())
    held = [picture for picture in pictures if picture.identity in chosen]
    return [picture for picture in pictures if picture.identity not in chosen], _split(held)


def validate(encoder: Encoder, held_out: HeldOut) -> dict[str, float]:
    """Rank-1 and mAP on the held-out pictures, by the standard protocol."""
    query = encoder.embed_files([picture.path for picture in held_out.query])
    gallery = encoder.embed_files([picture.path for picture in held_out.gallery])
    metrics = evaluate(query, gallery, *encode_labels(held_out.query, held_out.gallery))
    return {"rank1": metrics.cmc[1], "mAP": metrics.mAP}


def _split(pictures: Sequence[Picture]) -> HeldOut:
    query: dict[tuple[str, str], Picture] = {}
    gallery = []
    for picture in pictures:
        if (picture.identity, picture.camera) in query:
            gallery.append(picture)
        else:
            query[picture.identity, picture.camera] = picture
    return HeldOut(tuple(query.values()), tuple(gallery))
