"""`reid demo`: the main job once, against a service of its own that is gone afterwards.

Where the environment belongs to a service that runs, the demo is done in that one, and what it made is gone afterwards.
"""

from __future__ import annotations

import io
import secrets
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from rich.table import Table

from reid_core.sample_data import write_sample_data
from service.cli import running
from service.cli.client import Client, Refused
from service.cli.own import backbone_of, end_as_by_ctrl_c, start_service
from service.cli.progress import console, progress_bar
from service.cli.up import read_settings
from service.drawing.sheets import LEGEND, Tile, draw_sheet, fitted
from service.drawing.text import CROSS, TICK
from service.settings import Settings

SETTINGS: dict[str, Any] = {
    "backbone": "resnet18",
    "last_stride": 2,
    "image": {"height": 128, "width": 64},
    "batch": {"identities": 8},
    "augmentation": {"padding": 5},
    "schedule": {"epochs": 12, "base_lr": 1e-3, "warmup": 0.1, "decay_at": [0.6, 0.85]},
}
"""The recipe, made small enough for two processor cores and a few minutes."""

_QUERIES_SHOWN = 6
_RESULTS_SHOWN = 10


def draw_sample_data(out: Path, *, identities: int, cameras: int, seed: int) -> None:
    """Draws the data set with a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task(f"drawing {identities} people on {cameras} cameras", note="")
        write_sample_data(
            out,
            identities=identities,
            cameras=cameras,
            seed=seed,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(f"A data set in Market-1501 layout is in {out}")


def run(data: Path | None, weights: Path | None, out: Path) -> int:
    """The exit status: 0 when everything worked."""
    end_as_by_ctrl_c()  # ended in these ways, too, it leaves nothing behind
    settings, began = read_settings(), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="reid-demo-"))
    do = _in_running_service if running.is_named(settings) else _in_own_service
    try:
        do(settings, folder, data, weights, out)
    except Refused as error:
        console.print(f"[red]{error}[/red]")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"Done in {time.monotonic() - began:.0f} s; all that it made but the contact sheet is gone again.")
    return 0


def _in_own_service(_: Settings, home: Path, data: Path | None, weights: Path | None, out: Path) -> None:
    sample = home / "datasets" / "sample"
    drawing = None if data else partial(_draw, sample)
    folder = (data or sample).resolve().parent
    with start_service(home, [folder], weights and weights.resolve().parent, meanwhile=drawing) as client:
        _main_job(client, "demo", data or sample, weights, out)


def _in_running_service(settings: Settings, folder: Path, data: Path | None, weights: Path | None, out: Path) -> None:
    if weights is not None and weights.resolve().parent != settings.weights_dir.resolve():
        raise Refused(f"{weights} is not in {settings.weights_dir}, where the service looks for weights; put it there.")
    name = f"demo-{secrets.token_hex(3)}"
    with running.connect(settings) as client:
        console.print(f"In the service that runs here; what it makes is called {name} and deleted at the end")
        try:
            _main_job(client, name, data or _drawn_archive(folder), weights, out)
        finally:
            models = [f"/models/{name}-untrained", f"/models/{name}-trained"]
            running.remove(client, settings, [f"/galleries/{name}", *models, f"/datasets/{name}"])


def _draw(out: Path) -> None:
    draw_sample_data(out, identities=60, cameras=4, seed=0)


def _drawn_archive(folder: Path) -> Path:
    """Draws the data set into an archive: the service's own folders for data sets may be read-only here."""
    _draw(folder / "sample")
    return Path(shutil.make_archive(str(folder / "sample"), "zip", folder / "sample"))


def _main_job(client: Client, name: str, data: Path, weights: Path | None, out: Path) -> None:
    dataset = _register(client, name, data)
    start = {"init_from": {"weights": weights.name} if weights else None}
    settings = SETTINGS | ({"backbone": backbone_of(weights)} if weights else {})
    untrained = {**settings, "schedule": {**settings["schedule"], "epochs": 0}}
    _follow(
        client, _train(client, dataset, "untrained", {"settings": untrained, **start}), "saving the untrained network"
    )
    training = _train(client, dataset, "trained", {"settings": settings, **start})  # beside the first evaluation
    before = _evaluate(client, dataset, "untrained")
    _follow(client, training, "training bnneck")
    split = {"id": dataset["id"], "split": "gallery"}
    gallery = client.post("/galleries", {"name": name, "model": f"{name}-trained", "dataset": split})
    _print_scores(before, _evaluate(client, dataset, "trained"))  # while the gallery is indexed
    _follow(client, gallery["job"], "indexing the gallery")
    rows = _search(client, dataset, gallery["id"])
    out.mkdir(parents=True, exist_ok=True)
    sheet = out / "contact-sheet.png"
    title = f"Queries of {data.name} (left) and their best {_RESULTS_SHOWN} on other cameras, by a trained bnneck"
    sheet.write_bytes(draw_sheet([title, LEGEND], rows))
    console.print(f"Queries and their best {_RESULTS_SHOWN} ({LEGEND}) are in {sheet}")


def _register(client: Client, name: str, data: Path) -> Any:
    """Uploads an archive, has a folder read where it lies, and returns the data set."""
    if data.is_file():
        made = client.upload("/datasets", {"name": name}, data)
    else:
        made = client.post("/datasets", {"name": name, "path": str(data.resolve())})
    _follow(client, made["job"], "reading the data set")
    dataset = client.get(f"/datasets/{made['id']}")
    counts = ", ".join(f"{name}: {split['images']}" for name, split in dataset["splits"].items())
    console.print(f"{data.name} is a {dataset['format']} data set; images in {counts}")
    for finding in client.get(f"/datasets/{made['id']}/report")["findings"]:
        console.print(f"  {finding['severity']}: {finding['code']} ({finding['count']}): {finding['fix']}")
    return dataset


def _train(client: Client, dataset: Any, stage: str, changes: dict[str, Any]) -> str:
    """The id of the job, whose model is called after the data set and the stage."""
    name = f"{dataset['name']}-{stage}"
    body = {"kind": "train", "method": "bnneck", "dataset": dataset["id"], "model_name": name, **changes}
    return str(client.post("/jobs", body)["id"])


def _evaluate(client: Client, dataset: Any, stage: str) -> Any:
    model = f"{dataset['name']}-{stage}"
    job = client.post("/jobs", {"kind": "evaluate", "model": model, "dataset": dataset["id"]})
    return _follow(client, job["id"], f"evaluating the {stage} network")["result"]


def _print_scores(before: Any, after: Any) -> None:
    table = Table(title=f"{after['valid_queries']} queries in {after['gallery']} images of unseen people")
    for column in ("", "rank-1", "mAP", "mINP"):
        table.add_column(column)
    for name, result in (("before training", before), ("after training", after)):
        table.add_row(name, *(f"{value:.3f}" for value in (result["cmc"]["1"], result["mAP"], result["mINP"])))
    console.print(table)


def _search(client: Client, dataset: Any, gallery: str) -> list[list[Tile]]:
    """Asks for the same person on other cameras; prints the first answer whole, gives back all for the sheet."""
    queries = client.get(f"/datasets/{dataset['id']}/images", split="query", limit=200)["items"]
    rows = []
    for number, query in enumerate(queries[:: max(1, len(queries) // _QUERIES_SHOWN)][:_QUERIES_SHOWN]):
        answer = client.get(
            "/search", gallery=gallery, image_id=query["id"], top_k=_RESULTS_SHOWN, exclude_camera=query["camera"]
        )
        if number == 0:
            _print_answer(query, answer)
        content = client.content(f"/datasets/{dataset['id']}/images/{query['id']}/content")
        row = [_tile(content, query["identity"], query["camera"])]
        rows.append([*row, *(_result_tile(client, result, query["identity"]) for result in answer["results"])])
    return rows


def _result_tile(client: Client, result: Any, identity: str) -> Tile:
    known = {"score": result["score"], "prob.": result.get("probability")}
    lines = [f"{name} {value:.3f}" for name, value in known.items() if value is not None]
    content, right = client.content(result["links"]["image"]), result["identity"] == identity
    return _tile(content, result["identity"], result["camera"], *lines, right=right)


def _tile(content: bytes, identity: str | None, camera: str | None, *more: str, right: bool | None = None) -> Tile:
    with Image.open(io.BytesIO(content)) as image:
        return Tile(fitted(image), [identity or "nobody", f"camera {camera or 'none'}", *more], right)


def _print_answer(query: Any, answer: Any) -> None:
    table = Table(title=f"GET /search: person {query['identity']} of camera {query['camera']}, on other cameras")
    for column in ("rank", "score", "identity", "camera", "right"):
        table.add_column(column)
    for result in answer["results"]:
        mark = TICK if result["identity"] == query["identity"] else CROSS
        cells = (str(result["rank"]), f"{result['score']:.3f}", result["identity"], result["camera"], mark)
        table.add_row(*cells, style="blue" if mark == TICK else "yellow")
    console.print(table)
    console.print(f"answered in {answer['timings_ms']['total']:.1f} ms")


def _follow(client: Client, job_id: str, title: str) -> Any:
    with progress_bar() as bar:
        task = bar.add_task(title, total=1.0, note="")

        def show(job: Any) -> None:
            note = " ".join(f"{name} {value:.3f}" for name, value in job["metrics"].items() if name in ("loss", "mAP"))
            fraction = 1.0 if job["state"] == "succeeded" else job["progress"]["fraction"]
            bar.update(task, completed=fraction, note=note)

        return client.wait_for_job(job_id, show)
