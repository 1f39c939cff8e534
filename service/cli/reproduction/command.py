"""`reid reproduce`: an experiment done in the service that runs here, or in one of this home started for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.cli import running
from service.cli.client import Client, Refused
from service.cli.own import backbone_of, end_as_by_ctrl_c, start_service
from service.cli.progress import console, progress_bar
from service.cli.reproduction.data import choose, register
from service.cli.reproduction.figures import draw_curves, draw_figure
from service.cli.reproduction.page import write_page
from service.cli.reproduction.report import Report
from service.cli.reproduction.requests import Run
from service.cli.reproduction.runner import Runner
from service.cli.reproduction.small import BACKBONE
from service.cli.up import read_settings
from service.papers.catalogue import EXPERIMENTS
from service.papers.experiment import Experiment
from service.settings import Settings

_INTERRUPTED = 130


def run(
    name: str, data: Sequence[str], *, small: bool, weights: str | None, seeds: Sequence[int], out: Path | None
) -> int:
    """The exit status: 0 when all of it was done, 1 when something failed, 2 when it could not begin."""
    end_as_by_ctrl_c()
    settings = read_settings()
    try:
        if name not in EXPERIMENTS:
            raise Refused(f"There is no experiment {name!r}; known are {', '.join(EXPERIMENTS)}.")
        experiment = EXPERIMENTS[name](small)
        sources = choose(experiment, data, small=small)
        file = _find_weights(weights, settings)
        how = _choose_run(file, small=small, seeds=seeds)
    except Refused as refused:
        console.print(f"[red]{refused}[/red]")
        return 2
    try:
        with _reach(settings, list(sources.values()), file) as client:
            return _reproduce(client, experiment, how, sources, out or Path("reproduction") / name)
    except Refused as refused:
        console.print(f"[red]{refused}[/red]")
        return 1
    except KeyboardInterrupt:
        console.print("Stopped. What is done is kept; the same command goes on from there.")
        return _INTERRUPTED


def _find_weights(weights: str | None, settings: Settings) -> Path | None:
    """The file of a path, or of that name in the service's folder of weights."""
    if weights is None:
        return None
    candidates = [Path(weights), settings.weights_dir / weights]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    raise Refused(f"There is no weights file {weights!r}, neither here nor in {settings.weights_dir}.")


def _choose_run(weights: Path | None, *, small: bool, seeds: Sequence[int]) -> Run:
    """Begins as the papers do, with ImageNet weights; the small run with random ones, unless a file is given."""
    start: Any = {"weights": weights.name} if weights else (None if small else "imagenet")
    backbone = backbone_of(weights) if weights and small else BACKBONE
    return Run(small, tuple(dict.fromkeys(seeds)), start, backbone)


@contextmanager
def _reach(settings: Settings, sources: Sequence[Path | None], weights: Path | None) -> Iterator[Client]:
    """A client of the service that has this home now, or of one started for as long as this takes."""
    address = running.address_in(settings)
    if address is None and not running.is_named(settings):
        folders = [path.resolve().parent for path in sources if path is not None]
        roots = list(dict.fromkeys([*settings.data_roots, *folders]))
        settings.home.mkdir(parents=True, exist_ok=True)
        console.print(f"Starting a service in {settings.home}; it ends with this command, what it made stays there")
        with start_service(settings.home, roots, weights.parent if weights else settings.weights_dir) as client:
            yield client
        return
    if weights is not None and weights.parent != settings.weights_dir.resolve():
        raise Refused(f"{weights} is not in {settings.weights_dir}, where the service looks for weights; put it there.")
    with running.connect(settings, address) as client:
        console.print("In the service that runs here")
        yield client


def _reproduce(client: Client, experiment: Experiment, how: Run, sources: Mapping[str, Path | None], out: Path) -> int:
    with progress_bar() as bar:
        everything, current = bar.add_task("everything", total=1.0, note=""), bar.add_task("", total=1.0, note="")

        def show(title: str, fraction: float, of_all: float) -> None:
            bar.update(current, description=title[:32], completed=fraction)
            bar.update(everything, completed=of_all)

        def follow(job: str, title: str) -> Any:
            return client.wait_for_job(job, lambda job: show(title, job["progress"]["fraction"], 0.0))

        data = {name: register(client, name, source, follow) for name, source in sources.items()}
        how = replace(how, recipes=_recipes(client))
        results = Runner(client, show).run(experiment, how, data)
    told = Report(client, experiment, how, data, results).as_json()
    _write(client, experiment, told, out)
    failed = sum(bool(done.problem) for done in [*results.trainings.values(), *results.evaluations.values()])
    console.print(f"The page is {out / 'index.html'}" + (f"; {failed} jobs failed, as it says" if failed else ""))
    return 1 if failed else 0


def _recipes(client: Client) -> dict[str, Any]:
    """The default of every setting and those of the presets, by the method's name."""
    return {
        each["name"]: {
            **{name: facts.get("default") for name, facts in each["settings_schema"]["properties"].items()},
            "presets": each["presets"],
        }
        for each in client.get("/methods")["items"]
    }


def _write(client: Client, experiment: Experiment, told: Mapping[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(told, indent=1) + "\n")
    pictures = {}
    if draw_figure(client, experiment, told, out / "figure.png"):
        pictures[f"The paper's {experiment.place}, from this run"] = out / "figure.png"
    if draw_curves(told, out / "curves.png"):
        pictures["Curves of the trainings"] = out / "curves.png"
    write_page(told, pictures, out / "index.html")
