"""Requests share the networks: images that come together go through together, models used last stay loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from reid_core.retrieval.encoder import Encoding
from service.search.batching import MAX_IMAGES, Batcher
from service.search.models import KEPT_MODELS, Encoders
from service.settings import Settings
from tests.service.search.stock import MATCHER_ID
from tests.waiting import HANG_SECONDS


class Recorder:
    """An encoder that notes how many images came together, and holds the first batch until it is let go."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.busy = threading.Event()
        self.go = threading.Event()

    def encode_prepared(self, images: torch.Tensor, *, with_maps: bool) -> Encoding:
        self.sizes.append(len(images))
        self.busy.set()
        self.go.wait(HANG_SECONDS)
        if (images < 0).any():
            raise ValueError("an image is broken")
        return Encoding(images * 2, images * 3 if with_maps else None)


def test_requests_at_the_same_time_are_embedded_together() -> None:
    batcher, recorder = Batcher(), Recorder()
    with ThreadPoolExecutor(50) as pool:
        first = pool.submit(batcher.encode, recorder, torch.zeros(1, 2))
        recorder.busy.wait()
        others = [
            pool.submit(batcher.encode, recorder, torch.full((2, 2), number), with_maps=number % 2 == 1)
            for number in range(40)
        ]
        while batcher._requests.qsize() < 40:
            pass
        recorder.go.set()
        assert first.result().embeddings.shape == (1, 2)
        for number, other in enumerate(others):
            encoding = other.result()
            assert torch.equal(encoding.embeddings, torch.full((2, 2), 2 * number))
            assert (encoding.maps is not None) == (number % 2 == 1)
            assert encoding.maps is None or torch.equal(encoding.maps, torch.full((2, 2), 3 * number))
    assert recorder.sizes == [1, MAX_IMAGES, MAX_IMAGES, 80 - 2 * MAX_IMAGES]
    batcher.close()


def test_an_error_reaches_whoever_asked_and_the_next_request_is_answered() -> None:
    batcher, recorder = Batcher(), Recorder()
    recorder.go.set()
    with pytest.raises(ValueError, match="broken"):
        batcher.encode(recorder, torch.full((1, 2), -1))
    assert batcher.encode(recorder, torch.ones(1, 2)).embeddings.tolist() == [[2, 2]]
    batcher.close()
    with pytest.raises(Exception, match="stopping"):
        batcher.encode(recorder, torch.ones(1, 2))


def test_only_the_models_used_last_stay_loaded(settings: Settings) -> None:
    for number in range(KEPT_MODELS + 1):
        (settings.models_dir / f"mdl_{number}").symlink_to(settings.models_dir / MATCHER_ID)
    batcher = Batcher()
    encoders = Encoders(settings, batcher)
    load: Callable[[int], object] = lambda number: encoders.get(f"mdl_{number}").encoder  # noqa: E731
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(load, [0] * 4))) == 1
    first = load(0)
    load(1)
    load(2)
    assert load(0) is first
    load(3)
    assert load(0) is first
    assert len(encoders._loaded) == KEPT_MODELS
    batcher.close()
