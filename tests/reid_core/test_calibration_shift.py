"""A gallery unlike the calibration's images is told from one that is like them, and strangers' scores are foreseen."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from reid_core.calibration.shift import Origin, describe_origin, summarise_images, summarise_people
from reid_core.calibration.strangers import Strangers

SIZE = 64
EACH = 6


def draw(people: int, seed: int, *, spread: float = 1.0, moved: float = 0.0) -> tuple[NDArray[np.float32], np.ndarray]:
    """Unit vectors of people, `EACH` images of every one; `moved` draws all to one corner."""
    generator = np.random.default_rng(seed)
    scale = np.exp(-np.arange(SIZE) / 16)
    centres = spread * generator.normal(size=(people, SIZE)) * scale + moved
    vectors = np.repeat(centres, EACH, axis=0) + 0.5 * generator.normal(size=(people * EACH, SIZE)) * scale
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.repeat(np.arange(people), EACH)


@pytest.fixture(scope="module")
def origin() -> Origin:
    return describe_origin(*draw(40, 0))


def test_people_of_the_same_source_stay_below_the_limit(origin: Origin) -> None:
    shifts = [origin.shift(summarise_people(*draw(people, seed))) for seed in range(1, 51) for people in (15, 200)]
    assert np.mean([shift > origin.limit for shift in shifts]) <= 0.03
    assert np.mean(shifts) == pytest.approx(1, abs=0.2)


def test_people_of_another_source_exceed_it(origin: Origin) -> None:
    assert origin.shift(summarise_people(*draw(15, 1, moved=0.2))) > origin.limit
    assert origin.shift(summarise_people(*draw(200, 1, moved=0.1))) > origin.limit


def test_images_without_labels_are_judged_more_leniently_never_more_strictly(origin: Origin) -> None:
    assert origin.images_per_person == EACH
    for seed in range(1, 21):
        vectors, people = draw(30, seed)
        unlabelled = summarise_images(vectors, origin.images_per_person)
        assert unlabelled.embedding.people == 30
        assert origin.shift(unlabelled) < origin.shift(summarise_people(vectors, people))
    moved = draw(100, 1, moved=0.2)[0]
    assert origin.shift(summarise_images(moved, origin.images_per_person)) > origin.limit


def draw_apart(people: int, seed: int, noise: float = 0.5) -> tuple[NDArray[np.float32], np.ndarray, np.ndarray]:
    """As `draw` does, the images of every person by three cameras in turn and as far apart as `noise` makes them."""
    generator = np.random.default_rng(seed)
    scale = np.exp(-np.arange(SIZE) / 16)
    centres = np.repeat(generator.normal(size=(people, SIZE)) * scale, EACH, axis=0)
    vectors = centres + noise * generator.normal(size=centres.shape) * scale
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.repeat(np.arange(people), EACH), np.arange(people * EACH) % 3


def test_people_whose_images_lie_further_apart_are_told_though_the_mean_stays() -> None:
    origin = describe_origin(*draw_apart(20, 0))
    like = [summarise_people(*draw_apart(people, seed)) for seed in range(1, 41) for people in (15, 60)]
    assert np.mean([origin.difference(summary) is not None for summary in like]) <= 0.05
    for seed in range(1, 11):
        apart = summarise_people(*draw_apart(40, seed, noise=0.9))
        assert origin.shift(apart) < origin.limit
        assert "Images of one person by different cameras" in str(origin.difference(apart))
        assert Origin.from_json(origin.as_json()).difference(apart) == origin.difference(apart)


def test_the_likeness_of_people_is_that_across_cameras() -> None:
    """Of twin images by one camera nothing is learned; an unknown camera differs from all."""
    vectors = np.eye(4, dtype=np.float32)[np.repeat(np.arange(4), 2)]
    people = np.repeat(np.arange(4), 2)
    assert summarise_people(vectors, people, np.zeros(8, np.int64)).likeness is None
    assert summarise_people(vectors, people).likeness is None
    for cameras in (np.arange(8) % 2, np.full(8, -1)):
        likeness = summarise_people(vectors, people, cameras).likeness
        assert likeness is not None
        assert (likeness.mean.item(), likeness.people) == (1, 4)


def test_an_origin_of_an_earlier_version_knows_the_embeddings_alone(origin: Origin) -> None:
    apart = summarise_people(*draw_apart(40, 1, noise=0.9))
    told = describe_origin(*draw_apart(20, 0)).as_json()
    del told["likeness"]
    assert Origin.from_json(told).difference(apart) is None


def test_an_origin_comes_back_from_json(origin: Origin) -> None:
    again, other = Origin.from_json(origin.as_json()), summarise_people(*draw(30, 1))
    assert again.limit == origin.limit
    assert again.shift(other) == pytest.approx(origin.shift(other), rel=1e-4)


def probe(vectors: NDArray[np.float32], people: np.ndarray) -> Strangers:
    scores = (vectors @ vectors.T).reshape(len(vectors), -1, EACH).max(axis=2).astype(np.float64)
    scores[np.arange(len(vectors)), people] = -np.inf
    number = int(people.max()) + 1
    return Strangers(np.sort(scores.ravel())[-2 * len(vectors) :], len(vectors), number - 1, number)


@pytest.mark.parametrize(("number", "rate"), [(50, 0.1), (50, 0.01), (20, 0.01)])
def test_strangers_are_accepted_at_the_rate_that_was_asked(number: int, rate: float) -> None:
    accepted = []
    for seed in range(40):
        vectors, people = draw(number + 500, seed)
        known, strangers = vectors[: number * EACH], vectors[number * EACH :: EACH]
        threshold = probe(known, people[: number * EACH]).threshold(rate)
        accepted.append(((strangers @ known.T).max(axis=1) >= threshold).mean())
    assert rate / 2 < np.mean(accepted) < 2 * rate


def test_the_tail_goes_on_where_the_probes_end() -> None:
    """Scores whose threshold at rate r is -log(r): of 1,000 probes with 999 people, k pairs reach that of 1 - e^-k."""
    scores = -np.log(-np.expm1(-(np.arange(1000)[::-1] + 0.5) / 1000))
    strangers = Strangers(scores, probes=1000, compared=999, people=999)
    for rate in (0.3, 0.05, 0.01, 0.001, 0.0002):
        # Above rather than below: so far out the tail of a thousand people is uncertain.
        assert 0.95 < strangers.threshold(rate) / -np.log(rate) < 1.1
    assert strangers.lowest_rate == pytest.approx(1e-4, rel=0.01)
    thresholds = [strangers.threshold(rate) for rate in np.geomspace(1e-4, 0.5, 100)]
    assert (np.diff(thresholds) <= 0).all()


def test_equal_scores_have_that_score_as_their_threshold() -> None:
    assert Strangers(np.full(40, 0.25), 20, 2, 3).threshold(0.01) == 0.25
