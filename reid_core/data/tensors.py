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
    """(..., 3, H, W) uint8 RGB to float32: in the order and range asked for, less the mean, over the deviation."""
    ordered = images.flip(-3) if preprocessing.colour == "BGR" else images
    mean = torch.tensor(preprocessing.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=images.device).view(3, 1, 1)
    return (ordered.float() / (255 / preprocessing.range[1]) - mean) / std
