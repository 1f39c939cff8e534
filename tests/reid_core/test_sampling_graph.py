"""Graph sampling against algorithm 1 of paper 000, and its corner cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from reid_core.errors import CoreError
from reid_core.methods import METHODS
from reid_core.sampling import Draw
from reid_core.sampling.graph import draw_graph_batches
from reid_core.settings import IdentityBatch, override


def on_a_line(identities: NDArray[np.int64]) -> object:
    """Distances as if class c stood at c squared: the nearest of every class are known."""

    def measure(images: Sequence[int]) -> NDArray[np.float32]:
        places = identities[list(images)].astype(np.float32) ** 2
        return np.abs(places[:, None] - places[None, :])

    return measure


def draw(counts: Sequence[int], num_identities: int, images: int, seed: int = 0) -> tuple[NDArray[np.int64], Draw]:
    identities = np.repeat(np.arange(len(counts)), counts)
    batch = IdentityBatch(identities=num_identities, images_per_identity=images)
    measure = on_a_line(identities)
    return identities, draw_graph_batches(identities, batch, measure, np.random.default_rng(seed))  # type: ignore[arg-type]


def test_every_class_is_once_the_centre_of_a_batch_with_its_nearest_classes() -> None:
    identities, drawn = draw([6] * 5, 3, 2)
    classes = [identities[batch].tolist() for batch in drawn.streams[0]]
    centres = [batch[-1] for batch in classes]
    assert sorted(centres) == [0, 1, 2, 3, 4]
    assert centres != sorted(centres)
    # Places 0, 1, 4, 9, 16.
    nearest = {0: [1, 2], 1: [0, 2], 2: [1, 0], 3: [2, 4], 4: [3, 2]}
    for batch in classes:
        assert batch[::2] == [*nearest[batch[-1]], batch[-1]]


def test_the_graph_is_kept_with_its_images_and_distances() -> None:
    identities, drawn = draw([6] * 5, 3, 2)
    assert drawn.graph is not None
    assert identities[drawn.graph.images].tolist() == [0, 1, 2, 3, 4]
    assert drawn.graph.neighbours[3].tolist() == [2, 4]
    assert drawn.graph.distances[3].tolist() == [5, 7]


def test_an_image_comes_once_in_a_batch_even_when_its_pile_runs_out() -> None:
    for seed in range(20):
        _, drawn = draw([5, 4, 7, 5, 4, 6], 4, 4, seed)
        assert all(len(set(batch)) == 16 for batch in drawn.streams[0])


def test_all_images_of_a_class_are_drawn_before_one_returns() -> None:
    identities, drawn = draw([8] * 6, 6, 4)
    seen = [image for batch in drawn.streams[0] for image in batch if identities[image] == 2]
    assert Counter(Counter(seen).values()) == {3: 8}


def test_a_class_with_too_few_images_repeats_them() -> None:
    identities, drawn = draw([1, 2, 8, 8], 2, 4)
    for batch in drawn.streams[0]:
        assert sorted(Counter(identities[batch]).values()) == [4, 4]


def test_fewer_classes_than_a_batch_asks_for_make_smaller_batches() -> None:
    identities, drawn = draw([4, 4, 4], 8, 2)
    assert [sorted(set(identities[batch])) for batch in drawn.streams[0]] == [[0, 1, 2]] * 3


def test_distances_that_are_not_finite_are_refused() -> None:
    identities = np.repeat(np.arange(3), 2)
    batch = IdentityBatch(identities=2, images_per_identity=2)
    with pytest.raises(CoreError, match="finite distances of shape"):
        draw_graph_batches(
            identities, batch, lambda images: np.full((3, 3), np.nan, np.float32), np.random.default_rng(0)
        )


def test_a_size_that_cannot_be_divided_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValidationError, match="size 30 cannot be divided into groups of 4"):
        IdentityBatch.model_validate({"identities": 16, "images_per_identity": 4, "size": 30})
    assert IdentityBatch.model_validate({"identities": 16, "images_per_identity": 4, "size": 32}).identities == 8


def test_a_later_change_of_the_identities_goes_before_an_earlier_size() -> None:
    sized = override(METHODS["qaconv-gs"].recipe, {"batch": {"size": 32}})
    changed = override(sized, {"batch": {"identities": 2}})
    assert [settings.model_dump()["batch"]["identities"] for settings in (sized, changed)] == [8, 2]
