"""Models loaded for search; the ones used last stay loaded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from reid_core.devices import resolve_device
from reid_core.matching import FoldedHead
from reid_core.retrieval.encoder import Encoder, Encoding
from service.search.batching import Batcher
from service.settings import Settings

KEPT_MODELS = 3


@dataclass(frozen=True, slots=True)
class SharedEncoder:
    """A model whose batches are shared with other requests; any number of threads may use it.

    `head` scores pairs of its maps; None for a model that does not match locally.
    """

    encoder: Encoder
    head: FoldedHead | None
    batcher: Batcher

    def prepare(self, image: Image.Image) -> Tensor:
        """(3, H, W) uint8."""
        return self.encoder.prepare(image)

    def embed_prepared(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to (N, D) float32 of unit length."""
        return self.encode_prepared(images).embeddings

    def encode_prepared(self, images: Tensor, *, with_maps: bool = False) -> Encoding:
        """Embeddings as above, and where asked for the maps (N, h, w, c) float32."""
        return self.batcher.encode(self.encoder, images, with_maps=with_maps)


class Encoders:
    """The encoder of each model by its id, at most `KEPT_MODELS` of them at a time."""

    def __init__(self, settings: Settings, batcher: Batcher) -> None:
        self._settings = settings
        self._batcher = batcher
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, Future[SharedEncoder]] = OrderedDict()

    def get(self, model_id: str) -> SharedEncoder:
        """Loads the model where that is needed, once for all who wait for it.

        Raises:
            WeightsError: a file of the model is missing or damaged.
            SettingsError: REID_DEVICE names a device that this machine lacks, REID_ENGINE one that cannot run it.
        """
        with self._lock:
            known = self._loaded.get(model_id)
            future = self._loaded[model_id] = known or Future()
            self._loaded.move_to_end(model_id)
            if len(self._loaded) > KEPT_MODELS:
                self._loaded.popitem(last=False)
        if known is None:
            self._load(model_id, future)
        return future.result()

    def _load(self, model_id: str, future: Future[SharedEncoder]) -> None:
        from reid_core.engines.serving import serve  # brings torchvision

        try:
            device = resolve_device(self._settings.device)
            served = serve(self._settings.models_dir / model_id, device, self._settings.engine)
            future.set_result(SharedEncoder(served.encoder, served.head, self._batcher))
        except BaseException as error:
            with self._lock:
                self._loaded.pop(model_id, None)  # the next request tries again
            future.set_exception(error)
            raise
