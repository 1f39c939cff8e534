"""Files of queries are read block by block, whatever they hold at a piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from reid_core.retrieval.columns import write_embeddings
from service.errors import Problem
from service.jobs.query_files import BLOCK, count_queries, read_blocks

COUNT, SIZE = 20_000, 256


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((COUNT, SIZE), dtype=np.float32)


def test_of_a_row_group_of_any_size_a_block_is_in_memory(tmp_path: Path, vectors: np.ndarray) -> None:
    path = tmp_path / "queries.parquet"
    table = pyarrow.table({"embedding": write_embeddings(vectors)})
    pyarrow.parquet.write_table(table, path, row_group_size=COUNT)
    assert path.stat().st_size > 20e6
    before, largest, first = pyarrow.total_allocated_bytes(), 0, 0
    for block in read_blocks(path):
        largest = max(largest, pyarrow.total_allocated_bytes() - before)
        assert len(block) == min(BLOCK, COUNT - first)
        np.testing.assert_array_equal(np.stack([query.embedding for query in block]), vectors[first : first + BLOCK])
        first += len(block)
    assert (first, count_queries(path)) == (COUNT, COUNT)
    assert largest < 6e6


def test_a_few_bytes_that_stand_for_many_numbers_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "queries.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"embedding": [np.zeros(5_000_000)]}), path)
    assert path.stat().st_size < 10_000
    with pytest.raises(Problem) as refused:
        next(read_blocks(path))
    assert "5,000,000 numbers in 1 rows" in refused.value.errors[0].message


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
@pytest.mark.parametrize("number", [pyarrow.float32(), pyarrow.float64(), pyarrow.float16()])
def test_lists_of_any_floats_are_embeddings(tmp_path: Path, kind: str, number: pyarrow.DataType) -> None:
    lists = {"list": pyarrow.list_(number), "large_list": pyarrow.large_list(number), "fixed": pyarrow.list_(number, 2)}
    values = np.array([[1, 2], [3, 4]], number.to_pandas_dtype())
    column = pyarrow.array(list(values), lists[kind])
    pyarrow.parquet.write_table(pyarrow.table({"embedding": column, "id": ["a", None]}), tmp_path / "queries")
    (block,) = read_blocks(tmp_path / "queries")
    assert [(query.id, query.image_id) for query in block] == [("a", None), (None, None)]
    np.testing.assert_array_equal(np.stack([query.embedding for query in block]), [[1, 2], [3, 4]])
