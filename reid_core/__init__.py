"""Person re-identification methods: networks, losses, sampling, training, evaluation, retrieval.

Knows nothing of HTTP, queues or SQL. Importing it first makes torchvision importable beside a CPU build of
PyTorch (see `reid_core._torchvision_guard`), in every process that trains or loads pictures.
"""

from reid_core import _torchvision_guard as _torchvision_guard
