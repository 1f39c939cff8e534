"""Lets torchvision be imported beside a PyTorch build that its compiled part does not match.

The registry's torchvision wheel is linked against CUDA libraries. Beside CPU PyTorch its shared object cannot be
loaded, and `import torchvision` then ends in `operator torchvision::nms does not exist`. Nothing here uses those
operators, so declaring their schemas is enough. With a matching build the library loads and nothing is declared.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch


def _declare_missing_operators() -> torch.library.Library | None:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    for shared_object in sorted(Path(spec.origin).parent.glob("_C*.so")):
        try:
            torch.ops.load_library(str(shared_object))
        except OSError:
            break
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


# Kept alive for the life of the process: the schemas vanish with the object.
_LIBRARY = _declare_missing_operators()
