"""Every experiment by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from service.papers import paper_000, paper_001, paper_002, paper_003
from service.papers.experiment import Experiment

EXPERIMENTS: Mapping[str, Callable[[bool], Experiment]] = {
    "000-table1": paper_000.table1,
    "000-fig2": paper_000.fig2,
    "000-fig3": paper_000.fig3,
    "000-fig4": paper_000.fig4,
    "000-fig5": paper_000.fig5,
    "001-grid": paper_001.grid,
    "002-table4": paper_002.table4,
    "003-table1": paper_003.table1,
    "003-table2": paper_003.table2,
    "003-table5": paper_003.table5,
    "003-table6": paper_003.table6,
}
"""Name -> the experiment, or with True its small run, whose figures have other values along their axes."""


def describe() -> str:
    """A line for each experiment: its name, what it is, and the data sets that it needs."""
    experiments = [build(False) for build in EXPERIMENTS.values()]
    return "\n\n".join(f"{each.name}: {each.title} ({', '.join(each.needs)})." for each in experiments)
