"""Images to embeddings, as search and evaluation compare them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from reid_core.data.preprocessing import Preprocessing, open_image
from reid_core.data.tensors import normalise, resize
from reid_core.network import ReidNetwork

BATCH_SIZE = 32
_DECODERS = 4


@dataclass(frozen=True, slots=True)
class Encoding:
    """Embeddings of N images, with local features where asked for, on the CPU.

    Attributes:
        embeddings: (N, D) float32, unit length.
        maps: (N, h, w, c) float32 local features, for matching; None unless they were asked for.
    """

    embeddings: Tensor
    maps: Tensor | None = None


Engine = Callable[[Tensor, bool], Encoding]
"""(N, 3, H, W) uint8 images, each as it is, to their encoding; with maps where the second value says so."""


class TorchEngine:
    """A network that PyTorch runs, in `dtype` on `device`.

    It is switched to evaluation mode meanwhile and back afterwards.
    """

    def __init__(
        self, network: ReidNetwork, preprocessing: Preprocessing, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._network = network
        self._preprocessing = preprocessing
        self._device = device
        self._dtype = dtype

    def __call__(self, images: Tensor, with_maps: bool) -> Encoding:
        inputs = normalise(images.to(self._device), self._preprocessing).contiguous(memory_format=torch.channels_last)
        training = self._network.training
        self._network.eval()
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype != torch.float32),
            ):
                output = self._network(inputs)
        finally:
            self._network.train(training)
        maps = _to_maps(output.feature_map) if with_maps else None
        return Encoding(functional.normalize(output.embedding.float(), dim=1).cpu(), maps)


class Encoder:
    """A network, run by an engine, with its preprocessing.

    Where the preprocessing says `flip_average`, the network sees every image and its mirror image. The embedding is
    the mean of both, each of unit length before, brought to unit length again. The map is the mean of the image's map
    and of the mirror image's, mirrored back along its width, so that the same place of the body meets itself; every
    location has unit length again. An image and its mirror image then have the same embedding, and mirrored maps.
    """

    def __init__(self, engine: Engine, preprocessing: Preprocessing) -> None:
        self._engine = engine
        self._preprocessing = preprocessing

    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Embeddings of decoded images."""
        return self.embed_prepared(torch.stack([self.prepare(image) for image in images]))

    def prepare(self, image: Image.Image) -> Tensor:
        """(3, H, W) uint8: a decoded image in the network's size, for `embed_prepared`. Threads may share this."""
        return resize(image, self._preprocessing)

    def embed_files(
        self,
        paths: Sequence[Path],
        *,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        batch_size: int = BATCH_SIZE,
    ) -> Tensor:
        """(N, D) embeddings of the files, in their order; an undecodable one raises `ImageError`."""
        return self.encode_files(paths, on_progress=on_progress, batch_size=batch_size).embeddings

    def encode_files(
        self,
        paths: Sequence[Path],
        *,
        with_maps: bool = False,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        batch_size: int = BATCH_SIZE,
    ) -> Encoding:
        """Embeddings, and maps where asked for, of the files in their order."""
        parts: list[Encoding] = []
        for images in self._read(paths, batch_size):
            parts.append(self.encode_prepared(images, with_maps=with_maps))
            on_progress(min(len(paths), len(parts) * batch_size), len(paths))
        if not parts:
            return Encoding(torch.empty(0, 0), torch.empty(0, 0, 0, 0) if with_maps else None)
        maps = torch.cat([part.maps for part in parts if part.maps is not None]) if with_maps else None
        return Encoding(torch.cat([part.embeddings for part in parts]), maps)

    def embed_prepared(self, images: Tensor) -> Tensor:
        """(N, D) embeddings of N images from `prepare`, stacked to (N, 3, H, W)."""
        return self.encode_prepared(images).embeddings

    def encode_prepared(self, images: Tensor, *, with_maps: bool = False) -> Encoding:
        """Embeddings, and maps where asked for, of N images from `prepare`, stacked to (N, 3, H, W)."""
        encoding = self._engine(images, with_maps)
        if not self._preprocessing.flip_average:
            return encoding
        return average_flipped(encoding, self._engine(images.flip(3), with_maps))

    def _read(self, paths: Sequence[Path], batch_size: int) -> Iterator[Tensor]:
        def load(path: Path) -> Tensor:
            return self.prepare(open_image(path))

        chunks = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
        with ThreadPoolExecutor(_DECODERS) as pool:
            ahead = [pool.submit(load, path) for path in chunks[0]] if chunks else []
            for place in range(len(chunks)):
                current = ahead
                # The next batch is decoded while the network works on this one.
                ahead = [pool.submit(load, path) for path in chunks[place + 1]] if place + 1 < len(chunks) else []
                yield torch.stack([future.result() for future in current])


def torch_encoder(
    network: ReidNetwork, preprocessing: Preprocessing, device: torch.device, dtype: torch.dtype
) -> Encoder:
    """Returns the encoder of a network that PyTorch runs."""
    return Encoder(TorchEngine(network, preprocessing, device, dtype), preprocessing)


def average_flipped(seen: Encoding, mirrored: Encoding) -> Encoding:
    """Averages the encodings of images and of their mirror images, as `Encoder` describes."""
    embeddings = functional.normalize(seen.embeddings + mirrored.embeddings, dim=1)
    if seen.maps is None or mirrored.maps is None:
        return Encoding(embeddings)
    return Encoding(embeddings, functional.normalize(seen.maps + mirrored.maps.flip(2), dim=3))


def _to_maps(feature_map: Tensor | None) -> Tensor:
    """Turns (B, c, h, w) on any device into (B, h, w, c) float32 on the CPU."""
    if feature_map is None:
        raise TypeError("this network gives no local features")
    return feature_map.permute(0, 2, 3, 1).float().cpu()
