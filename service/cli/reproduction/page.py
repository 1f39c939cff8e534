"""One page that stands by itself: the table with the paper's numbers beside ours, the figure, what was run."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import mean
from typing import Any

_FACTORS = {"hours": 1.0, "parameters": 1e-6}
_ACCURACY = 100.0

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --paper: #fff; --soft: #5f6368; --line: #d0d3d8; --band: #f3f5f7;
        --warn: #8a3b00; --link: #0b57a4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --paper: #17181a; --soft: #a2a7ae; --line: #3a3d42;
        --band: #212326; --warn: #ffb27a; --link: #8ab8ff; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; } .soft { color: var(--soft); } .warn { color: var(--warn); font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; } caption { text-align: left; color: var(--soft); padding-bottom: .5rem; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .8rem; text-align: left; vertical-align: top; }
thead th { background: var(--band); } td.number { text-align: right; font-variant-numeric: tabular-nums; }
td small, td .quoted { display: block; color: var(--soft); font-size: .82rem; white-space: nowrap; }
td .failed { color: var(--warn); } td .none { color: var(--soft); }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); }
pre { background: var(--band); padding: .75rem; overflow-x: auto; font-size: .8rem; } code { font-size: .85em; }
"""


def write_page(told: Mapping[str, Any], pictures: Mapping[str, Path], path: Path) -> None:
    """`pictures`: title -> PNG, which the page takes into itself."""
    body = [
        f"<h1>{escape(told['title'])}</h1>",
        f'<p class="soft">{escape(told["source"])}, {escape(told["place"])} (<code>{escape(told["experiment"])}</code>)'
        f", made {escape(told['made_at'])}.</p>",
        _how(told),
        _section("Numbers", _table(told)),
        *(_section(title, _picture(title, file)) for title, file in pictures.items()),
        _section("Readings and departures", _list(told["notes"])) if told["notes"] else "",
        _section("Data", _data(told)),
        _section("Trainings", _trainings(told)),
    ]
    title = f"{told['experiment']}: {told['title']}"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>{"".join(body)}</main></body></html>\n'
    )


def _how(told: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, told["seeds"]))
    start = told["init_from"]
    weights = (
        "random weights" if start is None else f"the weights {start['weights'] if isinstance(start, dict) else start}"
    )
    plain = f"<p>Seed{'s' if len(told['seeds']) > 1 else ''} {seeds}; from {escape(weights)}.</p>"
    if not told["small"]:
        return plain
    return (
        '<p class="warn">A small run: another network, small images, few epochs, other data. Its numbers show that the '
        "experiment can be done; they are not to be compared with the quoted ones.</p>" + plain
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>\n"


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def _table(told: Mapping[str, Any]) -> str:
    heads = [*told["label_titles"], *(column["title"] for column in told["columns"])]
    caption = (
        "Accuracies in %. In bold: measured in this run; below it the 95 % interval over queries, of several seeds the "
        f"lowest and the highest. {_quoted_from(told)}"
    )
    rows = "".join(_table_row(row, told["columns"]) for row in told["rows"])
    return _as_table(caption, heads, rows)


def _quoted_from(told: Mapping[str, Any]) -> str:
    if all(cell["quoted"] is None for row in told["rows"] for cell in row["cells"]):
        return "The paper prints no numbers here."
    return f"In quotation marks: quoted from {told['source'].split(',')[0]}, {told['quoted_place']}."


def _as_table(caption: str, heads: Sequence[str], rows: str) -> str:
    cells = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _table_row(row: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> str:
    first, *others = row["labels"]
    labels = f'<th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(label)}</td>" for label in others)
    cells = (_cell(cell, column["measure"]) for cell, column in zip(row["cells"], columns, strict=True))
    return f"<tr>{labels}{''.join(cells)}</tr>"


def _cell(cell: Mapping[str, Any], measure: str) -> str:
    quoted = (
        "" if cell["quoted"] is None else f'<span class="quoted">quoted “{_as_printed(cell["quoted"], measure)}”</span>'
    )
    return f'<td class="number">{_measured(cell, measure)}{quoted}</td>'


def _measured(cell: Mapping[str, Any], measure: str) -> str:
    failed = "".join(f'<span class="failed">failed: {escape(each["reason"])}</span>' for each in cell["reasons"])
    if not cell["values"]:
        return failed or f'<span class="none">{"–" if cell["state"] == "not in the experiment" else "not run"}</span>'
    values = [each["value"] for each in cell["values"]]
    spread = [min(values), max(values)] if len(values) > 1 else cell["values"][0].get("interval")
    around = f"<small>{_shown(spread[0], measure)} to {_shown(spread[1], measure)}</small>" if spread else ""
    return f"<strong>{_shown(mean(values), measure)}</strong>{around}{failed}"


def _shown(value: float, measure: str) -> str:
    scaled = value * _FACTORS.get(measure, _ACCURACY)
    return f"{scaled:.3g}" if measure == "hours" else f"{scaled:.1f}"


def _as_printed(number: float, measure: str) -> str:
    """Whole millions, else with one decimal, or two where the paper prints them."""
    if measure == "parameters":
        return f"{number:.0f}"
    return f"{number:.1f}" if round(number, 1) == number else f"{number:.2f}"


def _picture(title: str, file: Path) -> str:
    content = base64.b64encode(file.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{content}" alt="{escape(title)}: the numbers stand in results.json">'


def _data(told: Mapping[str, Any]) -> str:
    rows = ""
    for each in told["data_sets"].values():
        splits = ", ".join(
            f"{name}: {counts['images']} images of {counts['identities']}" for name, counts in each["splits"].items()
        )
        cells = (each["given"], each["format"], splits, each["id"])
        rows += f'<tr><th scope="row">{escape(each["title"])}</th>' + "".join(f"<td>{escape(c)}</td>" for c in cells)
        rows += "</tr>"
    return _as_table("What stood for the paper's data sets.", ("the paper's", "here", "format", "images", "id"), rows)


def _trainings(told: Mapping[str, Any]) -> str:
    rows = "".join(_training(each) for each in told["trainings"])
    heads = ("training", "method", "seed", "minutes", "model", "job", "settings")
    return _as_table("Every model of this page; a model that was there already was not trained again.", heads, rows)


def _training(each: Mapping[str, Any]) -> str:
    asked = each["asked"]
    minutes = "" if each["seconds"] is None else f"{each['seconds'] / 60:.1f}"
    warnings = "".join(f'<small class="failed">{escape(warning["code"])}</small>' for warning in each["warnings"])
    failed = f'<span class="failed">failed: {escape(each["reason"])}</span>' if each["reason"] else ""
    settings = json.dumps(each["settings"] or asked["settings"], indent=1)
    return (
        f'<tr><th scope="row">{escape(each["title"])}</th><td>{escape(asked["method"])}{warnings}</td>'
        f'<td class="number">{asked["seed"]}</td><td class="number">{minutes}</td>'
        f"<td><code>{escape(each['model'] or '')}</code>{failed}</td><td><code>{escape(each['job'] or '')}</code></td>"
        f"<td><details><summary>show</summary><pre>{escape(settings)}</pre></details></td></tr>"
    )
