"""Work on pieces of a matrix in threads, each with kernels of one thread.

Kernels that themselves use all cores wait for each other at the end of every small step: in the matcher that costs a
quarter of the time on idle cores, and several times the time on cores shared with a training run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def work_in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results in the order of the items, from as many threads as PyTorch is set to use; in inference mode.

    Items are taken a few ahead. When the results are abandoned, those under way are still finished.
    """
    threads = torch.get_num_threads()
    # Modes are set per thread. Here they are free to write into tensors of any mode, the caller's inference mode too.
    work = torch.inference_mode()(work)
    if threads == 1:
        yield from map(work, items)
        return
    pool, pending = _pool(threads), deque[Future[Result]]()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            if not future.cancel():
                future.exception()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Kept as long as the process lives, so that searches at the same time share it."""
    pool = ThreadPoolExecutor(threads, "matching", initializer=torch.set_num_threads, initargs=(1,))
    all_started = Barrier(threads)
    deque(pool.map(lambda _: all_started.wait(), range(threads)), maxlen=0)
    # PyTorch counts threads per thread, but new threads begin with the number that was set last, anywhere.
    torch.set_num_threads(threads)
    return pool
