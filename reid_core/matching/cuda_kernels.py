"""Triton kernels of the CUDA matcher; `cuda.py` lays out their inputs, launches them and is the only importer.

Common to all: maps are contiguous (maps, positions, channels), and a tile is `block` positions wide. Positions past a
map's end repeat its last one: a maximum does not see a copy. What belongs to a map's own positions in every pair with
the others is contiguous (own, others, positions).
"""

# Triton compiles the source of these functions and gives it types of its own, which mypy cannot know.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_queries", "num_galleries", "chunk"])
def score_pairs(
    queries,
    galleries,
    weights,
    bias,
    scores,
    num_queries,
    num_galleries,
    chunk,
    positions: tl.constexpr,
    channels: tl.constexpr,
    block: tl.constexpr,
    stages: tl.constexpr,
    symmetric: tl.constexpr,
):
    """Scores of one query map with `chunk` gallery maps; where symmetric, of the pairs on and above the diagonal.

    The query map stays in shared memory, gallery maps stream past it, `stages` of them in flight. Neighbouring programs
    take other queries and the same galleries, which the L2 cache therefore holds.
    """
    steps: tl.constexpr = (positions + block - 1) // block
    query = (tl.program_id(0) % num_queries).to(tl.int64)
    start = (tl.program_id(0) // num_queries).to(tl.int64) * chunk
    stop = tl.minimum(start + chunk, num_galleries)
    if symmetric:
        start = tl.maximum(start, query)
    own = ()
    for i in tl.static_range(steps):
        one_map = queries + query * positions * channels
        own += (load_tile(one_map, i * block, 0, positions, channels, block, channels),)
    for gallery in tl.range(start, stop, num_stages=stages):
        one_map = galleries + gallery * positions * channels
        row_sum = tl.zeros((block,), tl.float32)
        col_sum = tl.zeros((block,), tl.float32)
        rows = ()
        cols = ()
        for j in tl.static_range(steps):
            theirs = load_tile(one_map, j * block, 0, positions, channels, block, channels)
            so_far = ()
            for i in tl.static_range(steps):
                tile = tl.dot(own[i], theirs.T)
                # A thread holds rows r and r + 8 of a tile, and two neighbours of every eight columns: maxima over
                # these axes stay in its registers. Threads meet once per map or column block, not once per tile.
                of_rows = tl.max(tl.reshape(tile, (block, block // 8, 8)), 1)
                of_cols = tl.max(tl.reshape(tile, (block // 16, 2, 8, block)), 1)
                so_far += (of_rows if j == 0 else tl.maximum(rows[i], of_rows),)
                cols = of_cols if i == 0 else tl.maximum(cols, of_cols)
            rows = so_far
            col_sum += tl.max(tl.reshape(cols, (block // 2, block)), 0) * load_weights(weights, j, positions, block)
        for i in tl.static_range(steps):
            row_sum += tl.max(rows[i], 1) * load_weights(weights, i, positions, block)
        score = tl.sum(row_sum) + tl.sum(col_sum) + bias
        tl.store(scores + query * num_galleries + gallery, score)
        if symmetric:
            tl.store(scores + gallery * num_galleries + query, score)


@triton.jit(do_not_specialize=["num_queries", "num_galleries", "num_rows", "num_cols"])
def find_maxima(
    queries,
    galleries,
    row_max,
    row_places,
    col_max,
    col_places,
    num_queries,
    num_galleries,
    num_rows,
    num_cols,
    channels,
    row_blocks: tl.constexpr,
    block: tl.constexpr,
    depth: tl.constexpr,
    symmetric: tl.constexpr,
):
    """Maxima of one pair's rows (Q, G, rows) and columns (G, Q, cols), and where they are.

    Where symmetric, columns are rows of the same pair the other way round, so both go to the same arrays. `row_blocks`
    is a power of two; that many blocks cover the rows. `depth` divides the channels.
    """
    query = (tl.program_id(0) // num_galleries).to(tl.int64)
    gallery = (tl.program_id(0) % num_galleries).to(tl.int64)
    if symmetric and gallery < query:
        return
    own_map = queries + query * num_rows * channels
    their_map = galleries + gallery * num_cols * channels
    row_block = tl.arange(0, row_blocks)[:, None]
    lane = tl.arange(0, block)
    rows = tl.full((row_blocks, block), float("-inf"), tl.float32)
    row_at = tl.zeros((row_blocks, block), tl.int32)
    for j in range(0, num_cols, block):
        cols = tl.full((block,), float("-inf"), tl.float32)
        col_at = tl.zeros((block,), tl.int32)
        for i in range(0, num_rows, block):
            tile = tl.zeros((block, block), tl.float32)
            for k in range(0, channels, depth):
                own = load_tile(own_map, i, k, num_rows, channels, block, depth)
                theirs = load_tile(their_map, j, k, num_cols, channels, block, depth)
                tile = tl.dot(own, theirs.T, tile, input_precision="ieee")
            value, at = tl.max(tile, 1, return_indices=True)
            # Not `value > rows`: the maximum over what is not a number must not be a number either. And a place past
            # the end is that of a copy whose sum was rounded otherwise.
            better = (row_block == i // block) & ~(rows >= value[None, :])
            rows = tl.where(better, value[None, :], rows)
            row_at = tl.where(better, tl.minimum(j + at, num_cols - 1)[None, :], row_at)
            value, at = tl.max(tile, 0, return_indices=True)
            better = ~(cols >= value)
            cols = tl.where(better, value, cols)
            col_at = tl.where(better, tl.minimum(i + at, num_rows - 1), col_at)
        place = (gallery * num_queries + query) * num_cols + j + lane
        tl.store(col_max + place, cols, mask=j + lane < num_cols)
        tl.store(col_places + place, col_at, mask=j + lane < num_cols)
    row = row_block * block + lane[None, :]
    place = (query * num_galleries + gallery) * num_rows + row
    tl.store(row_max + place, rows, mask=row < num_rows)
    tl.store(row_places + place, row_at, mask=row < num_rows)


@triton.jit(do_not_specialize=["num_own", "num_others", "num_rows", "num_cols", "share"])
def route_gradient(
    others,
    row_grad,
    row_places,
    col_grad,
    col_places,
    gradient,
    num_own,
    num_others,
    num_rows,
    num_cols,
    channels,
    share,
    block: tl.constexpr,
    depth: tl.constexpr,
    precision: tl.constexpr,
):
    """The gradient of `block` rows and `depth` channels of one map, from `share` of the other maps.

    A pair's gradient is a (rows, columns) matrix that holds each maximum's gradient at the place that won, times the
    other map. It is made in registers, tile by tile, and a program adds up its own part in a fixed order: no atomics.
    """
    blocks = tl.cdiv(num_rows, block)
    own = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * block + tl.arange(0, block)
    channel = tl.program_id(1) * depth
    first = tl.program_id(2).to(tl.int64) * share
    total = tl.zeros((block, depth), tl.float32)
    for other in range(first, tl.minimum(first + share, num_others)):
        one_map = others + other * num_cols * channels
        grad, place = load_routes(row_grad, row_places, own * num_others + other, row, num_rows)
        for start in range(0, num_cols, block):
            col = start + tl.arange(0, block)
            their_grad, their_place = load_routes(col_grad, col_places, other * num_own + own, col, num_cols)
            routes = tl.where(place[:, None] == col[None, :], grad[:, None], 0.0)
            routes += tl.where(row[:, None] == their_place[None, :], their_grad[None, :], 0.0)
            theirs = load_tile(one_map, start, channel, num_cols, channels, block, depth)
            total = tl.dot(routes, theirs.to(tl.float32), total, input_precision=precision)
    target = ((tl.program_id(2) * num_own + own) * num_rows + row) * channels
    columns = channel + tl.arange(0, depth)
    tl.store(gradient + target[:, None] + columns[None, :], total, mask=row[:, None] < num_rows)


@triton.jit
def load_tile(one_map, position, channel, positions, channels, block: tl.constexpr, depth: tl.constexpr):
    """(block, depth) of one map, from `position` and `channel` on."""
    row = tl.minimum(position + tl.arange(0, block), positions - 1)
    column = channel + tl.arange(0, depth)
    return tl.load(one_map + row[:, None] * channels + column[None, :])


@triton.jit
def load_weights(weights, step, positions, block: tl.constexpr):
    """(block,) weights of one block of positions, 0 past the end."""
    position = step * block + tl.arange(0, block)
    return tl.load(weights + position, mask=position < positions, other=0.0)


@triton.jit
def load_routes(grad, places, pair, position, positions):
    """Gradients of a pair's maxima at these positions, 0 past the end, and where in the other map they lie."""
    inside = position < positions
    target = pair * positions + position
    place = tl.load(places + target, mask=inside, other=0)
    return tl.load(grad + target, mask=inside, other=0.0), place.to(tl.int32)
