"""PK sampling (Hermans et al. 2017): batches of P identities with K images each."""

from __future__ import annotations

import numpy as np

from reid_core.errors import Fault, SettingsError
from reid_core.sampling import Batches
from reid_core.settings import IdentityBatch


def draw_identity_batches(identities: np.ndarray, batch: IdentityBatch, generator: np.random.Generator) -> Batches:
    """One epoch of batches of image indices; within a batch an identity's images are neighbours.

    Each identity's images are shuffled and cut into groups of K; what is left of a cut is dropped for this epoch,
    and an identity with fewer than K images repeats some of them. Batches take the identities with the most groups
    left (ties at random), so that few groups are left over when fewer than P identities have any.

    Args:
        identities: (N,) int64 codes, one per image.

    Raises:
        SettingsError: fewer identities than a batch needs.
    """
    groups = {
        int(code): _cut(np.flatnonzero(identities == code), batch.images_per_identity, generator)
        for code in np.unique(identities)
    }
    if len(groups) < batch.identities:
        raise too_few_identities(batch.identities, len(groups))
    batches: Batches = []
    while len(available := [code for code, cut in groups.items() if cut]) >= batch.identities:
        left = np.array([len(groups[code]) for code in available])
        most_left_first = np.lexsort((generator.random(len(available)), -left))
        chosen = [available[place] for place in most_left_first[: batch.identities]]
        batches.append([index for code in chosen for index in groups[code].pop()])
    return [batches[place] for place in generator.permutation(len(batches))]


def too_few_identities(needed: int, found: int) -> SettingsError:
    """The error for a batch that asks for more identities than the data set has."""
    message = f"a batch needs {needed} identities, the training images show {found}"
    return SettingsError(
        f"{message[0].upper()}{message[1:]}.",
        faults=[Fault("/batch/identities", "too-few-identities", message)],
        hint=f"Lower settings.batch.identities to {found} or less.",
    )


def _cut(images: np.ndarray, size: int, generator: np.random.Generator) -> list[list[int]]:
    shuffled = generator.permutation(images)
    if len(shuffled) < size:
        extra = generator.choice(images, size - len(images))
        return [[*shuffled.tolist(), *extra.tolist()]]
    whole = len(shuffled) // size
    return [group.tolist() for group in shuffled[: whole * size].reshape(whole, size)]
