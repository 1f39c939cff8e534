"""k-reciprocal re-ranking of embeddings, of given distances and of one query's candidates."""

from reid_core.reranking.candidates import score_candidates as score_candidates
from reid_core.reranking.k_reciprocal import Reciprocal as Reciprocal
from reid_core.reranking.k_reciprocal import Reranked as Reranked
from reid_core.reranking.k_reciprocal import rerank_candidates as rerank_candidates
from reid_core.reranking.k_reciprocal import rerank_distances as rerank_distances
from reid_core.reranking.k_reciprocal import rerank_embeddings as rerank_embeddings
from reid_core.reranking.k_reciprocal import rerank_stored as rerank_stored
