"""The papers' experiments as data: every one is complete, can be asked for, and has its page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from reid_core.methods import METHODS
from reid_core.settings import TrainingSettings, override
from service.cli.client import Refused
from service.cli.reproduction.data import DataSet, choose
from service.cli.reproduction.page import write_page
from service.cli.reproduction.plot import Panel, draw_panels, style
from service.cli.reproduction.requests import Request, Run, request, requests
from service.cli.reproduction.small import BACKBONE
from service.papers.catalogue import EXPERIMENTS, describe
from service.papers.experiment import Experiment
from tests.service.colour_vision import too_close

LARGE, SMALL = Run(False, (0,), "imagenet"), Run(True, (0,), None, BACKBONE)
RUNS = [(name, run) for name in EXPERIMENTS for run in (LARGE, SMALL)]


def data_for(experiment: Experiment, run: Run) -> dict[str, DataSet]:
    names = experiment.small_needs if run.small else experiment.needs
    return {name: DataSet(f"ds_{name}", name, name, {"fingerprint": name}) for name in names}


def settled(asked: Request, all_of_them: dict[str, Request]) -> TrainingSettings:
    """The settings in full, as the service makes them from the body."""
    method, changes = METHODS[asked.body["method"]], asked.body["settings"]
    if method.settle is None:
        return override(method.recipe, changes)
    teacher = all_of_them[asked.body["teacher"]]
    return method.settle(changes, teacher.body["method"], settled(teacher, all_of_them))


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_every_training_of_an_experiment_is_one_that_its_method_takes(name: str, run: Run) -> None:
    experiment = EXPERIMENTS[name](run.small)
    asked = {each.name: each for each in requests(experiment, run, data_for(experiment, run))}
    assert asked
    for each in asked.values():
        assert set(each.needs) <= asked.keys()
        with torch.device("meta"):
            METHODS[each.body["method"]].build_network(settled(each, asked), 20)


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_quoted_numbers_stand_in_columns_and_only_where_something_is_measured(name: str, run: Run) -> None:
    experiment = EXPERIMENTS[name](run.small)
    for row in experiment.rows:
        assert len(row.labels) == len(experiment.label_titles)
        for column, quoted in zip(experiment.columns, row.quoted, strict=bool(row.quoted)):
            assert quoted is None or experiment.is_measured(row, column)


def test_the_small_run_is_a_part_of_the_papers_rows_in_every_table() -> None:
    for name in (name for name in EXPERIMENTS if "fig" not in name):
        large, small = EXPERIMENTS[name](False), EXPERIMENTS[name](True)
        assert [row.labels for row in large.rows] == [row.labels for row in small.rows]
        assert len(requests(small, SMALL, data_for(small, SMALL))) < 7


def test_a_training_that_two_experiments_have_is_made_once() -> None:
    data = data_for(EXPERIMENTS["000-table1"](False), LARGE)
    names = {
        name: {each.name for each in requests(EXPERIMENTS[name](False), LARGE, data)}
        for name in ("000-table1", "000-fig2", "000-fig3", "000-fig4", "000-fig5")
    }
    assert len(set.intersection(*names.values())) == 1


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("000")])
def test_qaconv_says_the_layers_of_its_paper_outright(name: str) -> None:
    experiment = EXPERIMENTS[name](False)
    recipe = METHODS["qaconv-gs"].recipe.model_dump()
    for each in requests(experiment, LARGE, data_for(experiment, LARGE)):
        for setting in ("instance_norm", "normalisation", "freeze_backbone_bn"):
            assert each.body["settings"][setting] == recipe[setting]


def test_the_name_of_a_model_says_all_that_it_depends_on() -> None:
    experiment = EXPERIMENTS["003-table6"](False)
    student, data = experiment.rows[3].training, data_for(experiment, LARGE)
    name = request(student, 0, LARGE, data).name
    assert name == request(student, 0, LARGE, data).name
    assert student.teacher is not None
    other_teacher = replace(student, teacher=replace(student.teacher, settings={"schedule": {"epochs": 1}}))
    other_data = data | {"market1501": DataSet("ds_1", "market1501", "x", {"fingerprint": "another"})}
    others = [
        request(other_teacher, 0, LARGE, data),
        request(student, 1, LARGE, data),
        request(student, 0, SMALL, data),
        request(student, 0, LARGE, other_data),
        request(student, 0, replace(LARGE, recipes={"ptl-densenet161": {"momentum": 0.5}}), data),
    ]
    assert len({name, *(each.name for each in others)}) == 6


def test_all_missing_data_sets_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Missing: msmt17, cuhk03, randperson") as refused:
        choose(EXPERIMENTS["000-table1"](False), [f"market1501={tmp_path}"], small=False)
    assert "--data market1501=PATH --data msmt17=PATH --data cuhk03=PATH --data randperson=PATH" in str(refused.value)
    with pytest.raises(Refused, match="no data set 'mars'"):
        choose(EXPERIMENTS["001-grid"](False), [f"mars={tmp_path}/nowhere"], small=False)
    with pytest.raises(Refused, match=r"nothing at .*gone"):
        choose(EXPERIMENTS["001-grid"](False), [f"market1501={tmp_path}/gone"], small=False)


def test_a_small_run_takes_any_data_and_draws_what_is_not_given(tmp_path: Path) -> None:
    table6 = EXPERIMENTS["003-table6"](True)
    assert choose(table6, [], small=True) == {"msmt17": None, "market1501": None}
    assert choose(table6, [str(tmp_path)], small=True) == {"msmt17": tmp_path, "market1501": None}
    both = choose(table6, [str(tmp_path), f"msmt17={tmp_path.parent}"], small=True)
    assert both == {"msmt17": tmp_path.parent, "market1501": tmp_path}
    with pytest.raises(Refused, match="more were given"):
        choose(table6, [str(tmp_path)] * 3, small=True)


def test_the_list_for_people_names_every_experiment_and_its_data_sets() -> None:
    assert all(f"{name}: " in describe() for name in EXPERIMENTS)
    assert "(market1501, dukemtmc, msmt17)" in describe()


class Reader(HTMLParser):
    """Collects the page's text, tags that stay open, and scopes of header cells."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []
        self.unscoped = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.unscoped += tag == "th" and "scope" not in dict(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def told(**cell: Any) -> dict[str, Any]:
    """The report of a run of one row and one column."""
    cells = [{"state": "not run", "values": [], "reasons": [], "quoted": None} | cell]
    return {
        "experiment": "002-table4",
        "title": "Parts <left> out",
        "source": "Zheng et al. 2019, A Pyramid",
        "place": "table 4",
        "quoted_place": "table 4",
        "notes": [],
        "made_at": "2026-01-31T12:00:00+00:00",
        "small": True,
        "seeds": [0, 1],
        "init_from": None,
        "data_sets": {},
        "label_titles": ["model"],
        "columns": [{"title": "mAP", "measure": "mAP"}],
        "rows": [{"labels": ["Pyramid & all"], "point": None, "cells": cells}],
        "trainings": [],
    }


def text_of(page: Path) -> str:
    reader = Reader()
    reader.feed(page.read_text())
    assert reader.open == []
    assert reader.unscoped == 0
    return " ".join(" ".join(reader.text).split())


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ({"quoted": 88.2}, "Pyramid & all not run quoted “88.2”"),
        ({"state": "not in the experiment"}, "Pyramid & all –"),
        ({"reasons": [{"seed": 0, "reason": "It <broke>."}]}, "Pyramid & all failed: It <broke>."),
        ({"values": [{"value": 0.5, "interval": [0.41, 0.6]}], "quoted": 88.2}, "50.0 41.0 to 60.0 quoted “88.2”"),
        ({"values": [{"value": 0.5}, {"value": 0.7}]}, "60.0 50.0 to 70.0"),
    ],
)
def test_a_cell_of_the_page_says_what_was_measured_quoted_or_why_not(
    cell: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    write_page(told(**cell), {}, tmp_path / "index.html")
    text = text_of(tmp_path / "index.html")
    assert expected in text
    assert ("quoted from Zheng et al. 2019, table 4" in text) == (cell.get("quoted") is not None)
    assert "not to be compared" in text


def test_the_page_stands_by_itself(tmp_path: Path) -> None:
    draw_panels([Panel("loss", "step", {"one": [(1, 2.0), (2, 1.0)]})], tmp_path / "curves.png")
    write_page(told(), {"Curves": tmp_path / "curves.png"}, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "prefers-color-scheme: dark" in page
    assert json.dumps("Curves") not in text_of(tmp_path / "index.html")


def test_a_larger_value_is_drawn_higher_and_a_later_one_further_right(tmp_path: Path) -> None:
    draw_panels([Panel("a", "x", {"rising": [(1, 0.0), (8, 1.0)]}, log_x=True)], tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        line = np.asarray(image.convert("RGB"))[:430]  # above the legend
    down, across = (line == (0x00, 0x72, 0xB2)).all(axis=2).nonzero()
    (left, low), (right, high) = ((across[place], down[place]) for place in (across.argmin(), across.argmax()))
    assert left < right
    assert low > high


def test_lines_differ_by_more_than_their_colours(tmp_path: Path) -> None:
    assert len({style(number) for number in range(21)}) == 21
    assert len({mark for _, mark, _ in map(style, range(7))}) == 7
    assert too_close(colour for colour, _, _ in map(style, range(7))) == []
    lines = {f"model {number}": [(x, number + x) for x in range(100)] for number in range(9)}
    draw_panels(
        [Panel("rank-1 (%)", "step", lines), Panel("loss", "step", lines), Panel("b", "x", {"a": [(1, 0), (2, 1)]})],
        tmp_path / "plot.png",
    )
    with Image.open(tmp_path / "plot.png") as image:
        assert image.size == (1612, 1555)
        drawn = np.asarray(image.convert("RGB"))[20:400, 100:780]
    assert all((drawn == ImageColor.getrgb(style(number)[0])).all(axis=2).any() for number in range(7))
