"""Query-adaptive convolution (QAConv): images are compared location by location.

Liao and Shao, "Interpretable and Generalizable Person Re-Identification with Query-Adaptive Convolution and Temporal
Lifting", ECCV 2020 (arXiv:1904.10424), as used in "Graph Sampling Based Deep Metric Learning for Generalizable Person
Re-Identification" (arXiv:2104.01546). Every location of one map looks for its best correlation in the other map, and
the other way round; a learned weight per location sums them to a score. Larger is closer, and the score of a pair is
the same whichever of the two is the query.

`best_correlations` and `MatchingHead` train; `folded_scores` and `symmetric_scores` compare with the head folded to
one weighted sum; `correspondences` says which locations carried a match.
"""

from reid_core.matching.correlations import best_correlations
from reid_core.matching.correspondences import Correspondence, correspondences
from reid_core.matching.head import FoldedHead, MatchingHead
from reid_core.matching.maps import to_locations
from reid_core.matching.scores import folded_scores, symmetric_scores

__all__ = [
    "Correspondence",
    "FoldedHead",
    "MatchingHead",
    "best_correlations",
    "correspondences",
    "folded_scores",
    "symmetric_scores",
    "to_locations",
]
