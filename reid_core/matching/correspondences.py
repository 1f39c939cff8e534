"""Correspondences: the pairs of locations that carried the match of two images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reid_core.matching.head import FoldedHead
from reid_core.matching.maps import check_maps


@dataclass(frozen=True, slots=True)
class Correspondence:
    """A location of the query map and the most similar one of the gallery map, both y * w + x.

    Attributes:
        similarity: cosine in [-1, 1].
        added: to the score of the pair, in logits: weight times similarity, of both directions where they are mutual.
    """

    query_location: int
    gallery_location: int
    similarity: float
    added: float


@torch.no_grad()
def correspondences(query: Tensor, gallery: Tensor, head: FoldedHead, *, count: int) -> list[Correspondence]:
    """The `count` pairs of locations that show best why two images match, no query location twice.

    Every query location is paired with its best gallery location. Pairs in which each is the other's best come
    first: the score counts them in both directions, and no location has two of them, so they spread over the person,
    while one conspicuous gallery location may be the best of many. Either kind is ordered by what it adds to the
    score, weight times similarity.

    Args:
        query, gallery: (hw, c) floating, unit length per location.
        head: its weights order the pairs.

    Raises:
        CoreError: the shapes do not fit together or the head.
    """
    check_maps(query[None], gallery[None])
    head.check(query[None], gallery[None])
    similarities = query.float() @ gallery.float().T  # (hw, hw)
    best, places = similarities.max(dim=1)
    locations = torch.arange(len(query), device=query.device)
    mutual = similarities.argmax(dim=0)[places] == locations
    weights = head.weights.to(query.device)
    added = best * (weights + mutual * weights[places])
    by_addition = added.argsort(descending=True, stable=True)
    order = by_addition[mutual[by_addition].int().argsort(descending=True, stable=True)][:count]
    return [
        Correspondence(
            int(location), int(places[location]), min(max(float(best[location]), -1.0), 1.0), float(added[location])
        )
        for location in order
    ]
