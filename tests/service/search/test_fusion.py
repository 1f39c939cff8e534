"""Several queries of one person make one ranking."""

from __future__ import annotations

import numpy as np

from service.search.fusion import best_scores


def test_the_best_of_several_queries_equals_comparing_everything() -> None:
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 30, (3, 40)).astype(np.float32)  # with many ties
    order = np.lexsort((np.broadcast_to(np.arange(40), (3, 40)), -scores))[:, :7]
    got_scores, got = best_scores(np.take_along_axis(scores, order, axis=1), order, 7)
    best = scores.max(axis=0)
    expected = np.lexsort((np.arange(40), -best))[:7]
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(got_scores, best[expected])
