"""Recipes that the authors of transformers and of ConvNeXt fine-tune them by, for methods of one global feature.

He et al. 2021, "TransReID: Transformer-based Object Re-Identification", arXiv:2102.04378, section 4.2, of ViT-B/16;
Liu et al. 2021, "Swin Transformer", arXiv:2103.14030, section 4.1; Liu et al. 2022, "A ConvNet for the 2020s",
arXiv:2201.03545, table 6. The overlapping patches of TransReID, its jigsaw branch and its side information by camera
are not here: an embedding depends on its image alone. Swin's and ConvNeXt's authors fine-tune on ImageNet, in larger
batches; warm-up, and of Swin the cosine, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COSINE = {"shape": "cosine", "warmup_start": 0.01}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "vit_b_16": {
        "last_stride": 2,
        "optimizer": "sgd",
        "weight_decay": 1e-4,
        "schedule": {"base_lr": 0.008, "warmup": 5 / 120, **_COSINE},
        "label_smoothing": 0,
        "center": {"weight": 0},
    },
    "swin_t": {
        "last_stride": 2,
        "optimizer": "adamw",
        "weight_decay": 1e-8,
        "schedule": {"base_lr": 1e-5, "warmup": 0.1, **_COSINE},
    },
    "convnext_tiny": {
        "last_stride": 2,
        "optimizer": "adamw",
        "weight_decay": 1e-8,
        "schedule": {"base_lr": 5e-5, "warmup": 0.1, **_COSINE},
    },
}
"""Backbone -> what takes the place of a method's own values where the job does not name others."""
