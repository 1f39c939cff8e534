"""Accuracy on training identities that were held out, so that curves are drawn without touching a test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reid_core.data.records import ImageRecord
from reid_core.evaluation.labels import encode_labels
from reid_core.evaluation.metrics import Metrics
from reid_core.evaluation.ranking import evaluate, evaluate_scores
from reid_core.matching import FoldedHead, folded_scores
from reid_core.retrieval.encoder import Encoder

_BLOCK_SCORES = 2**16
"""Pairs that the matcher scores at a time."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Images of identities that are not trained on: the first of each (identity, camera) asks, the others answer."""

    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]


def hold_out(images: Sequence[ImageRecord], fraction: float, seed: int) -> tuple[list[ImageRecord], HeldOut | None]:
    """The images to train on and those held out: `fraction` of the identities seen on more than one camera."""
    cameras: dict[str, set[str]] = {}
    for image in images:
        cameras.setdefault(image.identity, set()).add(image.camera)
    eligible = sorted(identity for identity, seen in cameras.items() if len(seen) > 1)
    count = round(fraction * len(eligible))
    if count == 0:
        return list(images), None
    chosen = set(np.random.default_rng(seed).choice(eligible, count, replace=False).tolist())
    held = [image for image in images if image.identity in chosen]
    return [image for image in images if image.identity not in chosen], _split(held)


def validate(encoder: Encoder, held_out: HeldOut, head: FoldedHead | None = None) -> dict[str, float]:
    """Rank-1 and mAP on the held-out images, by the standard protocol.

    With the head of a network that matches local features they are the matcher's, as in figure 2 of paper 000;
    `first_stage_rank1` and `first_stage_mAP` are those of the embeddings.
    """
    query, gallery = (
        encoder.encode_files([image.path for image in images], with_maps=head is not None)
        for images in (held_out.query, held_out.gallery)
    )
    labels = encode_labels(held_out.query, held_out.gallery)
    first = _accuracy(evaluate(query.embeddings, gallery.embeddings, *labels))
    if head is None or query.maps is None or gallery.maps is None:
        return first
    query_maps, gallery_maps = query.maps.flatten(1, 2), gallery.maps.flatten(1, 2)
    matched = evaluate_scores(
        lambda start, stop: folded_scores(query_maps[start:stop], gallery_maps, head),
        *labels,
        block_scores=_BLOCK_SCORES,
    )
    return _accuracy(matched) | {f"first_stage_{name}": value for name, value in first.items()}


def _accuracy(metrics: Metrics) -> dict[str, float]:
    return {"rank1": metrics.cmc[1], "mAP": metrics.mAP}


def _split(images: Sequence[ImageRecord]) -> HeldOut:
    query: dict[tuple[str, str], ImageRecord] = {}
    gallery = []
    for image in images:
        if (image.identity, image.camera) in query:
            gallery.append(image)
        else:
            query[image.identity, image.camera] = image
    return HeldOut(tuple(query.values()), tuple(gallery))
