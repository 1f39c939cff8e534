"""Galleries: the pictures that searches look through, their life cycle, their vectors and their erasure."""
