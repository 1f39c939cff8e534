"""Random and identity-balanced batches side by side, for methods that choose between them at every step."""

from __future__ import annotations

import numpy as np

from reid_core.sampling import Batches
from reid_core.sampling.identities import draw_identity_batches
from reid_core.sampling.random import draw_random_batches
from reid_core.settings import IdentityBatch

RANDOM, BALANCED = 0, 1
"""The numbers of the two streams."""


def draw_random_and_balanced(
    identities: np.ndarray, batch: IdentityBatch, generator: np.random.Generator
) -> tuple[Batches, Batches]:
    """One epoch of random batches, and as many identity-balanced ones of the same size.

    Args:
        identities: (N,) int64 codes, one per image.

    Raises:
        SettingsError: fewer images or identities than a batch needs.
    """
    random = draw_random_batches(len(identities), batch.num_images, generator)
    # Paper 002 never uses people with fewer than K images in balanced batches; here they repeat some of theirs.
    balanced: Batches = []
    while len(balanced) < len(random):
        balanced += draw_identity_batches(identities, batch, generator)
    return random, balanced
