"""Transformers and ConvNeXt as torchvision builds them, without the classifier, for methods of one global feature."""

from __future__ import annotations

from math import isqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from reid_core.errors import Fault, SettingsError


class VisionTransformer(nn.Module):
    """ViT-B/16 (Dosovitskiy et al. 2021).

    The position embeddings keep torchvision's grid and are resized to that of the image at every forward pass, so that
    its weights fit and any image size does.

    Shape: (B, 3, H, W) to one map (B, 768, H/16, W/16), of its patches after the last layer.
    """

    channels = (768,)

    def __init__(self, last_stride: int) -> None:
        super().__init__()
        _refuse_stride("vit_b_16", last_stride)
        network = models.vit_b_16(weights=None)
        self.class_token, self.conv_proj, self.encoder = network.class_token, network.conv_proj, network.encoder

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.pooled(images)[1],)

    def pooled(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 768) class tokens, and the map of the patches."""
        patches = self.conv_proj(images)  # (B, 768, h, w)
        grid = patches.shape[2:]
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), patches.flatten(2).mT], dim=1)
        placed = self.encoder.dropout(tokens + self._positions(grid))
        encoded = self.encoder.ln(self.encoder.layers(placed))
        return encoded[:, 0], encoded[:, 1:].mT.unflatten(2, grid)

    def _positions(self, grid: torch.Size) -> Tensor:
        embedding = self.encoder.pos_embedding  # (1, 1 + side * side, 768)
        side = isqrt(embedding.shape[1] - 1)
        own = embedding[:, 1:].mT.unflatten(2, (side, side))
        resized = functional.interpolate(own, size=tuple(grid), mode="bicubic", align_corners=False)
        return torch.cat([embedding[:, :1], resized.flatten(2).mT], dim=1)


class Hierarchical(nn.Module):
    """Swin-T (Liu et al. 2021) and ConvNeXt-T (Liu et al. 2022).

    Shape: (B, 3, H, W) to four maps of 96, 192, 384 and 768 channels, at strides 4, 8, 16 and 32.
    """

    channels = (96, 192, 384, 768)

    def __init__(self, name: Literal["swin_t", "convnext_tiny"], last_stride: int) -> None:
        super().__init__()
        _refuse_stride(name, last_stride)
        network = models.get_model(name, weights=None)
        self.features = network.features
        self.norm: nn.Module = network.norm if name == "swin_t" else nn.Identity()
        self.channels_last = name == "swin_t"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps, current = [], images
        for place, part in enumerate(self.features):
            current = part(current)
            if place % 2:
                maps.append(current)
        maps[-1] = self.norm(maps[-1])
        return tuple(each.permute(0, 3, 1, 2) for each in maps) if self.channels_last else tuple(maps)

    def pooled(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 768) means over places, and the last map."""
        last = self.forward(images)[-1]
        return last.mean(dim=(2, 3)), last


def _refuse_stride(name: str, last_stride: int) -> None:
    if last_stride == 1:
        message = f"{name} has no last stride to leave out"
        raise SettingsError(
            f"{message[0].upper()}{message[1:]}.",
            faults=[Fault("/last_stride", "not-for-this-backbone", message)],
            hint="Use last_stride 2.",
        )
