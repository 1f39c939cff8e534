"""Charts over the API: they show the figures that they are made of, as PNG and as SVG."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
from PIL import Image

from reid_core.calibration.curves import Curve
from reid_core.calibration.folds import Bin, HeldOutFit
from reid_core.calibration.record import FILE_NAME, Calibration, write_calibrations
from reid_core.calibration.shift import Mean, Origin, Summary
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Dataset, Evaluation, Job, JobDataset, JobMetric, Model
from service.drawing.colours import BLUE, NEUTRAL, SCALE, SERIES
from service.evaluations.queries import QueryResults, write_results
from service.keys.lifecycle import create_key
from service.settings import Settings
from tests.service.colour_vision import VISIONS, as_seen, lab, too_close
from tests.service.galleries.stock import add_model_row

HOSTILE = "<img src=x onerror=alert(1)>&\"'$\\frac{1}{2}$ " + "long " * 60
MODEL, MATCHER, DATASET = "mdl_1", "mdl_2", "ds_1"

RESULTS = QueryResults(
    queries=[0, 1, 2, 3, 4],
    people=[0, 0, 1, 2, 3],
    matches=[1, 1, 2, 1, 0],
    average_precision=[0.5, 1.0, 0.75, 0.25, None],
    first_rank=[2, 1, 1, 4, 0],
    first=[[0]] * 5,
    scores=[[0.9]] * 5,
)
VERIFICATION = {
    "tpr": {"0.01": 0.951, "0.001": 0.862, "0.0001": 0.703},
    "threshold": {"0.01": 0.4, "0.001": 0.5, "0.0001": 0.6},
    "curve": [[0.0, 0.3], [1e-5, 0.5], [1e-4, 0.703], [1e-3, 0.862], [1e-2, 0.951], [1.0, 1.0]],
    "matching_pairs": 64,
    "impostor_pairs": 18560,
}

METRICS = {
    "mAP": 0.625,
    "mINP": 0.5,
    "cmc": {"1": 0.5, "5": 1.0, "10": 1.0},
    "valid_queries": 4,
    "queries": 5,
    "gallery": 12,
    "interval": {"mAP": [0.414, 0.832], "rank1": [0.123, 0.877]},
    "verification": VERIFICATION,
}


@pytest.fixture(autouse=True)
def _rows(database: Database) -> None:
    add_model_row(database, MODEL, "lobby-r18")
    add_model_row(database, MATCHER, "matcher")
    with database.write() as session:
        session.add(Dataset(id=DATASET, name="people", path="/", format="auto", state="ready", uploaded=False))


def add_evaluation(database: Database, settings: Settings, *, kept: bool = True, **changes: Any) -> str:
    """An evaluation of five queries, of which four have a match."""
    job_id, identifier = new_id("job"), new_id("eval")
    row = {"model_id": MODEL, "dataset_id": DATASET, "rerank": "none", "metrics": METRICS, "protocol": {}} | changes
    with database.write() as session:
        session.add(Job(id=job_id, kind="evaluate", spec={}, state="succeeded"))
        session.flush()
        session.add(Evaluation(id=identifier, job_id=job_id, **row))
    if kept:
        write_results(settings.jobs_dir / job_id, RESULTS)
    return identifier


def add_calibration(settings: Settings, model: str = MODEL, rerank: str = "none") -> None:
    bins = (Bin(0.0, 0.1, 0.04, 0.06, 0.6), Bin(0.9, 1.0, 0.97, 0.93, 0.4))
    fit = HeldOutFit(Curve("logistic", (0.0, 1.0), (-3.0, 3.0)), {"logistic": 0.2}, 0.0281, bins)
    facts = {"name": "held-out", "identities": 40, "images": 320, "same_pairs": 960, "different_pairs": 40160}
    folder = settings.models_dir / model
    folder.mkdir(parents=True)
    origin = Origin(Summary(Mean(np.zeros(4), 0.1, 40)), 2.0, 8)
    write_calibrations(folder / FILE_NAME, {rerank: Calibration(rerank, fit, origin, facts)})


def add_training(database: Database, curves: dict[str, list[tuple[int, float | None]]], **spec: Any) -> str:
    job_id = new_id("job")
    with database.write() as session:
        session.add(Job(id=job_id, kind="train", spec={"method": "bnneck", **spec}, state="running"))
        session.flush()
        session.add(JobDataset(job_id=job_id, dataset_id=DATASET))
        for name, points in curves.items():
            session.add_all(JobMetric(job_id=job_id, name=name, step=step, value=value) for step, value in points)
    return job_id


def texts(client: httpx.Client, path: str) -> list[str]:
    """The words of an SVG, each piece by itself."""
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml"), answer.text
    root = ElementTree.fromstring(answer.text)
    return ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]


def pixels(client: httpx.Client, path: str) -> np.ndarray:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    with Image.open(io.BytesIO(answer.content)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(drawn: np.ndarray, colour: str) -> int:
    """Pixels of that colour, up to rounding."""
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return int((abs(drawn - wanted) <= 1).all(axis=2).sum())


def meaning_colours(client: httpx.Client, path: str) -> set[str]:
    """The colours of lines and areas that an SVG really has, without paper and ink."""
    found = re.findall(r"(?:stroke|fill): (#[0-9a-f]{6})", client.get(path).text)
    return set(found) & {*SERIES, NEUTRAL}


def test_the_cmc_shows_its_figures_and_an_interval_at_every_rank(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    evaluation = add_evaluation(database, settings)
    path = client.get(f"/v1/evaluations/{evaluation}").json()["links"]["cmc"]
    assert path == f"/v1/evaluations/{evaluation}/cmc.png"
    words = texts(client, path.replace(".png", ".svg"))
    assert "CMC: model lobby-r18, data set people" in words
    assert "re-ranking none; 4 of 5 queries with a match, 12 images" in words
    assert "mAP 0.625 [0.414, 0.832]; rank-1 0.500 [0.123, 0.877]; 95 % interval over people shaded" in words
    assert {"rank (images looked at)", "queries with a match up to that rank (share)"} <= set(words)
    assert [words.count(value) for value in ("0.500", "1.000")] == [1, 2]
    drawn = pixels(client, path)
    assert drawn.shape == (662, 936, 3)
    shade = "#cce3ef"  # a fifth of the line's blue on white
    old = add_evaluation(database, settings, kept=False)
    assert count(drawn, shade) > 5000
    assert count(pixels(client, f"/evaluations/{old}/cmc.png"), shade) < 100  # edges of letters
    assert any("interval of rank 1 alone" in line for line in texts(client, f"/evaluations/{old}/cmc.svg"))


def test_the_curve_rises_where_the_queries_find_their_match(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    svg = client.get(f"/evaluations/{add_evaluation(database, settings)}/cmc.svg").text
    lines = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: #0072b2', svg)
    heights = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", lines[0])]
    shares = [(heights[0] - height) / (heights[0] - heights[-1]) for height in heights]
    # Of four queries with a match two find it at rank 1, one at 2, one at 4: from one half, which is drawn as 0, to 1.
    assert shares[:4] == pytest.approx([0, 0.5, 0.5, 1], abs=1e-3)


def test_the_roc_shows_its_rates(client: httpx.Client, database: Database, settings: Settings) -> None:
    evaluation = add_evaluation(database, settings)
    words = texts(client, f"/evaluations/{evaluation}/roc.svg")
    assert "ROC: model lobby-r18, data set people" in words
    assert {"0.951 at 0.01", "0.862 at 0.001", "0.703 at 0.0001", "1e−06", "0.1", "1"} <= set(words)
    assert any("64 pairs of one person, 18,560 of two" in line for line in words)
    assert count(pixels(client, f"/evaluations/{evaluation}/roc.png"), BLUE) > 500


def test_where_only_candidates_are_matched_there_is_no_roc(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    metrics = {"mAP": 0.5, "cmc": {"1": 0.5}, "valid_queries": 4, "mINP": 0.25, "queries": 5, "gallery": 12}
    evaluation = add_evaluation(database, settings, metrics=metrics | {"interval": {}, "verification": None})
    answer = client.get(f"/evaluations/{evaluation}/roc.png")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
    assert "candidates" in answer.json()["hint"]
    assert "roc" not in client.get(f"/evaluations/{evaluation}").json()["links"]
    assert client.get(f"/evaluations/{evaluation}/cmc.png").status_code == 200


def test_reliability_is_that_of_the_calibration_by_which_searches_would_judge(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    add_calibration(settings)
    add_calibration(settings, MATCHER, "qaconv")
    words = texts(client, f"/evaluations/{add_evaluation(database, settings)}/reliability.svg")
    assert "Reliability: model lobby-r18, re-ranking none" in words
    assert {"data set held-out", "40 people, 320 images, 960 pairs of one person, 40160 of two"} <= set(words)
    assert any("expected calibration error 0.028" in line for line in words)
    matched = add_evaluation(database, settings, rerank="qaconv", reranker_id=MATCHER)
    of_matcher = texts(client, f"/evaluations/{matched}/reliability.svg")
    assert "Reliability: model matcher, re-ranking qaconv" in of_matcher
    assert (
        client.get("/models/matcher/reliability.svg?rerank=qaconv").text
        == client.get(f"/evaluations/{matched}/reliability.svg").text
    )
    drawn = pixels(client, "/models/lobby-r18/reliability.png")
    assert drawn.shape == (892, 806, 3)
    assert count(drawn, BLUE) > 3000  # bars
    missing = client.get("/models/matcher/reliability.png")
    assert missing.status_code == 404
    assert "it has qaconv" in missing.json()["detail"]
    assert "calibrate" in missing.json()["hint"]


def test_the_matrix_has_values_and_intervals_in_its_cells(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    assert client.get("/evaluations/matrix.png").status_code == 404
    add_evaluation(database, settings)
    add_evaluation(database, settings, model_id=MATCHER, dataset_id="ds_gone", rerank="qaconv+k_reciprocal")
    words = texts(client, "/evaluations/matrix.svg")
    assert words.count("mAP 0.625 [0.41, 0.83]") == 2
    assert words.count("rank-1 0.500 [0.12, 0.88]") == 2
    assert {"lobby-r18", "matcher", "people", "ds_gone", "model", "data set", "mAP (share, 0 to 1)"} <= set(words)
    assert "4 queries, qaconv+k" in words
    assert words.count("evaluated") == 2  # of the two pairs that were not
    assert client.get("/v1/evaluations/matrix.svg").status_code == 200


def test_papers_numbers_are_rows_of_their_own_with_their_source(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    with database.write() as session:
        session.get_one(Dataset, DATASET).detected_format = "market1501"
    add_evaluation(database, settings)
    quoted = client.get("/evaluations/matrix").json()["quoted"]
    words = texts(client, "/evaluations/matrix.svg")
    rows = [line for line in words if line.startswith("quoted [")]
    assert len(rows) == min(20, len(quoted)) > 3
    assert f"not shown: {len(quoted) - 20} rows of papers; the JSON has all" in words
    assert any(line.startswith(f"[1] quoted: {quoted[0]['source'][:20]}") for line in words)
    assert f"mAP {quoted[0]['mAP']:.3f}" in words
    drawn = pixels(client, "/evaluations/matrix.png")
    assert (drawn[:, -3:] == 255).all()


def test_a_matrix_of_many_models_says_what_it_leaves_out(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    for number in range(43):
        add_model_row(database, f"mdl_9{number:02}", f"model-{number}")
        add_evaluation(database, settings, kept=False, model_id=f"mdl_9{number:02}")
    words = texts(client, "/evaluations/matrix.svg")
    assert "not shown: 3 models; the JSON has all" in words
    assert {"model-3", "model-42"} <= set(words)
    assert "model-2" not in words


def test_each_curve_of_a_job_has_axes_of_its_own(client: httpx.Client, database: Database) -> None:
    curves: dict[str, list[tuple[int, float | None]]] = {
        "loss": [(step, 8 / step) for step in range(1, 1001)],
        "triplet_loss": [(1, 1.0), (2, 0.5)],
        "new_people_rank1": [(500, 0.25), (1000, 0.75)],
        "learning_rate": [(1, 1e-3), (2, 1e-3)],
    }
    job = add_training(database, curves, model_name="lobby-r18")
    path = client.get(f"/v1/jobs/{job}").json()["links"]["curves"]
    words = texts(client, path.replace(".png", ".svg"))
    assert "Curves: model lobby-r18, data set people" in words
    assert f"bnneck train job {job}, running" in words
    assert [word for word in words if word in curves] == ["loss", "triplet_loss", "learning_rate", "new_people_rank1"]
    assert words.count("step (batches), mean of 3 points") == 1
    assert words.count("step (batches)") == 3
    assert (words.count("loss (no unit)"), words.count("share (0 to 1)")) == (2, 1)
    drawn = pixels(client, path)
    assert drawn.shape == (763, 1382, 3)
    assert count(drawn[:, :460], BLUE) > 200
    assert client.get(f"/jobs/{add_training(database, {})}/curves.png").status_code == 404


@pytest.mark.parametrize("format", ["png", "svg"])
def test_names_are_shown_as_they_stand_and_cut(
    client: httpx.Client, database: Database, settings: Settings, format: str
) -> None:
    with database.write() as session:
        session.get_one(Dataset, DATASET).name = HOSTILE
        session.get_one(Model, MODEL).name = f"W{HOSTILE}"
    metrics = METRICS | {"valid_queries": 11659, "queries": 11659, "gallery": 82161}
    protocol = {"open_set": {"share": 0.5, "seed": 0}}
    evaluation = add_evaluation(database, settings, rerank="qaconv+k_reciprocal", metrics=metrics, protocol=protocol)
    add_evaluation(database, settings)
    job = add_training(database, {"loss": [(1, 1.0)], "大\x00\x07厅": [(1, 1.0)]}, model_name=HOSTILE)
    for path in (f"/evaluations/{evaluation}/cmc", "/evaluations/matrix", f"/jobs/{job}/curves"):
        answer = client.get(f"{path}.{format}")
        assert answer.status_code == 200, answer.text
        if format == "png":
            drawn = pixels(client, f"{path}.png")
            assert (drawn[:, -3:] == 255).all(), "a title is cut off by the edge"
        else:
            assert "<img" not in answer.text
            words = texts(client, f"{path}.svg")
            assert any("<img src=x" in line and "…" in line for line in words)
            assert max(map(len, words)) < 200
    if format == "svg":
        assert "\\u5927\\x00\\x07\\u5385" in words


def test_a_chart_is_sent_once(client: httpx.Client, database: Database, settings: Settings) -> None:
    for format in ("png", "svg"):
        path = f"/evaluations/{add_evaluation(database, settings)}/cmc.{format}"
        first = client.get(path)
        assert first.headers["cache-control"] == "private, no-cache"
        assert first.headers["x-content-type-options"] == "nosniff"
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert set(re.findall("font-family: ([^;]*)", first.text)) == {"'DejaVu Sans', sans-serif"}
    assert "sandbox" in first.headers["content-security-policy"]


def test_charts_are_for_those_who_may_read(client: httpx.Client, database: Database, settings: Settings) -> None:
    evaluation = add_evaluation(database, settings)
    with database.write() as session:
        keys = [create_key(session, name=scope, scopes=[scope])[1] for scope in ("read", "search")]
    statuses = [
        client.get(f"/evaluations/{evaluation}/cmc.png", headers={"Authorization": f"Bearer {key}"}).status_code
        for key in keys
    ]
    assert statuses == [200, 403]
    assert client.get("/evaluations/eval_no/cmc.png").status_code == 404
    assert client.get(f"/evaluations/{evaluation}/cmc.gif").status_code == 422


def test_colours_that_mean_something_differ_for_every_kind_of_colour_vision(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    add_calibration(settings)
    evaluation = add_evaluation(database, settings)
    drawn = {
        chart: meaning_colours(client, f"/evaluations/{evaluation}/{chart}.svg") for chart in ("roc", "reliability")
    }
    assert drawn == {"roc": {BLUE, NEUTRAL, SERIES[-1]}, "reliability": {BLUE, NEUTRAL, SERIES[-1]}}
    assert [too_close(colours) for colours in (*drawn.values(), SERIES)] == [[], [], []]
    assert too_close(["#d62728", "#8c6d1f"]) != []  # a red and a brown, which it has to refuse


def test_cells_get_lighter_with_the_value_for_every_kind_of_colour_vision() -> None:
    import matplotlib

    colours = matplotlib.colormaps[SCALE](np.linspace(0, 1, 21))[:, :3] * 255
    for vision in VISIONS:
        lightness = lab(as_seen(colours, vision))[:, 0]
        assert np.diff(lightness).min() > 2, vision


def test_nothing_on_the_machine_changes_a_chart(tmp_path: Path) -> None:
    program = (
        "import sys; from service.drawing.charts import Chart\n"
        "drawn = Chart(lambda figure: figure.subplots().plot([1, 2]), 3, 2).render('svg')\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
        "sys.stdout.buffer.write(drawn)"
    )
    (tmp_path / "matplotlibrc").write_text("font.family: serif\nlines.linewidth: 9\nsvg.fonttype: path\n")
    root = str(Path(__file__).parents[2])
    plain, elsewhere = (
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            env={"PYTHONPATH": root, "HOME": str(tmp_path)},
            capture_output=True,
        )
        for folder in (root, tmp_path)
    )
    assert plain.returncode == elsewhere.returncode == 0, elsewhere.stderr
    assert plain.stdout == elsewhere.stdout
