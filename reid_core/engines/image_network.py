"""A network with all that stands around it, for other runtimes: bytes of images in, vectors of unit length out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_core.data.preprocessing import Preprocessing
from reid_core.data.tensors import normalise
from reid_core.retrieval.encoder import Encoding, average_flipped

INPUT, OUTPUTS = "pictures", ("embeddings", "maps")


class ImageNetwork(nn.Module):
    """(N, 3, H, W) uint8 RGB images of the model's size to (N, D) embeddings and, where asked for, (N, h, w, c) maps.

    Vectors of both have unit length and are those of `Encoder`.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, *, with_maps: bool) -> None:
        super().__init__()
        self._network = network
        self._preprocessing = preprocessing
        self._with_maps = with_maps
        self.eval()

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs in a file, in their order."""
        return OUTPUTS if self._with_maps else OUTPUTS[:1]

    def example(self) -> Tensor:
        """Images to trace it with: (2, 3, H, W) uint8."""
        return torch.zeros(2, 3, self._preprocessing.height, self._preprocessing.width, dtype=torch.uint8)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        encoding = self._encode(images)
        if self._preprocessing.flip_average:
            encoding = average_flipped(encoding, self._encode(images.flip(3)))
        return (encoding.embeddings,) if encoding.maps is None else (encoding.embeddings, encoding.maps)

    def _encode(self, images: Tensor) -> Encoding:
        output = self._network(normalise(images, self._preprocessing))
        maps = output.feature_map.permute(0, 2, 3, 1) if self._with_maps else None
        return Encoding(functional.normalize(output.embedding, dim=1), maps)
