"""The kinds of index, and which one suits a gallery; without FAISS, which `index` brings.

flat compares with every vector, rabitq keeps a bit per number, hnsw is a graph, ivfpq has cells and codes.
"""

from __future__ import annotations

BUILT_KINDS = ("rabitq", "hnsw", "ivfpq")

FLAT_NUMBERS = 100_000_000
"""Up to so many numbers (195,000 vectors of 512, 0.4 GB) "auto" searches exactly: tens of milliseconds on one core."""

RABITQ_NUMBERS = 4_000_000_000
"""Up to so many (8 million vectors of 512) "auto" takes rabitq, 8 ms a million on one core; beyond, ivfpq."""

RABITQ_LEAST = 64
"""Numbers that a vector needs: the estimate of a score is off by about one over their square root."""

PQ_BITS = 8
TRAINING_PER_CENTROID = 39
"""FAISS's own least number of training vectors per centroid."""

IVFPQ_LEAST = TRAINING_PER_CENTROID * 2**PQ_BITS
"""Vectors that ivfpq needs to be trained on: 9,984."""


def choose_kind(count: int, dim: int) -> str:
    """The kind that "auto" means for `count` vectors of `dim` numbers: exact search for as long as it is quick."""
    numbers = count * dim
    if numbers <= FLAT_NUMBERS or dim < RABITQ_LEAST:
        return "flat"
    return "rabitq" if numbers <= RABITQ_NUMBERS else "ivfpq"


def resolve_kind(requested: str, count: int, dim: int) -> str:
    """The kind of index for `count` vectors of `dim` numbers: flat where the one wished for cannot be."""
    kind = choose_kind(count, dim) if requested == "auto" else requested
    possible = {"rabitq": count > 0 and dim >= RABITQ_LEAST, "hnsw": count > 0, "ivfpq": count >= IVFPQ_LEAST}
    return kind if possible.get(kind) else "flat"
