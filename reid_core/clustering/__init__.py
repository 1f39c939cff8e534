"""Clusters of embeddings: images without identity grouped into proposed persons."""

from reid_core.clustering.clusters import LEFT_ALONE as LEFT_ALONE
from reid_core.clustering.clusters import Clustering as Clustering
from reid_core.clustering.clusters import Clusters as Clusters
from reid_core.clustering.clusters import cluster_embeddings as cluster_embeddings
from reid_core.clustering.pairwise import Pairwise as Pairwise
from reid_core.clustering.pairwise import compare_pairs as compare_pairs
