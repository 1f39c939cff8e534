"""Evaluations: what models reached on data sets, one by one and as a table."""
