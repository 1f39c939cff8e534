"""Random sampling: every picture once an epoch, in any order."""

from __future__ import annotations

import numpy as np

from reid_core.errors import Fault, SettingsError
from reid_core.sampling import Batches


def draw_random_batches(num_pictures: int, size: int, generator: np.random.Generator) -> Batches:
    """One epoch of batches of `size` picture indices; what does not fill a batch is left out of this epoch.

    Raises:
        SettingsError: fewer pictures than a batch needs.
    """
    if num_pictures < size:
        message = f"a batch needs {size} pictures, there are {num_pictures} to train on"
        raise SettingsError(
            f"{message[0].upper()}{message[1:]}.",
            faults=[Fault("/batch/size", "too-few-pictures", message)],
            hint=f"Lower settings.batch.size to {num_pictures} or less.",
        )
    order = generator.permutation(num_pictures)
    return [order[start : start + size].tolist() for start in range(0, num_pictures - size + 1, size)]
