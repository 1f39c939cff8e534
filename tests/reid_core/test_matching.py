"""The QAConv matcher against the formula, written out plainly in float64."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_core.errors import CoreError, Stopped
from reid_core.matching import (
    Correspondence,
    FoldedHead,
    MatchingHead,
    best_correlations,
    correspondences,
    cpu_kernels,
    folded_scores,
    maps,
    symmetric_scores,
    to_locations,
)
from reid_core.matching.scores import Products
from tests.processors import CAPABILITY, INT16, needs_avx2


def random_maps(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N, hw, c) of unit length per location."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(values, dim=2).to(dtype)


def plain_best(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    correlations = torch.einsum("qrc,gsc->qgrs", query, gallery)
    return correlations.max(dim=3)[0], correlations.max(dim=2)[0]


def plain_scores(query: Tensor, gallery: Tensor, head: FoldedHead) -> Tensor:
    rows, columns = plain_best(query.double(), gallery.double())
    return torch.cat([rows, columns], 2) @ torch.cat([head.weights, head.weights]).double() + head.bias


def random_head(num_locations: int) -> FoldedHead:
    return FoldedHead(torch.randn(num_locations, generator=torch.Generator().manual_seed(9)), 0.5)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of two gallery maps of 12 locations and three queries."""
    monkeypatch.setattr(maps, "_BLOCK_BYTES", 2 * 12 * 12 * 4)
    monkeypatch.setattr(maps, "_TILE_QUERIES", 3)
    monkeypatch.setattr(cpu_kernels, "_TILE_MAPS", 2)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


SHAPES = [((1, 12, 4), (1, 12, 4)), ((5, 12, 4), (7, 12, 4)), ((4, 6, 3), (3, 15, 3)), ((2, 200, 2), (3, 1, 2))]
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
ROUNDINGS = [
    (F32, "fp32", 1e-5),
    (F16, "fp32", 5e-3),
    (BF16, "auto", 5e-2),
    (F32, "bf16", 1e-1),
    pytest.param(F32, "int16", 1e-3, marks=needs_avx2),
    pytest.param(F16, "int16", 5e-3, marks=needs_avx2),
]


@pytest.mark.usefixtures("small_blocks", "threads")
@pytest.mark.parametrize(("of_query", "of_gallery"), SHAPES)
def test_best_correlations_are_those_of_the_formula(of_query: tuple[int, ...], of_gallery: tuple[int, ...]) -> None:
    query, gallery = random_maps(*of_query, dtype=torch.float64), random_maps(*of_gallery, seed=1, dtype=torch.float64)
    wanted = plain_best(query, gallery)
    torch.testing.assert_close(best_correlations(query, gallery), wanted)
    from_mixed = best_correlations(query.float(), gallery.half())
    torch.testing.assert_close(from_mixed, (wanted[0].float(), wanted[1].float()), atol=1e-3, rtol=0)


@pytest.mark.usefixtures("small_blocks", "threads")
@pytest.mark.parametrize(("of_query", "of_gallery"), SHAPES[1:])
def test_gradients_are_those_of_the_formula(of_query: tuple[int, ...], of_gallery: tuple[int, ...]) -> None:
    query = random_maps(*of_query, dtype=torch.float64).requires_grad_()
    gallery = random_maps(*of_gallery, seed=1, dtype=torch.float64).requires_grad_()
    wanted = torch.autograd.grad(weigh(plain_best(query, gallery)), (query, gallery))
    got = torch.autograd.grad(weigh(best_correlations(query, gallery)), (query, gallery))
    torch.testing.assert_close(got, wanted)
    # As with a memory of classes, which takes no gradient.
    (of_query_alone,) = torch.autograd.grad(weigh(best_correlations(query, gallery.detach())), (query,))
    torch.testing.assert_close(of_query_alone, wanted[0])


def weigh(maxima: tuple[Tensor, Tensor]) -> Tensor:
    """A number to which every maximum contributes differently."""
    return sum(
        (torch.linspace(1, 2, part.numel(), dtype=part.dtype) * part.flatten()).square().sum() for part in maxima
    )


@pytest.mark.usefixtures("small_blocks", "threads")
def test_maps_among_themselves_get_what_the_formula_says_from_half_of_the_pairs() -> None:
    own = random_maps(5, 12, 4, dtype=torch.float64).requires_grad_()
    wanted, got = plain_best(own, own), best_correlations(own, own)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(torch.autograd.grad(weigh(got), own), torch.autograd.grad(weigh(wanted), own))


def test_gradients_agree_with_finite_differences() -> None:
    query = random_maps(2, 5, 3, dtype=torch.float64).requires_grad_()
    gallery = random_maps(3, 4, 3, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(best_correlations, (query, gallery))
    assert torch.autograd.gradcheck(lambda own: best_correlations(own, own), (query,))


def test_among_equal_correlations_the_first_location_takes_the_gradient() -> None:
    query = torch.ones(1, 3, 2).requires_grad_()
    gallery = torch.ones(2, 4, 2).requires_grad_()
    rows, columns = best_correlations(query, gallery)
    (rows.sum() * 10 + columns.sum()).backward()
    assert query.grad is not None
    assert gallery.grad is not None
    assert query.grad[0, :, 0].tolist() == [2 * 10 + 8, 2 * 10, 2 * 10]
    assert gallery.grad[:, :, 0].tolist() == [[3 * 10 + 1, 1, 1, 1]] * 2


def test_values_that_are_not_numbers_stay_visible() -> None:
    query = random_maps(2, 12, 4)
    query[1] = torch.nan
    query.requires_grad_()
    rows, columns = best_correlations(query, random_maps(3, 12, 4))
    (rows.sum() + columns.sum()).backward()
    assert rows[1].isnan().all()
    assert not rows[0].isnan().any()


def test_training_under_autocast_is_in_float32() -> None:
    query = random_maps(3, 12, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows, columns = best_correlations(query, query)
        scores = MatchingHead(12)(rows, columns)
    torch.testing.assert_close(rows, plain_best(query, query)[0])
    assert scores.dtype == torch.float32


def plain_head(head: MatchingHead, rows: Tensor, columns: Tensor) -> Tensor:
    """From the text, with modules of its own: BN over everything, a weighted sum per direction, their sum, BN."""
    norms = [nn.BatchNorm1d(1, dtype=torch.float64) for _ in range(2)]
    maxima = torch.cat([rows.flatten(0, 1), columns.flatten(0, 1)]).double()  # (2 * P, hw)
    normalised = norms[0](maxima.reshape(-1, 1)).view(maxima.shape)
    weighed = normalised @ head.weighting.weight[0].double() + head.weighting.bias.double()
    return norms[1](weighed.view(2, -1).sum(0)[:, None]).view(rows.shape[:2])


def test_training_normalises_with_the_statistics_of_the_batch() -> None:
    head = MatchingHead(12)
    assert head.weighting.weight.tolist() == [[pytest.approx(1 / 12)] * 12]
    nn.init.normal_(head.weighting.weight)
    rows, columns = plain_best(random_maps(3, 12, 4), random_maps(5, 12, 4, seed=1))
    torch.testing.assert_close(head(rows, columns).double(), plain_head(head, rows, columns), atol=1e-4, rtol=1e-4)
    everything = torch.cat([rows.flatten(), columns.flatten()])
    assert head.maxima_norm.running_mean is not None
    assert head.maxima_norm.running_mean.item() == pytest.approx(0.1 * everything.mean().item())


def trained_head(num_locations: int) -> MatchingHead:
    """With parameters and running statistics that all differ from where they began."""
    head = MatchingHead(num_locations)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    for seed in range(3):
        head(*plain_best(random_maps(3, num_locations, 4, seed=seed), random_maps(4, num_locations, 4, seed=seed + 5)))
    return head.eval()


def test_the_folded_head_scores_as_the_unfolded_one() -> None:
    query, gallery = random_maps(5, 12, 4), random_maps(7, 12, 4, seed=1)
    head = trained_head(12)
    with torch.no_grad():
        wanted = head(*plain_best(query, gallery))
    got = folded_scores(query, gallery, head.fold(), products="fp32")
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("small_blocks", "threads")
@pytest.mark.parametrize(("of_query", "of_gallery"), [SHAPES[0], SHAPES[1], ((1, 12, 4), (100, 12, 4))])
@pytest.mark.parametrize(("dtype", "products", "tolerance"), ROUNDINGS)
def test_scores_are_those_of_the_formula(
    of_query: tuple[int, ...], of_gallery: tuple[int, ...], dtype: torch.dtype, products: Products, tolerance: float
) -> None:
    query, gallery, head = random_maps(*of_query), random_maps(*of_gallery, seed=1), random_head(12)
    got = folded_scores(query.to(dtype), gallery.to(dtype), head, products=products)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), plain_scores(query, gallery, head), atol=tolerance, rtol=0)


def test_bf16_maxima_are_exact_also_where_every_correlation_is_negative() -> None:
    # All-negative numbers are in reverse order when their bits are read as integers.
    query, gallery = torch.tensor([[[1.0], [0.5]]]), torch.tensor([[[-0.25], [-1.0]], [[-0.5], [0.25]]])
    head = FoldedHead(torch.tensor([1.0, 10.0]), 0.0)
    got = folded_scores(query, gallery, head, products="bf16")
    assert got.double().tolist() == plain_scores(query, gallery, head).tolist()


@needs_avx2
@pytest.mark.parametrize(("locations", "channels"), [(1, 1), (6, 2), (7, 3), (16, 64), (17, 33), (192, 128)])
def test_fixed_point_scores_are_those_of_the_formula_whatever_the_shape_and_length(
    locations: int, channels: int
) -> None:
    query, gallery = random_maps(3, locations, channels), random_maps(70, locations, channels, seed=1)
    lengths = torch.logspace(-6, 6, 70)[:, None, None]
    head = FoldedHead(torch.rand(locations, generator=torch.Generator().manual_seed(9)) / locations, 0.0)
    got = folded_scores(query, gallery * lengths, head, products="int16").double()
    wanted = plain_scores(query, gallery * lengths, head)
    torch.testing.assert_close(got / lengths[:, 0, 0], wanted / lengths[:, 0, 0], atol=1e-4, rtol=0)


@needs_avx2
def test_fixed_point_takes_maps_in_any_order_of_memory() -> None:
    query, gallery, head = random_maps(3, 6, 2), random_maps(4, 16, 2, seed=1), random_head(6)
    gallery = gallery[:, :6]
    turned = query.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    wanted = folded_scores(query, gallery.contiguous(), head, products="int16")
    assert torch.equal(folded_scores(turned, gallery, head, products="int16"), wanted)


def test_fixed_point_is_refused_away_from_the_cpu() -> None:
    query, head = random_maps(3, 12, 4).to("meta"), random_head(12)
    with pytest.raises(CoreError, match="CPUs only"):
        folded_scores(query, query, head, products="int16")


@needs_avx2
def test_the_largest_sums_of_fixed_point_products_do_not_overflow() -> None:
    for channels in (1, 2, 64):
        alike = torch.full((2, 8, channels), channels**-0.5)
        head = FoldedHead(torch.full((8,), 1 / 16), 0.0)
        got = folded_scores(alike, torch.cat([alike, -alike]), head, products="int16")
        torch.testing.assert_close(got, torch.tensor([[1.0, 1.0, -1.0, -1.0]] * 2), atol=1e-4, rtol=0)


@needs_avx2
def test_a_map_that_is_no_number_spoils_its_own_pairs_alone() -> None:
    query, gallery, head = random_maps(3, 12, 4), random_maps(5, 12, 4, seed=1), random_head(12)
    query[1, 2, 3] = gallery[4, 0, 0] = torch.nan
    gallery[2] = 0
    got = folded_scores(query, gallery, head, products="int16")
    wanted = folded_scores(query, gallery, head, products="fp32")
    assert got.isnan().tolist() == [[False] * 4 + [True], [True] * 5, [False] * 4 + [True]]
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0, equal_nan=True)


@pytest.mark.skipif(CAPABILITY != "AVX2", reason="other CPUs take bf16 or fp32")
def test_fixed_point_is_what_a_cpu_with_avx2_takes_by_itself_for_several_queries() -> None:
    query, gallery, head = random_maps(5, 12, 4), random_maps(7, 12, 4, seed=1), random_head(12)
    assert torch.equal(folded_scores(query, gallery, head), folded_scores(query, gallery, head, products="int16"))
    one = query[:1]
    assert torch.equal(folded_scores(one, gallery, head), folded_scores(one, gallery, head, products="fp32"))
    exact = folded_scores(query.double(), gallery.double(), head)
    assert torch.equal(exact, folded_scores(query.double(), gallery.double(), head, products="fp32"))


@pytest.mark.usefixtures("small_blocks", "threads")
@pytest.mark.parametrize("products", ["fp32", "bf16", INT16])
def test_symmetric_scores_equal_all_scores(products: Products) -> None:
    own, head = random_maps(8, 12, 4), random_head(12)
    got = symmetric_scores(own, head, products=products)
    torch.testing.assert_close(got, folded_scores(own, own.clone(), head, products=products), atol=1e-5, rtol=0)
    assert torch.equal(got, got.T)


@pytest.mark.usefixtures("small_blocks", "threads")
@pytest.mark.usefixtures("threads")
@torch.inference_mode()
def test_scores_are_the_same_in_inference_mode_and_under_autocast() -> None:
    query, gallery, head = random_maps(5, 12, 4), random_maps(7, 12, 4, seed=1), random_head(12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = folded_scores(query, gallery, head, products="fp32")
        rows, _ = best_correlations(query, gallery)
    torch.testing.assert_close(got.double(), plain_scores(query, gallery, head), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows, plain_best(query, gallery)[0])
    assert folded_scores(query, gallery[:0], head).shape == (5, 0)


@pytest.mark.usefixtures("small_blocks", "threads")
def test_progress_counts_every_pair_and_scoring_can_be_stopped() -> None:
    query, gallery, head = random_maps(7, 12, 4), random_maps(5, 12, 4), random_head(12)
    heard: list[tuple[int, int]] = []
    folded_scores(query, gallery, head, products="fp32", on_progress=lambda done, total: heard.append((done, total)))
    assert len(heard) == 9  # blocks of bf16 products are larger
    assert heard[-1] == (35, 35)
    symmetric_scores(query, head, on_progress=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (28, 28)
    with pytest.raises(Stopped):
        folded_scores(query, gallery, head, should_stop=lambda: True)


@pytest.mark.usefixtures("threads")
def test_threads_of_others_keep_their_number_of_kernel_threads() -> None:
    wanted = torch.get_num_threads()
    folded_scores(random_maps(5, 12, 4), random_maps(7, 12, 4), random_head(12))
    with ThreadPoolExecutor(1) as fresh:
        assert [torch.get_num_threads(), fresh.submit(torch.get_num_threads).result()] == [wanted, wanted]


def test_locations_are_row_by_row() -> None:
    feature_map = torch.arange(2 * 3 * 2 * 4).view(2, 3, 2, 4).float()
    locations = to_locations(feature_map)
    assert torch.equal(locations[1, 1 * 4 + 2], feature_map[1, :, 1, 2])
    assert locations.is_contiguous()


def test_correspondences_show_mutual_best_pairs_first_by_what_they_add() -> None:
    east, north, up = torch.eye(3)
    query = torch.stack([functional.normalize(east + 0.5 * up, dim=0), east, north])
    gallery = torch.stack([functional.normalize(north + 0.1 * up, dim=0), -up, east])
    # Query locations 0 and 1 both resemble gallery location 2 most, and that resembles 1 most; 2 and 0 are mutual too.
    head = FoldedHead(torch.tensor([5.0, 1.0, 1.0]), 3.0)
    got = correspondences(query.half(), gallery.half(), head, count=9)
    assert [(pair.query_location, pair.gallery_location) for pair in got] == [(2, 0), (1, 2), (0, 2)]
    assert [pair.similarity for pair in got] == pytest.approx([1 / 1.01**0.5, 1, 1 / 1.25**0.5], abs=1e-3)
    assert [pair.added for pair in got] == pytest.approx([6 / 1.01**0.5, 2, 5 / 1.25**0.5], abs=1e-2)
    heavy_on_1 = FoldedHead(torch.tensor([1.0, 5.0, 1.0]), 3.0)
    assert correspondences(query, gallery, heavy_on_1, count=1) == [Correspondence(1, 2, 1.0, 6.0)]


MATCHERS: list[Callable[[Tensor, Tensor], object]] = [
    best_correlations,
    lambda query, gallery: folded_scores(query, gallery, random_head(12)),
    lambda query, gallery: correspondences(query[0], gallery[0], random_head(12), count=3),
]


@pytest.mark.parametrize("match", MATCHERS)
def test_maps_that_do_not_fit_are_refused_with_both_values(match: Callable[[Tensor, Tensor], object]) -> None:
    with pytest.raises(CoreError, match="4 channels, the gallery maps 5"):
        match(random_maps(1, 12, 4), random_maps(1, 12, 5))
    with pytest.raises(CoreError, match=r"shape \(1, 4, 6, 2(, 1)?\)|shape \(1, 6, 2, 1\)"):
        match(torch.ones(1, 4, 6, 2), torch.ones(1, 4, 6, 2))
    for nothing in (torch.ones(1, 12, 0), torch.ones(1, 0, 4)):
        with pytest.raises(CoreError, match="one or more"):
            match(nothing, nothing)


@pytest.mark.parametrize("match", MATCHERS[1:])
def test_a_head_for_other_locations_is_refused(match: Callable[[Tensor, Tensor], object]) -> None:
    with pytest.raises(CoreError, match="weighs 12 locations; the query maps have 10"):
        match(random_maps(1, 10, 4), random_maps(1, 10, 4))
    with pytest.raises(CoreError, match=r"weighs 12 locations; the maxima are \(2, 3, 10\)"):
        MatchingHead(12)(torch.ones(2, 3, 10), torch.ones(2, 3, 10))
