"""Explanations: which places of two images made them match, as pairs of points and as a drawing."""
