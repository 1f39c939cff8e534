"""Galleries: the images that searches look through, their life cycle, their vectors and their erasure."""
