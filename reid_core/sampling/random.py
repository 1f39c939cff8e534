"""Random sampling: every image once an epoch, in any order."""

from __future__ import annotations

import numpy as np

from reid_core.errors import Fault, SettingsError
from reid_core.sampling import Batches


def draw_random_batches(num_images: int, size: int, generator: np.random.Generator) -> Batches:
    """One epoch of batches of `size` image indices; what does not fill a batch is left out of this epoch.

    Raises:
        SettingsError: fewer images than a batch needs.
    """
    if num_images < size:
        message = f"a batch needs {size} images, there are {num_images} to train on"
        raise SettingsError(
            f"{message[0].upper()}{message[1:]}.",
            faults=[Fault("/batch/size", "too-few-pictures", message)],
            hint=f"Lower settings.batch.size to {num_images} or less.",
        )
    order = generator.permutation(num_images)
    return [order[start : start + size].tolist() for start in range(0, num_images - size + 1, size)]
