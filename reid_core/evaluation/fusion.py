"""Multi query: all pictures of one person by one camera ask together (Zheng et al. 2015, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from reid_core.data.records import ImageRecord


@dataclass(frozen=True, slots=True)
class MultiQuery:
    """Q queries of several pictures each: the first picture of each, and positions of all in query + gallery images."""

    queries: tuple[ImageRecord, ...]
    members: tuple[tuple[int, ...], ...]


def join_queries(query: Sequence[ImageRecord], gallery: Sequence[ImageRecord]) -> MultiQuery:
    """One query for each identity and camera of the query images.

    To its query images come the gallery's of that person and camera, which the protocol takes out of its ranking. Where
    the camera is unknown none is taken out, and only query images are joined.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for position, image in enumerate(query):
        groups.setdefault((image.identity, image.camera), []).append(position)
    for position, image in enumerate(gallery, start=len(query)):
        if image.camera and (members := groups.get((image.identity, image.camera))):
            members.append(position)
    return MultiQuery(tuple(query[members[0]] for members in groups.values()), tuple(map(tuple, groups.values())))


def fuse(query: Tensor, gallery: Tensor, members: Sequence[Sequence[int]]) -> Tensor:
    """The mean of each query's embeddings, (Q, D) of unit length."""
    embeddings = torch.cat([query, gallery])
    return functional.normalize(torch.stack([embeddings[list(positions)].mean(dim=0) for positions in members]))
