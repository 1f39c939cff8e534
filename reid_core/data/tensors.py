"""Images as tensors: resized and normalised as `Preprocessing` says."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reid_core.data.preprocessing import Preprocessing


def resize(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """(3, H, W) uint8 RGB."""
    method = Image.Resampling[preprocessing.interpolation.upper()]
    resized = image.resize((preprocessing.width, preprocessing.height), method)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(..., 3, H, W) uint8 to float32: scaled to [0, 1], less the mean, over the standard deviation."""
    mean = torch.tensor(preprocessing.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=images.device).view(3, 1, 1)
    return (images.float() / 255 - mean) / std
