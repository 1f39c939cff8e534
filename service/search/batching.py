"""Images of requests that come at the same time, through the network together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reid_core.retrieval.encoder import Encoder, Encoding
from service.errors import Problem

MAX_IMAGES = 32


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    encoder: Encoder
    images: Tensor
    with_maps: bool
    encoding: Future[Encoding] = field(default_factory=Future)


class Batcher:
    """One thread that runs the networks, on all that has gathered while it was busy.

    Any number of threads may call it; none of their batches is larger than `MAX_IMAGES` and one request more.
    """

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="embedding", daemon=True)
        self._thread.start()

    def encode(self, encoder: Encoder, images: Tensor, *, with_maps: bool = False) -> Encoding:
        """Encodes `images` as `encoder.encode_prepared` does, in a batch with those of other requests."""
        if not self._thread.is_alive():
            raise Problem("unavailable", "The service is stopping.", headers={"Retry-After": "5"})
        request = _Request(encoder, images, with_maps)
        self._requests.put(request)
        return request.encoding.result()

    def close(self) -> None:
        """Answers what has been asked so far and ends the thread."""
        self._requests.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._requests.get()) is not None:
            for together in _by_encoder(self._gather(first)):
                _answer(together)

    def _gather(self, first: _Request) -> list[_Request]:
        """`first` and what came while the thread was busy: waiting for more made answers later and no more of them."""
        gathered, num_images = [first], len(first.images)
        while num_images < MAX_IMAGES:
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                break
            if request is None:
                self._requests.put(None)  # closing comes after this batch
                break
            gathered.append(request)
            num_images += len(request.images)
        return gathered


def _by_encoder(requests: Sequence[_Request]) -> Iterator[list[_Request]]:
    for encoder in dict.fromkeys(request.encoder for request in requests):
        yield [request for request in requests if request.encoder is encoder]


def _answer(requests: Sequence[_Request]) -> None:
    """Encodes the images of requests for the same encoder, and hands each its own or the error."""
    with_maps = any(request.with_maps for request in requests)
    try:
        images = torch.cat([request.images for request in requests])
        encoding = requests[0].encoder.encode_prepared(images, with_maps=with_maps)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        problem = Problem("unavailable", "The device has too little free memory.", headers={"Retry-After": "5"})
        _fail(requests, problem)
    except Exception as error:  # noqa: BLE001 - raised again by whoever asked; this thread has to go on
        _fail(requests, error)
    else:
        _hand_out(encoding, requests)


def _hand_out(encoding: Encoding, requests: Sequence[_Request]) -> None:
    start = 0
    for request in requests:
        own = slice(start, start + len(request.images))
        maps = encoding.maps[own] if request.with_maps and encoding.maps is not None else None
        request.encoding.set_result(Encoding(encoding.embeddings[own], maps))
        start = own.stop


def _fail(requests: Sequence[_Request], error: Exception) -> None:
    for request in requests:
        request.encoding.set_exception(error)
