"""A small model that matches locally, its scores by the plain formula, and images with something to match."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from reid_core.data.preprocessing import preprocessing_of
from reid_core.methods import METHODS
from reid_core.model import save_model
from reid_core.settings import override
from service.settings import Settings
from tests.service.galleries.stock import load

MATCHER_ID = "mdl_00000000000000000000000009"
METHOD = "qaconv-pk"
GRID = (4, 2)
"""h and w of the maps."""

EMBEDDING_SIZE = 32


def save_matching_model(folder: Path, *, head_scale: float = 1) -> None:
    """An untrained network whose head has weights and statistics of its own, so that every part of it counts."""
    method = METHODS[METHOD]
    changes = {"backbone": "resnet18", "image": {"height": 64, "width": 32}, "neck_channels": 8}
    settings = override(method.recipe, changes)
    torch.manual_seed(1)
    network = method.build_network(settings, 4)
    head: nn.Module = network.head
    with torch.no_grad():
        head.weighting.weight.copy_(head_scale * (0.5 + torch.rand_like(head.weighting.weight)))
        for norm, mean, variance in ((head.maxima_norm, 0.9, 0.04), (head.score_norm, -0.5, 4.0)):
            norm.running_mean.fill_(mean)
            norm.running_var.fill_(variance)
    folder.mkdir(parents=True)
    save_model(
        folder,
        network,
        method=METHOD,
        settings=settings,
        num_classes=4,
        preprocessing=preprocessing_of(settings),
    )


def scene(seed: int, size: tuple[int, int] = (32, 64)) -> bytes:
    """An image with different colours everywhere, another for every seed."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 255, (8, 4, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def encode(settings: Settings, model_id: str, contents: list[bytes]) -> tuple[np.ndarray, Tensor]:
    """Embeddings (N, D) and maps (N, h * w, c) of the images."""
    encoder = load(settings, model_id).encoder()
    prepared = [encoder.prepare(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]
    encoding = encoder.encode_prepared(torch.stack(prepared), with_maps=True)
    assert encoding.maps is not None
    return encoding.embeddings.numpy(), encoding.maps.flatten(1, 2)


def match(settings: Settings, query: Tensor, gallery: Tensor, model_id: str = MATCHER_ID) -> np.ndarray:
    """(Q, G) float64 logits: best correlations both ways, normalised, weighted, summed, normalised."""
    head = load(settings, model_id).network.head.double()
    correlations = torch.einsum("qrc,gsc->qgrs", query.double(), gallery.double())
    maxima = torch.stack([correlations.amax(3), correlations.amax(2)], dim=2)  # (Q, G, 2, hw)
    with torch.no_grad():
        normalised = head.maxima_norm(maxima.reshape(-1, 1, maxima.shape[3])).reshape(maxima.shape)
        summed = head.weighting(normalised).sum(dim=2)  # (Q, G, 1)
        logits: np.ndarray = head.score_norm(summed.reshape(-1, 1)).reshape(summed.shape[:2]).numpy()
    return logits


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
