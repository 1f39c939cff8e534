"""The fused kernel of CPUs with AVX2: both maxima of all correlations of two maps, in 16-bit fixed point.

`vpmaddwd` multiplies 16 pairs of int16 and adds neighbours: twice as many products as fp32's fused multiply-add makes
in the same time. What it gives is reduced in registers; no correlation is ever written. A vector of length 1 loses at
most 2^-16 in every channel, less than by being kept as float16.

The kernel is written as LLVM's intermediate representation, as cuda_kernels.py is in Triton's language: llvmlite turns
it into machine code when it is first needed, so that no compiler has to be installed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from reid_core.errors import CoreError
from reid_core.matching.maps import Tile

_ROWS, _VECTORS, _LANES = 6, 2, 8
"""A tile of the product: 6 rows of 2 vectors, which with one row and one column vector more fill 15 of 16 registers."""

_COLUMNS = _VECTORS * _LANES
_TILE_MAPS = 64
_LARGEST = 2**15 - 1


def is_available() -> bool:
    """True on a CPU that the kernel was measured on."""
    # With AVX-512, fp32 products are as fast; ATEN_CPU_CAPABILITY=default turns this off as it does PyTorch's kernels.
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def tile_width(gallery: Tensor) -> int:
    """Enough maps for a tile to outweigh their conversion, few enough for every thread to have some."""
    return max(1, min(_TILE_MAPS, -(-len(gallery) // torch.get_num_threads())))


def add_maxima(query: Tensor, gallery: Tensor, tile: Tile) -> Iterator[tuple[int, slice, Tensor]]:
    """For the pairs of a tile the best correlation of every location, of both maps added up, one query at a time.

    Args:
        query, gallery: (Q, hw, c) and (G, hw, c) floating, on the CPU.

    Yields:
        The query's position, the galleries' positions and (n, hw) float32 sums; NaN where a map holds NaN.

    Raises:
        CoreError: the maps are elsewhere, or the CPU has no AVX2.
    """
    if query.device.type != "cpu":
        raise CoreError("int16 products are made by CPUs only.", hint="Ask for products auto or fp32.")
    locations, run = query.shape[1], _compile((query.shape[2] + 1) // 2)
    rows = _pack_rows(query[tile.query.start : tile.query.stop])
    columns = _pack_columns(gallery[tile.gallery.start : tile.gallery.stop])
    for position, row, unit in zip(tile.query, *rows, strict=True):
        compared = tile.galleries(position)
        values, units = (part[-len(compared) :] for part in columns)
        of_rows = torch.empty(len(compared), len(row), dtype=torch.int32)
        of_columns = torch.full((len(compared), values.shape[1] * _COLUMNS), -(2**31), dtype=torch.int32)
        run(
            *(tensor.data_ptr() for tensor in (row, values, of_rows, of_columns)),
            *(len(compared), len(row) // _ROWS, values.shape[1]),
        )
        sums = of_rows[:, :locations].float().add_(of_columns[:, :locations])
        yield position, slice(compared.start, compared.stop), sums.mul_((unit * units)[:, None])


class _Fixed(NamedTuple):
    """Maps as int16 in the kernel's order, and what 1 stands for in each map."""

    values: Tensor
    units: Tensor


def _pack_rows(maps: Tensor) -> _Fixed:
    """(N, hw, c) to values (N, hw rounded up, c rounded up), and (N,) units."""
    return _quantise(_pad(maps, _ROWS))


def _pack_columns(maps: Tensor) -> _Fixed:
    """(N, hw, c) to values (N, blocks of 16 locations, pairs of channels, 16, 2), and (N,) units."""
    values, units = _quantise(_pad(maps, _COLUMNS))
    return _Fixed(values.unflatten(2, (-1, 2)).unflatten(1, (-1, _COLUMNS)).transpose(2, 3).contiguous(), units)


def _pad(maps: Tensor, multiple: int) -> Tensor:
    """With the last location again and again, which changes no maximum, and with a channel of zeros if c is odd."""
    locations, channels = maps.shape[1:]
    if missing := -locations % multiple:
        maps = torch.cat([maps, maps[:, -1:].expand(-1, missing, -1)], dim=1)
    return functional.pad(maps.float(), (0, channels % 2))


def _quantise(maps: Tensor) -> _Fixed:
    """Scaled so that the longest vector of a map has the largest length: no sum of products can overflow."""
    longest = torch.linalg.vector_norm(maps, dim=2).amax(1).clamp_(min=torch.finfo(torch.float32).tiny)
    units = longest / _LARGEST
    return _Fixed((maps / units[:, None, None]).round_().to(torch.int16).contiguous(), units)


@cache
def _compile(pairs: int) -> Callable[..., None]:
    """The kernel for maps of so many pairs of channels: see `write_kernel` for its arguments."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    if not features.get("avx2"):
        raise CoreError("This CPU has no AVX2, which int16 products need.", hint="Ask for products auto or fp32.")
    module = llvm.parse_assembly(write_kernel(pairs))
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=3
    )
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _engines.append(engine)
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 3)
    return kind(engine.get_function_address("maxima"))


_engines: list[Any] = []
"""They own the machine code, which is used as long as the process lives."""


def write_kernel(pairs: int) -> str:
    """LLVM's representation of `maxima(query, gallery, of_rows, of_columns, maps, row_blocks, column_blocks)`.

    query: (row_blocks * 6, pairs, 2) int16; gallery: (maps, column_blocks, pairs, 16, 2) int16; of_rows:
    (maps, row_blocks * 6) int32, written; of_columns: (maps, column_blocks * 16) int32, raised. All contiguous,
    gallery and of_columns at multiples of 32 bytes.
    """
    rows, vectors = range(_ROWS), range(_VECTORS)
    grid = [(row, vector) for row in rows for vector in vectors]

    def each(items: Any, line: str) -> str:
        return "\n".join(line.format(*item) if isinstance(item, tuple) else line.format(item) for item in items)

    return f"""
declare <8 x i32> @llvm.x86.avx2.pmadd.wd(<16 x i16>, <16 x i16>)
declare <8 x i32> @llvm.smax.v8i32(<8 x i32>, <8 x i32>)
declare i32 @llvm.vector.reduce.smax.v8i32(<8 x i32>)

define void @maxima(
  ptr %query, ptr %galleries, ptr %of_rows, ptr %of_columns, i64 %maps, i64 %row_blocks, i64 %blocks
) {{
start:
  %rows = mul i64 %row_blocks, {_ROWS}
  %columns = mul i64 %blocks, {_COLUMNS}
  %map_size = mul i64 %columns, {pairs}
  br label %each_map

each_map:
  %map = phi i64 [0, %start], [%next_map, %after_rows]
  %gallery_at = mul i64 %map, %map_size
  %gallery = getelementptr i32, ptr %galleries, i64 %gallery_at
  %own_rows_at = mul i64 %map, %rows
  %own_rows = getelementptr i32, ptr %of_rows, i64 %own_rows_at
  %own_columns_at = mul i64 %map, %columns
  %own_columns = getelementptr i32, ptr %of_columns, i64 %own_columns_at
  br label %each_row_block

each_row_block:
  %row_block = phi i64 [0, %each_map], [%next_row_block, %after_columns]
  %row = mul i64 %row_block, {_ROWS}
  %query_at = mul i64 %row, {pairs}
  %query_rows = getelementptr i32, ptr %query, i64 %query_at
  br label %each_block

each_block:
  %block = phi i64 [0, %each_row_block], [%next_block, %after_pairs]
{each(rows, "  %row_max{0} = phi <8 x i32> [splat (i32 -2147483648), %each_row_block], [%row_max{0}_1, %after_pairs]")}
  %column = mul i64 %block, {_COLUMNS}
  %block_at = mul i64 %column, {pairs}
  %block_columns = getelementptr i32, ptr %gallery, i64 %block_at
  br label %each_pair

each_pair:
  %pair = phi i64 [0, %each_block], [%next_pair, %each_pair]
{each(grid, "  %sum{0}_{1} = phi <8 x i32> [zeroinitializer, %each_block], [%sum{0}_{1}_next, %each_pair]")}
  %pair_at = mul i64 %pair, {_COLUMNS}
  %pair_columns = getelementptr i32, ptr %block_columns, i64 %pair_at
{
        each(
            ((vector, vector * _LANES) for vector in vectors),
            '''  %right{0}_at = getelementptr i32, ptr %pair_columns, i64 {1}
  %right{0} = load <16 x i16>, ptr %right{0}_at, align 32''',
        )
    }
{
        each(
            ((row, row * pairs) for row in rows),
            '''  %left{0}_place = add i64 %pair, {1}
  %left{0}_at = getelementptr i32, ptr %query_rows, i64 %left{0}_place
  %left{0}_pair = load i32, ptr %left{0}_at, align 4
  %left{0}_one = insertelement <8 x i32> poison, i32 %left{0}_pair, i32 0
  %left{0}_all = shufflevector <8 x i32> %left{0}_one, <8 x i32> poison, <8 x i32> zeroinitializer
  %left{0} = bitcast <8 x i32> %left{0}_all to <16 x i16>''',
        )
    }
{
        each(
            grid,
            '''  %product{0}_{1} = call <8 x i32> @llvm.x86.avx2.pmadd.wd(<16 x i16> %left{0}, <16 x i16> %right{1})
  %sum{0}_{1}_next = add <8 x i32> %sum{0}_{1}, %product{0}_{1}''',
        )
    }
  %next_pair = add i64 %pair, 1
  %no_pair_left = icmp eq i64 %next_pair, {pairs}
  br i1 %no_pair_left, label %after_pairs, label %each_pair, !llvm.loop !0

after_pairs:
{each(rows, "  %row_max{0}_0 = call <8 x i32> @llvm.smax.v8i32(<8 x i32> %row_max{0}, <8 x i32> %sum{0}_0_next)")}
{each(rows, "  %row_max{0}_1 = call <8 x i32> @llvm.smax.v8i32(<8 x i32> %row_max{0}_0, <8 x i32> %sum{0}_1_next)")}
{
        each(
            ((vector, vector * _LANES) for vector in vectors),
            '''  %column{0} = add i64 %column, {1}
  %column{0}_at = getelementptr i32, ptr %own_columns, i64 %column{0}
  %column_max{0}_0 = load <8 x i32>, ptr %column{0}_at, align 32''',
        )
    }
{
        each(
            ((row, vector, row + 1) for row, vector in grid),
            "  %column_max{1}_{2} = call <8 x i32> @llvm.smax.v8i32"
            "(<8 x i32> %column_max{1}_{0}, <8 x i32> %sum{0}_{1}_next)",
        )
    }
{
        each(
            ((vector, _ROWS) for vector in vectors),
            "  store <8 x i32> %column_max{0}_{1}, ptr %column{0}_at, align 32",
        )
    }
  %next_block = add i64 %block, 1
  %no_block_left = icmp eq i64 %next_block, %blocks
  br i1 %no_block_left, label %after_columns, label %each_block

after_columns:
{
        each(
            rows,
            '''  %best{0} = call i32 @llvm.vector.reduce.smax.v8i32(<8 x i32> %row_max{0}_1)
  %best{0}_place = add i64 %row, {0}
  %best{0}_at = getelementptr i32, ptr %own_rows, i64 %best{0}_place
  store i32 %best{0}, ptr %best{0}_at''',
        )
    }
  %next_row_block = add i64 %row_block, 1
  %no_row_block_left = icmp eq i64 %next_row_block, %row_blocks
  br i1 %no_row_block_left, label %after_rows, label %each_row_block

after_rows:
  %next_map = add i64 %map, 1
  %no_map_left = icmp eq i64 %next_map, %maps
  br i1 %no_map_left, label %end, label %each_map

end:
  ret void
}}

!0 = distinct !{{!0, !1}}
!1 = !{{!"llvm.loop.unroll.count", i32 4}}
"""
