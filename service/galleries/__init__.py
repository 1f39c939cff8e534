"""Galleries: the pictures that searches look through, their life cycle, their vectors and their erasure."""

from service.galleries.indexing import index_gallery as index_gallery
from service.galleries.upkeep import expire as expire
from service.galleries.upkeep import remove_leftovers as remove_leftovers
