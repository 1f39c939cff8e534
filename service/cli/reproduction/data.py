"""The data sets of an experiment: which are needed, which folder stands for which, and having them registered."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reid_core.sample_data import write_sample_data
from service.cli.client import Client, Refused
from service.papers.experiment import DATA_SETS, Experiment

_DRAWN_PEOPLE, _DRAWN_CAMERAS = 40, 4
"""Of a drawn data set; those that stand for another name are another world."""

Follow = Callable[[str, str], Any]
"""Waits for the job of an id under a title."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A registered data set that stands for one of the paper's; `given` says where it came from."""

    id: str
    name: str
    given: str
    answer: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        return str(self.answer["fingerprint"])


def choose(experiment: Experiment, words: Sequence[str], *, small: bool) -> dict[str, Path | None]:
    """The folder or archive for each data set needed, by the paper's name; None: people are drawn.

    Raises:
        Refused: all that is missing or unknown, at once.
    """
    needs = experiment.small_needs if small else experiment.needs
    named, unnamed = _split(words)
    open_names = [name for name in needs if name not in named]
    if unnamed and not small:
        raise Refused(f"--data {unnamed[0]} names no data set. {_explain(experiment)}")
    if len(unnamed) > len(open_names):
        raise Refused(f"{experiment.name} --small needs {len(needs)} data sets ({', '.join(needs)}); more were given.")
    chosen: dict[str, Path | None] = {name: named.get(name) for name in needs}
    chosen |= dict(zip(open_names, unnamed, strict=False))
    if not small and open_names:
        raise Refused(f"Missing: {', '.join(open_names)}. {_explain(experiment)}")
    if gone := [str(path) for path in chosen.values() if path is not None and not path.exists()]:
        raise Refused(f"There is nothing at {', '.join(gone)}.")
    return chosen


def _split(words: Sequence[str]) -> tuple[dict[str, Path], list[Path]]:
    """Divides the options into folders by name, and folders without one."""
    named, unnamed = {}, []
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            unnamed.append(Path(word))
        elif name in DATA_SETS:
            named[name] = Path(path)
        else:
            raise Refused(f"--data {word}: there is no data set {name!r}; known are {', '.join(DATA_SETS)}.")
    return named, unnamed


def _explain(experiment: Experiment) -> str:
    wanted = " ".join(f"--data {name}=PATH" for name in experiment.needs)
    titles = ", ".join(DATA_SETS[name] for name in experiment.needs)
    return f"{experiment.name} needs {titles}: {wanted}. With --small any data set does, or none."


def register(client: Client, name: str, source: Path | None, follow: Follow) -> DataSet:
    """The data set, registered now or before. Folders are read where they lie, archives and drawn people sent."""
    given = "drawn people" if source is None else source.name
    called = f"{name}-{'drawn' if source is None else _digest(str(source.resolve()))}"
    answer = client.find(f"/datasets/{called}")
    if answer is None or answer["state"] == "invalid":
        answer = client.get(f"/datasets/{_send(client, called, source, seed=list(DATA_SETS).index(name))['id']}")
    if answer["state"] == "pending":
        follow(answer["job"], f"reading {given}")
        answer = client.get(f"/datasets/{answer['id']}")
    if answer["error"]:
        raise Refused(f"{given} cannot be used: {answer['error']['detail']} {answer['error']['hint']}")
    return DataSet(answer["id"], called, given, answer)


def _send(client: Client, called: str, source: Path | None, *, seed: int) -> Any:
    if source is not None and source.is_dir():
        return client.post("/datasets", {"name": called, "path": str(source.resolve())})
    if source is not None:
        return client.upload("/datasets", {"name": called}, source)
    with TemporaryDirectory(prefix="reid-drawn-") as folder:
        write_sample_data(Path(folder) / "people", identities=_DRAWN_PEOPLE, cameras=_DRAWN_CAMERAS, seed=seed)
        archive = shutil.make_archive(f"{folder}/people", "zip", f"{folder}/people")
        return client.upload("/datasets", {"name": called}, Path(archive))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
