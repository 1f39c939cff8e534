"""The PK and the random sampler and their corner cases."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from reid_core.errors import SettingsError
from reid_core.sampling.identities import draw_identity_batches
from reid_core.sampling.random import draw_random_batches
from reid_core.settings import IdentityBatch


def draw(counts: list[int], num_identities: int, images: int, seed: int = 0) -> tuple[np.ndarray, list[list[int]]]:
    identities = np.repeat(np.arange(len(counts)), counts)
    batch = IdentityBatch(identities=num_identities, images_per_identity=images)
    return identities, draw_identity_batches(identities, batch, np.random.default_rng(seed))


def test_every_batch_has_p_identities_with_k_images_each() -> None:
    identities, batches = draw([5, 9, 4, 16, 8, 7], 3, 4)
    for batch in batches:
        assert sorted(Counter(identities[batch]).values()) == [4, 4, 4]


def test_no_image_is_drawn_twice_when_identities_have_enough() -> None:
    _, batches = draw([8, 8, 8, 12, 4], 2, 4)
    drawn = [index for batch in batches for index in batch]
    assert len(drawn) == len(set(drawn))


def test_few_images_are_left_over() -> None:
    _, batches = draw([16] * 42, 16, 4)
    assert len(batches) == 42 * 4 // 16


def test_an_identity_with_too_few_images_repeats_them() -> None:
    identities, batches = draw([1, 2, 4], 3, 4)
    assert len(batches) == 1
    assert sorted(Counter(identities[batches[0]]).values()) == [4, 4, 4]
    assert set(batches[0]) == set(range(7))


def test_a_batch_that_needs_more_identities_than_there_are_is_refused_with_both_numbers() -> None:
    with pytest.raises(SettingsError, match=r"needs 16 identities.*show 9") as caught:
        draw([4] * 9, 16, 4)
    assert "9" in caught.value.hint


def test_same_generator_same_batches_and_another_epoch_others() -> None:
    assert draw([9] * 8, 4, 4, seed=1)[1] == draw([9] * 8, 4, 4, seed=1)[1]
    assert draw([9] * 8, 4, 4, seed=1)[1] != draw([9] * 8, 4, 4, seed=2)[1]


def test_random_batches_show_every_image_at_most_once() -> None:
    batches = draw_random_batches(23, 5, np.random.default_rng(0))
    drawn = [index for batch in batches for index in batch]
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    assert len(set(drawn)) == 20
    assert drawn != sorted(drawn)


def test_a_random_batch_larger_than_the_data_set_is_refused_with_both_numbers() -> None:
    with pytest.raises(SettingsError, match="needs 8 images, there are 5"):
        draw_random_batches(5, 8, np.random.default_rng(0))
