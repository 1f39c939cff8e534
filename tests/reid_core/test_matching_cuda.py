"""The CUDA matcher against the formula in float64.

With TRITON_INTERPRET=1 the kernels run on the CPU, in Triton's interpreter, which cannot multiply bfloat16; without,
they need a card. One test starts the former where Triton is installed; torch's CPU build does not bring it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from reid_core.errors import CoreError
from reid_core.matching import cuda
from reid_core.matching.cuda import best_correlations_cuda, folded_scores_cuda, is_available

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HALVES = [torch.float16] if INTERPRETED else [torch.float16, torch.bfloat16]

kernel = pytest.mark.usefixtures("processor")

SHAPES = [  # Q, G, hq, hg, c
    (2, 3, 192, 192, 64),
    (3, 1, 5, 70, 7),
    (1, 2, 130, 48, 130),
    (1, 1, 1, 1, 1),
]


@pytest.fixture(params=["interpreter" if INTERPRETED else pytest.param("card", marks=pytest.mark.gpu)])
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a program several maps of these small sets, and the last program fewer."""
    monkeypatch.setattr(cuda, "_NUM_PROGRAMS", 4)


def make_maps(count: int, positions: int, channels: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.nn.functional.normalize(torch.randn(count, positions, channels, generator=generator), dim=2)
    return maps.to(DEVICE, dtype)


def correlate(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    correlations = torch.einsum("qrc,gsc->qgrs", query, gallery)
    return correlations.max(3).values, correlations.max(2).values


def error(ours: Tensor, exact: Tensor) -> float:
    return float(((ours.double() - exact).norm() / exact.norm()).detach())


def differentiate(maxima: tuple[Tensor, Tensor], maps: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients by `maps` of a fixed random combination of the maxima."""
    generator = torch.Generator().manual_seed(9)
    outputs = [torch.randn(side.shape, generator=generator).to(side) for side in maxima]
    return torch.autograd.grad(maxima, maps, outputs)


@kernel
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize(("num_queries", "num_galleries", "rows", "columns", "channels"), SHAPES)
def test_maxima_and_gradients_are_those_of_the_formula(
    num_queries: int, num_galleries: int, rows: int, columns: int, channels: int, dtype: torch.dtype
) -> None:
    query = make_maps(num_queries, rows, channels, dtype).requires_grad_()
    gallery = make_maps(num_galleries, columns, channels, dtype, seed=1).requires_grad_()
    exact = [maps.detach().double().requires_grad_() for maps in (query, gallery)]
    ours, formula = best_correlations_cuda(query, gallery), correlate(*exact)
    for side, exact_side in zip(ours, formula, strict=True):
        assert side.shape == exact_side.shape
        assert side.dtype == torch.float32
        assert error(side, exact_side) < 1e-6
    gradients = zip(differentiate(ours, [query, gallery]), differentiate(formula, exact), strict=True)
    for ours_side, exact_side in gradients:
        assert ours_side.dtype == dtype
        assert error(ours_side, exact_side) < (1e-6 if dtype == torch.float32 else 5e-3)


@kernel
def test_maps_among_themselves_are_as_two_equal_sets() -> None:
    maps = make_maps(3, 70, 20).requires_grad_()
    exact = maps.detach().double().requires_grad_()
    ours, formula = best_correlations_cuda(maps, maps), correlate(exact, exact)
    assert error(ours[0], formula[0]) < 1e-6
    assert error(ours[1], formula[1]) < 1e-6
    assert error(differentiate(ours, [maps])[0], differentiate(formula, [exact])[0]) < 1e-6


@kernel
def test_among_equal_correlations_the_gradient_goes_to_the_first_location() -> None:
    query = torch.ones(1, 1, 4, device=DEVICE)
    gallery = torch.ones(1, 130, 4, device=DEVICE).requires_grad_()
    row_max, _ = best_correlations_cuda(query, gallery)
    (gradient,) = torch.autograd.grad(row_max.sum(), gallery)
    assert gradient[0, 0].tolist() == [1.0] * 4
    assert not gradient[0, 1:].any()


@pytest.mark.gpu
def test_equal_inputs_give_equal_bits() -> None:
    query, gallery = make_maps(8, 192, 64).requires_grad_(), make_maps(300, 192, 64, seed=1).requires_grad_()
    first, second = (differentiate(best_correlations_cuda(query, gallery), [query, gallery]) for _ in range(2))
    assert all(torch.equal(*sides) for sides in zip(first, second, strict=True))


@kernel
def test_a_side_without_gradient_gets_none() -> None:
    query, gallery = make_maps(1, 8, 16).requires_grad_(), make_maps(2, 8, 16, seed=1)
    row_max, _ = best_correlations_cuda(query, gallery)
    row_max.sum().backward()
    assert query.grad is not None
    assert gallery.grad is None


@kernel
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize(("positions", "channels"), [(192, 64), (70, 7), (8, 128), (8, 200)])
def test_folded_scores_are_those_of_the_formula(positions: int, channels: int, dtype: torch.dtype) -> None:
    query, gallery = make_maps(2, positions, channels, dtype), make_maps(5, positions, channels, dtype, seed=1)
    weights = make_maps(1, 1, positions, seed=2).flatten()
    scores = folded_scores_cuda(query, gallery, weights, 0.5)
    row_max, column_max = correlate(query.double(), gallery.double())
    assert scores.dtype == torch.float32
    assert torch.allclose(scores.double(), (row_max + column_max) @ weights.double() + 0.5, atol=1e-5, rtol=0)


@kernel
def test_scores_of_maps_among_themselves_are_symmetric_and_complete() -> None:
    maps, weights = make_maps(4, 70, 16, torch.float16), make_maps(1, 1, 70, seed=2).flatten()
    scores = folded_scores_cuda(maps, maps, weights, -1.0)
    assert torch.equal(scores, scores.T)
    assert torch.allclose(scores, folded_scores_cuda(maps, maps.clone(), weights, -1.0), atol=1e-5, rtol=0)


@kernel
def test_any_strides_are_taken() -> None:
    maps, weights = make_maps(2, 10, 16, torch.float16), torch.ones(10, device=DEVICE)
    strided = maps.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    other = make_maps(1, 10, 16, torch.float16, seed=1)
    assert torch.equal(folded_scores_cuda(strided, other, weights, 0.0), folded_scores_cuda(maps, other, weights, 0.0))
    assert torch.equal(best_correlations_cuda(strided, other)[0], best_correlations_cuda(maps, other)[0])


@kernel
@pytest.mark.filterwarnings("ignore:All-NaN:RuntimeWarning")  # numpy's, in the interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_map_that_is_not_a_number_shows_in_its_scores(dtype: torch.dtype) -> None:
    query, gallery = make_maps(2, 70, 16, dtype), make_maps(2, 70, 16, dtype, seed=1)
    query[1, 3] = gallery[1, 5] = torch.nan
    scores = folded_scores_cuda(query, gallery, torch.ones(70, device=DEVICE), 0.0)
    assert scores.isnan().tolist() == [[False, True], [True, True]]


@kernel
def test_no_maps_give_no_scores() -> None:
    query, gallery = make_maps(0, 10, 16).requires_grad_(), make_maps(3, 10, 16)
    assert folded_scores_cuda(query, gallery, torch.ones(10, device=DEVICE), 0.0).shape == (0, 3)
    row_max, _ = best_correlations_cuda(query, gallery)
    assert row_max.shape == (0, 3, 10)
    (gradient,) = torch.autograd.grad(row_max.sum(), query)
    assert gradient.shape == query.shape


@kernel
def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    maps = make_maps(1, 10, 16)
    with pytest.raises(CoreError, match=r"10 weights.*10 locations.*12"):
        folded_scores_cuda(maps, make_maps(1, 12, 16), torch.ones(10, device=DEVICE), 0.0)
    with pytest.raises(CoreError, match=r"16 channels.*8"):
        best_correlations_cuda(maps, make_maps(1, 10, 8))
    with pytest.raises(CoreError, match=r"shape \(1, 0, 16\)"):
        best_correlations_cuda(make_maps(1, 0, 16), maps)
    with pytest.raises(CoreError, match="float64"):
        best_correlations_cuda(maps.double(), maps)


@pytest.mark.gpu
def test_the_card_holds_no_correlations() -> None:
    query, gallery = make_maps(128, 192, 64, torch.bfloat16), make_maps(512, 192, 64, torch.bfloat16, seed=1)
    weights = torch.ones(192, device=DEVICE)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    folded_scores_cuda(query, gallery, weights, 0.0)
    assert torch.cuda.max_memory_allocated() - before < 2 * 4 * 128 * 512
    best_correlations_cuda(query, gallery)
    assert torch.cuda.max_memory_allocated() - before < 200e6


@pytest.mark.skipif(torch.cuda.is_available() or INTERPRETED, reason="this machine can run the kernels")
def test_a_machine_without_a_card_says_what_it_lacks() -> None:
    assert not is_available()
    maps = torch.zeros(1, 1, 1)
    for call in (lambda: best_correlations_cuda(maps, maps), lambda: folded_scores_cuda(maps, maps, maps[0, 0], 0.0)):
        with pytest.raises(CoreError, match=r"cannot run here: (the package triton|there is no CUDA device)"):
            call()


@pytest.mark.skipif(INTERPRETED or find_spec("triton") is None, reason="needs Triton, once")
def test_the_kernels_agree_with_the_formula_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
