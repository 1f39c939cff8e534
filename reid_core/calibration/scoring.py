"""Scores of images among each other, as searches score them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.calibration.curves import Floats
from reid_core.errors import CoreError
from reid_core.matching import FoldedHead, folded_scores
from reid_core.reranking import score_candidates
from reid_core.retrieval.encoder import Encoder

Rerank = Literal["none", "qaconv", "k_reciprocal"]
RERANKS: tuple[Rerank, ...] = ("none", "qaconv", "k_reciprocal")

CANDIDATES = 100
"""Candidates of a k-reciprocal re-ranking, as many as a search looks at unless told otherwise."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """N images by a model: their embeddings (N, D), and the scores (N, N) of each as a query with each.

    Scores of `qaconv` are the matcher's before they are made probabilities. NaN stands where there is none.
    """

    embeddings: NDArray[np.float32]
    scores: Floats


def score_files(
    encoder: Encoder,
    head: FoldedHead | None,
    paths: Sequence[Path],
    rerank: Rerank,
    *,
    on_progress: OnProgress = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scored:
    """Encodes the files and scores all pairs of them; `head` is the model's, for `qaconv`.

    Raises:
        CoreError: `qaconv` of a model that does not match local features.
        Stopped: `should_stop` said so.
    """
    if rerank == "qaconv" and head is None:
        raise CoreError("This model matches no local features.", hint="Name a model of a QAConv method.")
    encoding = encoder.encode_files(paths, with_maps=rerank == "qaconv", on_progress=on_progress)
    embeddings = encoding.embeddings.numpy()
    if head is not None and encoding.maps is not None:
        return Scored(embeddings, _by_matching(encoding.maps, head, should_stop))
    if rerank == "k_reciprocal":
        return Scored(embeddings, _by_neighbours(embeddings, on_progress))
    return Scored(embeddings, _cosines(embeddings).astype(np.float64))


def _cosines(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(embeddings @ embeddings.T).clip(-1, 1)


def _by_matching(maps: Tensor, head: FoldedHead, should_stop: Callable[[], bool]) -> Floats:
    on_device = maps.flatten(1, 2).to(head.weights.device)
    scores = folded_scores(on_device, on_device, head, should_stop=should_stop).double().cpu().numpy()
    return np.asarray(np.tril(scores) + np.tril(scores, -1).T)  # one score a pair, to the last digit


def _by_neighbours(embeddings: NDArray[np.float32], on_progress: OnProgress) -> Floats:
    cosines = _cosines(embeddings)
    np.fill_diagonal(cosines, -np.inf)
    nearest = torch.from_numpy(cosines).topk(min(CANDIDATES, len(cosines) - 1)).indices.numpy()
    scores = np.full(cosines.shape, np.nan)
    for image, candidates in enumerate(nearest):
        scores[image, candidates] = score_candidates(embeddings[image : image + 1], embeddings[candidates])
        on_progress(image + 1, len(nearest))
    return scores
