"""Evaluation, checked against an evaluator written from the definitions and against examples worked by hand."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reid_core.data.records import DISTRACTOR, ImageRecord
from reid_core.errors import CoreError, DatasetError, Stopped
from reid_core.evaluation.interval import _student_quantile, bootstrap_interval
from reid_core.evaluation.labels import encode_labels
from reid_core.evaluation.metrics import Metrics
from reid_core.evaluation.ranking import evaluate, evaluate_scores


@dataclass(frozen=True)
class Case:
    scores: Tensor  # (Q, G)
    query: list[ImageRecord]
    gallery: list[ImageRecord]

    def evaluate(self, *, block_scores: int = 2**23, ranks: Sequence[int] = (1, 5, 10, 20)) -> Metrics:
        labels = encode_labels(self.query, self.gallery)
        return evaluate_scores(rows_of(self.scores), *labels, block_scores=block_scores, ranks=ranks)


def rows_of(scores: Tensor) -> Callable[[int, int], Tensor]:
    return lambda start, stop: scores[start:stop]


def images(*labels: str) -> list[ImageRecord]:
    """One image per "identity/camera"."""
    return [ImageRecord(Path("x.jpg"), identity, camera) for identity, camera in (label.split("/") for label in labels)]


def draw_case(seed: int, *, queries: int = 23, gallery: int = 61, levels: int = 5) -> Case:
    """Scores on few levels, so that most are tied; distractors and images without a camera are among the images."""
    generator = np.random.default_rng(seed)
    identities = np.array([DISTRACTOR, "a", "b", "c", "d", "e"])
    cameras = np.array(["", "1", "2", "3"])

    def draw(count: int, identities: np.ndarray) -> list[ImageRecord]:
        chosen = zip(generator.choice(identities, count), generator.choice(cameras, count), strict=True)
        return [ImageRecord(Path("x.jpg"), str(identity), str(camera)) for identity, camera in chosen]

    scores = torch.from_numpy(generator.integers(0, levels, (queries, gallery)).astype(np.float32))
    return Case(scores, draw(queries, identities[1:]), draw(gallery, identities))


def rank_matches(scores: list[float], query: ImageRecord, gallery: list[ImageRecord]) -> list[int]:
    ordered = [image for _, image in sorted(zip(scores, gallery, strict=True), key=lambda pair: -pair[0])]
    counted = [
        image
        for image in ordered
        if not (image.identity == query.identity and image.camera == query.camera and query.camera)
    ]
    return [place for place, image in enumerate(counted, start=1) if image.identity == query.identity]


def check_against_definitions(case: Case, metrics: Metrics, ranks: Sequence[int] = (1, 5, 10, 20)) -> None:
    found = [
        rank_matches(row, query, case.gallery) for row, query in zip(case.scores.tolist(), case.query, strict=True)
    ]
    valid = [places for places in found if places]
    precisions = [sum(hit / place for hit, place in enumerate(places, start=1)) / len(places) for places in valid]
    assert metrics.valid_queries == len(valid)
    assert metrics.mAP == pytest.approx(sum(precisions) / len(valid))
    assert metrics.mINP == pytest.approx(sum(len(places) / places[-1] for places in valid) / len(valid))
    assert metrics.cmc == {
        rank: pytest.approx(sum(places[0] <= rank for places in valid) / len(valid)) for rank in ranks
    }
    assert metrics.first_rank.tolist() == [places[0] if places else 0 for places in found]
    assert np.isnan(metrics.average_precision).tolist() == [not places for places in found]
    check_camera_pairs(case, metrics)
    check_verification(case, metrics)
    check_first_results(case, metrics)


def counts_for(query: ImageRecord, image: ImageRecord) -> bool:
    return not (image.identity == query.identity and image.camera == query.camera and query.camera)


def matches(query: ImageRecord, image: ImageRecord, case: Case) -> bool:
    nobody = image.identity == DISTRACTOR and all(one.identity != DISTRACTOR for one in case.query)
    return image.identity == query.identity and not nobody


def check_camera_pairs(case: Case, metrics: Metrics) -> None:
    """Each pair of cameras, evaluated with the queries and the gallery images of those alone."""
    codes = [
        dict(zip((one.camera for one in images), labels.cameras.tolist(), strict=True))
        for images, labels in zip((case.query, case.gallery), encode_labels(case.query, case.gallery), strict=True)
    ]
    expected = {}
    for (asking, query_code), (answering, gallery_code) in itertools.product(*(code.items() for code in codes)):
        columns = [place for place, image in enumerate(case.gallery) if image.camera == answering]
        gallery = [case.gallery[place] for place in columns]
        rows = [place for place, image in enumerate(case.query) if image.camera == asking]
        found = [
            rank_matches([case.scores[row].tolist()[c] for c in columns], case.query[row], gallery) for row in rows
        ]
        if valid := [places for places in found if places]:
            precisions = [np.mean([hit / place for hit, place in enumerate(places, start=1)]) for places in valid]
            ranked_first = np.mean([places[0] == 1 for places in valid])
            expected[query_code, gallery_code] = (np.mean(precisions), ranked_first, len(valid))
    found = {(pair.query, pair.gallery): (pair.mAP, pair.rank1, pair.valid_queries) for pair in metrics.camera_pairs}
    assert found == {pair: pytest.approx(values, abs=1e-6) for pair, values in expected.items()}


def check_verification(case: Case, metrics: Metrics) -> None:
    """As `evaluate_roc` of fast-reid pools pairs: those of valid queries, without what their own camera took."""
    genuine, impostors = [], []
    for row, query in zip(case.scores.tolist(), case.query, strict=True):
        counted = [(score, image) for score, image in zip(row, case.gallery, strict=True) if counts_for(query, image)]
        if any(matches(query, image, case) for _, image in counted):
            genuine += [score for score, image in counted if matches(query, image, case)]
            impostors += [score for score, image in counted if not matches(query, image, case)]
    verification = metrics.verification
    assert verification is not None
    assert (verification.matching_pairs, verification.impostor_pairs) == (len(genuine), len(impostors))
    curve = {(0.0, 0.0)}
    for threshold in {*genuine, *impostors}:
        false, true = (sum(score >= threshold for score in scores) for scores in (impostors, genuine))
        curve.add((false / max(1, len(impostors)), true / len(genuine)))
    for rate, accepted in verification.tpr.items():
        assert accepted == pytest.approx(max(true for false, true in curve if false <= float(rate)), abs=1e-6)
    assert len(verification.curve) == 61
    assert verification.curve == sorted(verification.curve)
    rounded = {(round(false, 9), round(true, 9)) for false, true in curve}
    coarse = case.scores.unique().bfloat16().float().equal(case.scores.unique())
    assert not coarse or {(round(false, 9), round(true, 9)) for false, true in verification.curve} <= rounded


def check_first_results(case: Case, metrics: Metrics) -> None:
    for scores, query, row in zip(case.scores.tolist(), case.query, metrics.rows, strict=True):
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        counted = [place for place in order if counts_for(query, case.gallery[place]) or not query.camera]
        assert row.first.tolist() == counted[: len(row.first)]
        assert len(row.first) == min(10, len(counted))
        assert row.first_scores.tolist() == [scores[place] for place in row.first]


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_the_definitions_when_most_scores_are_tied(seed: int) -> None:
    case = draw_case(seed)
    check_against_definitions(case, case.evaluate())


def test_agrees_with_the_definitions_on_distinct_scores() -> None:
    case = draw_case(0, queries=40, gallery=300, levels=2**23)
    check_against_definitions(case, case.evaluate())


LABELS = st.tuples(st.sampled_from([DISTRACTOR, "a", "b"]), st.sampled_from(["", "1", "2"])).map("/".join)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(LABELS, max_size=6), st.lists(LABELS, max_size=9), st.integers(1, 40))
def test_agrees_with_the_definitions_on_any_labels(
    data: st.DataObject, query: list[str], gallery: list[str], block_scores: int
) -> None:
    row = st.lists(st.sampled_from([-1.0, -0.0, 0.0, 0.5]), min_size=len(gallery) + 1, max_size=len(gallery) + 1)
    scores = torch.tensor(data.draw(st.lists(row, min_size=len(query) + 1, max_size=len(query) + 1)))
    # The first query and the last gallery image match, so that there is always something to evaluate.
    case = Case(scores, images("a/1", *query), images(*gallery, "a/2"))
    check_against_definitions(case, case.evaluate(block_scores=block_scores))


def test_embeddings_are_compared_by_their_dot_product() -> None:
    generator = torch.Generator().manual_seed(0)
    case = draw_case(3, queries=30, gallery=80)
    # Small whole numbers: the products are exact, and many are equal.
    query, gallery = (torch.randint(-2, 3, (count, 6), generator=generator).float() for count in (30, 80))
    metrics = evaluate(query, gallery, *encode_labels(case.query, case.gallery), block_scores=7 * 80)
    check_against_definitions(Case(query @ gallery.T, case.query, case.gallery), metrics)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_embeddings_of_other_precision_are_compared_in_float32(dtype: torch.dtype) -> None:
    labels = encode_labels(images("a/1", "b/1"), images("b/2", "a/2"))
    embeddings = torch.eye(2, dtype=dtype, requires_grad=True)
    assert evaluate(embeddings, embeddings, *labels).first_rank.tolist() == [2, 2]


@pytest.mark.gpu
def test_embeddings_on_a_gpu_are_ranked_as_on_the_cpu() -> None:
    case = draw_case(3, queries=30, gallery=80)
    labels = encode_labels(case.query, case.gallery)
    query, gallery = torch.randint(-2, 3, (30, 6)).float(), torch.randint(-2, 3, (80, 6)).float()
    assert evaluate(query.cuda(), gallery.cuda(), *labels).as_json() == evaluate(query, gallery, *labels).as_json()


@pytest.mark.parametrize(
    ("seed", "cmc", "mean_precision"),
    [(2026, (0.925, 0.95, 0.95, 0.95), 0.236010309), (2027, (0.85, 0.85, 0.9, 0.925), 0.215824761)],
)
def test_agrees_with_torchreids_evaluator(seed: int, cmc: tuple[float, ...], mean_precision: float) -> None:
    """The values of `eval_market1501` of torchreid 0.2.5 for the same scores, which are all distinct."""
    generator = np.random.default_rng(seed)
    people, cameras = generator.integers(1, 13, 40), generator.integers(1, 5, 40)
    shown, shown_by = generator.integers(0, 13, 300), generator.integers(1, 5, 300)  # person 0: distractors
    scores = generator.permutation(40 * 300).reshape(40, 300) + 1500.5 * (people[:, None] == shown)
    query = [
        ImageRecord(Path("x.jpg"), f"{person}", f"{camera}") for person, camera in zip(people, cameras, strict=True)
    ]
    gallery = [
        ImageRecord(Path("x.jpg"), f"{person}" if person else DISTRACTOR, f"{camera}")
        for person, camera in zip(shown, shown_by, strict=True)
    ]
    metrics = Case(torch.from_numpy(scores.astype(np.float32)), query, gallery).evaluate()
    assert tuple(metrics.cmc.values()) == pytest.approx(cmc, abs=1e-6)
    assert metrics.mAP == pytest.approx(mean_precision, abs=1e-6)


@pytest.mark.parametrize(
    ("places", "average_precision", "negative_penalty"), [({1, 2, 10}, 0.77, 0.7), ({1, 4, 5}, 0.70, 0.4)]
)
def test_rank_lists_of_ye_2021_figure_4(places: set[int], average_precision: float, negative_penalty: float) -> None:
    gallery = images(*("a/2" if place in places else f"{DISTRACTOR}/2" for place in range(1, 11)))
    metrics = Case(-torch.arange(10.0).reshape(1, 10), images("a/1"), gallery).evaluate()
    assert round(metrics.mAP, 2) == average_precision
    assert 1 - metrics.mINP == pytest.approx(negative_penalty)
    assert metrics.cmc[1] == 1


def test_one_query_worked_by_hand() -> None:
    gallery = images("b/1", "a/1", "a/2", "a/3", "b/2", f"{DISTRACTOR}/2")
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.2, 0.1, 0.5]])
    metrics = Case(scores, images("a/1"), gallery).evaluate(ranks=(1, 2, 3, 4))
    # a/1 is the query's own camera and goes; what is left reads b, a/2, distractor, a/3.
    assert metrics.cmc == {1: 0, 2: 1, 3: 1, 4: 1}
    assert metrics.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert metrics.mINP == pytest.approx(2 / 4)
    assert metrics.interval == {"mAP": (0.5, 0.5), "mINP": (0.5, 0.5), "rank1": (0, 0)}


def test_equal_scores_rank_by_gallery_order() -> None:
    first, last = images("a/2", "b/2", "b/2"), images("b/2", "b/2", "a/2")
    for gallery, rank in ((first, 1), (last, 3)):
        assert Case(torch.zeros(1, 3), images("a/1"), gallery).evaluate().first_rank.tolist() == [rank]


def test_a_removed_image_takes_no_rank_from_an_equal_score_after_it() -> None:
    metrics = Case(torch.zeros(1, 3), images("a/1"), images("a/1", "a/2", "b/1")).evaluate()
    assert metrics.first_rank.tolist() == [1]


def test_images_by_the_same_camera_of_other_people_stay() -> None:
    metrics = Case(torch.tensor([[2.0, 1.0]]), images("a/1"), images("b/1", "a/2")).evaluate()
    assert metrics.first_rank.tolist() == [2]


@pytest.mark.parametrize("cameras", [("", ""), ("", "1"), ("1", "")])
def test_an_unknown_camera_removes_nothing(cameras: tuple[str, str]) -> None:
    metrics = Case(torch.ones(1, 1), images(f"a/{cameras[0]}"), images(f"a/{cameras[1]}")).evaluate()
    assert metrics.mAP == 1
    assert metrics.protocol["unknown_camera_pictures"] == cameras.count("")


def test_a_distractor_matches_nobody_and_can_rank_first() -> None:
    query, gallery = images("a/1"), images(f"{DISTRACTOR}/2", "a/2")
    metrics = Case(torch.tensor([[2.0, 1.0]]), query, gallery).evaluate()
    assert metrics.first_rank.tolist() == [2]
    assert metrics.valid_queries == 1
    assert metrics.protocol["distractor_pictures"] == 1


def test_where_people_are_counted_from_0000_it_is_a_person() -> None:
    query, gallery = images("a/1", f"{DISTRACTOR}/1"), images(f"{DISTRACTOR}/2", "a/2")
    metrics = Case(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), query, gallery).evaluate()
    assert metrics.first_rank.tolist() == [2, 1]
    assert metrics.valid_queries == 2
    assert metrics.protocol["distractor_pictures"] == 0


def test_queries_without_a_match_do_not_count() -> None:
    metrics = Case(torch.ones(3, 1), images("b/1", "a/1", "a/2"), images("a/2")).evaluate()
    assert (metrics.mAP, metrics.mINP, metrics.cmc[1]) == (1, 1, 1)
    assert (metrics.valid_queries, metrics.queries, metrics.gallery) == (1, 3, 1)
    np.testing.assert_array_equal(metrics.average_precision, [np.nan, 1, np.nan])


def test_the_curve_is_one_beyond_the_gallery() -> None:
    assert Case(torch.zeros(1, 2), images("a/1"), images("b/2", "a/2")).evaluate().cmc == {1: 0, 5: 1, 10: 1, 20: 1}


def test_a_score_of_minus_infinity_ranks_last() -> None:
    scores = torch.tensor([[float("-inf"), 0.5, float("-inf")]])
    metrics = Case(scores, images("a/1"), images("b/2", "c/2", "a/2")).evaluate()
    assert metrics.first_rank.tolist() == [3]


@pytest.mark.parametrize("rows", [1, 7, 32, 33, 99, 100])
def test_the_size_of_blocks_changes_nothing(rows: int) -> None:
    case = draw_case(1, queries=100)
    in_blocks, at_once = case.evaluate(block_scores=rows * 61), case.evaluate()
    assert in_blocks.as_json() == at_once.as_json()
    np.testing.assert_array_equal(in_blocks.average_precision, at_once.average_precision)


def test_blocks_come_in_order_hold_no_more_than_asked_for_and_are_only_read() -> None:
    case = draw_case(1)
    before, spans, progress = case.scores.clone(), [], []

    def score_block(start: int, stop: int) -> Tensor:
        spans.append((start, stop))
        return case.scores[start:stop]

    evaluate_scores(
        score_block,
        *encode_labels(case.query, case.gallery),
        block_scores=10 * 61 + 60,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert spans == [(0, 10), (10, 20), (20, 23)]
    assert progress == [(10, 23), (20, 23), (23, 23)]
    assert torch.equal(case.scores, before)


def test_stops_before_the_next_block_when_asked() -> None:
    case, done = draw_case(1), []
    with pytest.raises(Stopped):
        evaluate_scores(
            rows_of(case.scores),
            *encode_labels(case.query, case.gallery),
            block_scores=61,
            on_progress=lambda queries, total: done.append(queries),
            should_stop=lambda: len(done) == 2,
        )
    assert done == [1, 2]


def test_one_camera_only_is_explained_with_a_way_out() -> None:
    with pytest.raises(DatasetError, match="only on the query's own camera") as caught:
        Case(torch.ones(1, 2), images("a/1"), images("a/1", "b/1")).evaluate()
    assert "another camera" in caught.value.hint


@pytest.mark.parametrize("gallery", [("b/2",), (f"{DISTRACTOR}/2",), ()])
def test_no_shared_person_is_explained_before_anything_is_scored(gallery: tuple[str, ...]) -> None:
    def score_block(start: int, stop: int) -> Tensor:
        raise AssertionError

    with pytest.raises(DatasetError, match="no person is in both") as caught:
        evaluate_scores(score_block, *encode_labels(images("a/1"), images(*gallery)))
    assert "same identity" in caught.value.hint


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_embeddings_that_are_not_finite_are_refused_with_their_row(value: float) -> None:
    labels = encode_labels(images("a/1", "b/1", "c/1"), images("a/2", "b/2", "c/2"))
    broken = torch.eye(3)
    broken[1, 2] = value
    with pytest.raises(CoreError, match="1 of 3 query embeddings are not finite, the first in row 1"):
        evaluate(broken, torch.eye(3), *labels)
    with pytest.raises(CoreError, match="1 of 3 gallery embeddings"):
        evaluate(torch.eye(3), broken, *labels)


def test_embeddings_of_two_sizes_are_refused() -> None:
    with pytest.raises(CoreError, match="Query embeddings have 4 dimensions, gallery embeddings 3"):
        evaluate(torch.ones(1, 4), torch.ones(1, 3), *encode_labels(images("a/1"), images("a/2")))


def test_embeddings_and_labels_of_two_lengths_are_refused() -> None:
    labels = encode_labels(images("a/1"), images("a/2"))
    with pytest.raises(CoreError, match=r"gallery embeddings have shape \(2, 3\), the labels are for 1"):
        evaluate(torch.ones(1, 3), torch.ones(2, 3), *labels)


def test_an_empty_split_is_named() -> None:
    with pytest.raises(DatasetError, match="no query images"):
        evaluate(torch.empty(0, 0), torch.ones(1, 3), *encode_labels([], images("a/2")))


def test_a_score_that_is_not_a_number_is_refused_with_its_query() -> None:
    scores = torch.ones(4, 2)
    scores[2, 1] = float("nan")
    with pytest.raises(CoreError, match="score of query 2 is not a number"):
        Case(scores, images(*["a/1"] * 4), images("a/2", "b/2")).evaluate(block_scores=2)


def test_blocks_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(CoreError, match=r"shape \(1, 3\), the labels ask for \(1, 2\)"):
        Case(torch.ones(1, 3), images("a/1"), images("a/2", "b/2")).evaluate()


def test_the_answer_is_json_with_the_protocol_and_intervals() -> None:
    metrics = draw_case(2).evaluate()
    answer = json.loads(json.dumps(metrics.as_json()))
    named = {"cmc", "mAP", "mINP", "valid_queries", "queries", "gallery", "protocol", "interval", "verification"}
    assert set(answer) == named
    assert answer["protocol"]["interval"].endswith("1000 bootstrap resamples of the query identities, seed 0")
    assert set(answer["cmc"]) == {"1", "5", "10", "20"}
    assert answer["interval"]["mAP"][0] <= answer["mAP"] <= answer["interval"]["mAP"][1]
    assert answer["interval"]["rank1"][0] <= answer["cmc"]["1"] <= answer["interval"]["rank1"][1]
    assert answer["protocol"]["ties"] == "equal scores rank by gallery order"
    assert answer["protocol"]["query_identities"] == 5


def test_the_same_queries_give_the_same_interval() -> None:
    assert draw_case(4).evaluate().interval == draw_case(4).evaluate().interval


def test_the_interval_of_many_people_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).random((2, 400))
    ends = bootstrap_interval(values, np.arange(400), np.random.default_rng(1))
    deviation = 1.96 * values.std(axis=1) / 20
    np.testing.assert_allclose(ends, np.stack([values.mean(1) - deviation, values.mean(1) + deviation], 1), atol=3e-3)


def test_more_images_of_the_same_people_make_the_interval_no_narrower() -> None:
    value, person = np.random.default_rng(0).random((1, 50)), np.arange(50)
    once = bootstrap_interval(value, person, np.random.default_rng(1))
    tenfold = bootstrap_interval(np.tile(value, 10), np.tile(person, 10), np.random.default_rng(1))
    np.testing.assert_allclose(once, tenfold)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(5, 2.5706), (9, 2.2622), (19, 2.0930), (99, 1.9842), (10**6, 1.9600)]
)
def test_quantiles_of_student_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert _student_quantile(0.975, degrees) == pytest.approx(quantile, abs=3e-3)


@pytest.mark.parametrize("people", [15, 60])
def test_the_interval_holds_the_mean_as_often_as_it_says(people: int) -> None:
    """Average precisions have the mean 0.6 by construction, 1 to 8 queries a person."""
    held = [_holds_the_mean(people, np.random.default_rng(seed)) for seed in range(600)]
    assert 0.93 <= np.mean(held) <= 0.97


def _holds_the_mean(people: int, generator: np.random.Generator) -> bool:
    person = np.repeat(np.arange(people), generator.integers(1, 9, people))
    mean = generator.beta(3, 2, people)[person]
    ((low, high),) = bootstrap_interval(generator.beta(8 * mean, 8 * (1 - mean))[None], person, generator)
    return bool(low <= 0.6 <= high)


def test_the_interval_of_one_person_is_the_mean() -> None:
    ends = bootstrap_interval(np.array([[0.0, 1.0, 0.5]]), np.zeros(3, dtype=np.int64), np.random.default_rng(0))
    np.testing.assert_allclose(ends, [[0.5, 0.5]])
