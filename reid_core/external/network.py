"""An external network as the rest of the service knows networks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from reid_core.external.runtime import OnnxNetwork
from reid_core.network import Output, ReidNetwork


class ExternalNetwork(ReidNetwork):
    """An ONNX file: (B, 3, H, W) on any device, computed on the CPU in float32, to an `Output` of its embedding alone.

    It has no parameters here and learns nothing.
    """

    def __init__(self, path: Path, output: str, embedding_size: int) -> None:
        super().__init__()
        self.path, self.output, self.embedding_size = path, output, embedding_size
        self._onnx = OnnxNetwork(path, output, threads=torch.get_num_threads())

    @property
    def batch(self) -> int | None:
        """The number of images that the file takes at a time; None where that is free."""
        return self._onnx.batch

    def forward(self, images: Tensor) -> Output:
        embedding = self._onnx.run(images.detach().float().cpu().numpy())
        return Output(torch.from_numpy(embedding).to(images.device))
