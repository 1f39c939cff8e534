"""Embeddings of uploaded images, as a model makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.errors import CoreError
from service.decoding import Decoder
from service.errors import Problem, problem_from_core
from service.search.batching import MAX_IMAGES
from service.search.models import SharedEncoder

Embedding = NDArray[np.float32]


def embed(
    encoder: SharedEncoder, decoder: Decoder, contents: Sequence[Callable[[], bytes]]
) -> list[Embedding | Problem]:
    """The embedding (D,) of each of `contents`, of unit length, or the problem of one that cannot be taken."""
    embedded: list[Embedding | Problem] = []
    for start in range(0, len(contents), MAX_IMAGES):
        prepared = [
            _prepare(encoder, decoder, content, f"image {number}")
            for number, content in enumerate(contents[start : start + MAX_IMAGES], start + 1)
        ]
        embedded += _embed_some(encoder, prepared)
    return embedded


def _embed_some(encoder: SharedEncoder, prepared: Sequence[Tensor | Problem]) -> list[Embedding | Problem]:
    images = [one for one in prepared if not isinstance(one, Problem)]
    vectors = iter(encoder.embed_prepared(torch.stack(images)).numpy() if images else ())
    return [one if isinstance(one, Problem) else next(vectors) for one in prepared]


def _prepare(encoder: SharedEncoder, decoder: Decoder, content: Callable[[], bytes], name: str) -> Tensor | Problem:
    try:
        with decoder.opened(content(), name) as decoded:
            return encoder.prepare(decoded.image)
    except Problem as problem:
        return problem
    except CoreError as error:
        return problem_from_core(error)
