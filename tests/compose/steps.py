"""The steps of the compose test, in order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from tests.compose import readme
from tests.compose.looks import (
    all_there_is,
    answers,
    demand,
    events_of,
    finished,
    has_checkpoint,
    models_inside,
    names,
    wait,
)
from tests.compose.report import Report
from tests.compose.stack import NAME, Stack

REBUILD_SECONDS = 20.0
_TRAINING = {
    "kind": "train",
    "method": "bnneck",
    "dataset": "people",
    "init_from": None,
    "settings": {
        "backbone": "resnet18",
        "image": {"height": 128, "width": 64},
        "batch": {"identities": 8},
        "augmentation": {"padding": 5},
        "schedule": {"epochs": 12},
    },
}
_MIGRATION = """
revision = "{new}"
down_revision = "{old}"
def upgrade() -> None:
    from alembic import op
    op.execute("CREATE TABLE upgraded (id INTEGER)")
def downgrade() -> None:
    raise NotImplementedError
"""

_EARLIER = """
cd /volumes
cp redis-secret/password secrets/redis_password
cp postgres-secret/password secrets/postgres_password
rm redis-secret/* postgres-secret/*
chmod 644 secrets/*
chown -R 0:0 redis/*
"""


def build(stack: Stack, report: Report) -> None:
    """The first build, and what the image's parts take."""
    with report.step("first build") as row:
        stack.compose("build")
    with report.step("image size") as row:
        layers = stack.shell(f"docker history --no-trunc --human=false --format '{_LAYER}' {NAME}")
        sizes = {"base": 0, "dependencies": 0, "package": 0}
        for line in layers.splitlines():
            size, _, made_by = line.partition(" ")
            sizes[_part(made_by)] += int(size)
        row.note(f"{sum(sizes.values()) / 1e9:.2f} GB: " + ", ".join(f"{k} {v / 1e6:.0f} MB" for k, v in sizes.items()))
        row.note(stack.shell(f"docker run --rm --entrypoint sh {NAME} -c '{_LARGEST}'").replace("\n", ", ").strip(", "))


_LAYER = "{{.Size}} {{.CreatedBy}}"
_LARGEST = (
    'du -sm "$(python -c "import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))")"/* | '
    'sort -rn | head -8 | while read -r size path; do echo "${path##*/} $size MB"; done'
)


def _part(made_by: str) -> str:
    if "requirements.txt" in made_by:
        return "dependencies"
    return "package" if any(word in made_by for word in ("reid", "COPY", "/bin/sh -c python", "PIP_")) else "base"


def start(stack: Stack, report: Report) -> None:
    """The first start on empty volumes."""
    with report.step("`up` on empty volumes until all is healthy"):
        stack.compose("up", "--detach", "--wait")
    with report.step("ready for searches") as row, stack.client():
        row.note(stack.memory())
    with report.step("README: sample data into ./data"):
        stack.shell(readme.start_script(stack.folder / "README.md"))


def walk_through(stack: Stack, report: Report) -> None:
    """README's walk-through of the API, as it stands there."""
    with report.step("README: walk-through of the API") as row:
        stack.shell(readme.walk_through_script(stack.folder / "README.md", f"http://127.0.0.1:{stack.port}"))
        image = (stack.folder / "why.png").read_bytes()
        demand(image.startswith(b"\x89PNG"), f"why.png begins with {image[:20]!r}")
        with stack.client() as client:
            row.note(f"models {names(client, '/models')}, galleries {names(client, '/galleries')}")
        row.note(stack.memory())


def commands(stack: Stack, report: Report) -> None:
    """Every command of the command line in a container finds the stack's database and broker."""
    key = stack.admin_key()
    with report.step("`exec api reid migrate`") as row:
        said = stack.compose("exec", "-T", "api", "reid", "migrate")
        demand("key" not in said and stack.admin_key() == key, f"another admin key was made: {said}")
        row.note("same admin key")
    for words in ("api", "up"):
        with report.step(f"`exec api reid {words}` on another port") as row:
            stack.compose("exec", "--detach", "-e", "REID_PORT=8001", "api", "reid", words)
            models = wait(lambda: models_inside(stack, 8001, key), f"reid {words} does not answer")
            demand({"first", "matcher"} <= set(models), f"it has the models {models}")
            row.note(f"models {models}")
            stack.compose("restart", "api")
            _await_healthy(stack)
    with report.step("`exec api reid sample-data`") as row:
        stack.compose("exec", "-T", "api", "reid", "sample-data", "/tmp/drawn", "--identities", "4")
        drawn = stack.compose("exec", "-T", "api", "find", "/tmp/drawn", "-name", "*.jpg")
        row.note(f"{len(drawn.splitlines())} images")
    with report.step("`exec api reid demo`") as row, stack.client() as client:
        before = all_there_is(stack, client)
        said = stack.compose("exec", "-T", "api", "reid", "demo")
        sheet = stack.compose_bytes("exec", "-T", "api", "cat", "demo-out/contact-sheet.png")
        demand(sheet.startswith(b"\x89PNG"), f"the contact sheet begins with {sheet[:20]!r}")
        demand(all_there_is(stack, client) == before, "it leaves something behind")
        scores = [line.strip("\u2502 ") for line in said.splitlines() if "after training" in line]
        row.note(f"{' '.join(scores)}; data sets, models, galleries and their files as before")


def kill_training(stack: Stack, report: Report) -> None:
    """A training whose container is killed goes on from its checkpoint."""
    with report.step("training container killed in the middle") as row, stack.client() as client:
        job = client.post("/jobs", {**_TRAINING, "model_name": "survivor"})["id"]
        wait(lambda: has_checkpoint(stack, job), "the training writes no checkpoint")
        stack.compose("kill", "training")
        killed = client.get(f"/jobs/{job}")["progress"]
        stack.compose("up", "--detach", "--wait")
        ended = finished(client, job)
        events = events_of(client, job)
        steps = [event["data"]["resumed_at_step"] for event in events if event["event"] == "checkpoint"]
        demand(ended["attempt"] == 2 and len(steps) == 1, f"attempt {ended['attempt']}, checkpoints at {steps}")
        row.note(f"killed in epoch {killed['epoch']} of {killed['epochs']}, went on from step {steps[0]}")


def health(stack: Stack, report: Report) -> None:
    """The health checks' cost and what the logs hold."""
    with report.step("health check of a worker") as row:
        check = stack.config()["services"]["worker"]["healthcheck"]["test"][1].replace("$$", "$")
        timed = 'TIMEFORMAT="%U user, %S system"; { time sh -c "$0"; } 2>&1'
        row.note(f"processor seconds: {stack.compose('exec', '-T', 'worker', 'bash', '-c', timed, check).strip()}")
    with report.step("logs") as row:
        lines = stack.compose("logs", "--no-log-prefix", "--no-color", "api", "worker", "training").splitlines()
        odd = [line for line in lines if not line.startswith("{")]
        demand(odd == [], f"lines that are no JSON: {odd[:5]}")
        told = [json.loads(line) for line in lines]
        jobs = sum(line["event"].startswith("job ") for line in told)
        probes = sum(line.get("path", "").startswith("/healthz/live") for line in told)
        demand(jobs > 0 and probes == 0, f"{jobs} lines of jobs, {probes} of probes")
        row.note(f"{len(told)} lines of JSON, {jobs} of jobs, none of probes")


def down_and_up(stack: Stack, report: Report) -> None:
    """Checks that `down` and `up` keep models, galleries and searches, with volumes as an earlier version left them."""
    key = stack.admin_key()
    with stack.client() as client:
        before = answers(client)
    with report.step("`down`, containers removed"):
        stack.compose("down")
    with report.step("volumes made to be those of an earlier version") as row:
        stack.compose("run", "--rm", "-T", "--entrypoint", "bash", "backup", "-euc", _EARLIER)
        row.note("all secrets in one, Redis's files root's")
    with report.step("`up` on full volumes until all is healthy"):
        stack.compose("up", "--detach", "--wait")
    with report.step("admin key, models, galleries and a search as before") as row, stack.client() as client:
        demand(stack.admin_key() == key, "the admin key is another")
        demand(answers(client) == before, "the answers are others")
        row.note(stack.memory())


def scale(stack: Stack, report: Report) -> None:
    """Two trainings at a time, three replicas of the API."""
    ports = f"{stack.port}-{stack.port + 2}"
    with report.step("two trainings at a time, three replicas of the API") as row:
        words = ("up", "--detach", "--wait", "--scale", "training=2", "--scale", "api=3")
        stack.compose(*words, REID_PORT=ports)
        with stack.client() as client:
            jobs = [client.post("/jobs", {**_TRAINING, "model_name": name})["id"] for name in ("left", "right")]
            wait(lambda: [client.get(f"/jobs/{job}")["state"] for job in jobs] == ["running"] * 2, "one waits")
            for job in jobs:
                client.post(f"/jobs/{job}/cancel", {})
            first = answers(client)
        for port in range(stack.port + 1, stack.port + 3):
            with stack.client(port) as client:
                demand(answers(client) == first, f"the replica on {port} answers otherwise")
        row.note(f"both ran; three replicas on {ports} give the same answers")
        stack.compose("up", "--detach", "--wait", "--scale", "training=1", "--scale", "api=1")


def back_up(stack: Stack, report: Report) -> None:
    """A backup, everything lost, and the backup put back."""
    with stack.client() as client:
        before = answers(client)
    archive = stack.folder / "backup.tar"
    with report.step("backup: `stop`, `run backup -c`") as row:
        stack.compose("stop")
        archive.write_bytes(stack.compose_bytes("run", "--rm", "-T", "backup", "-c", "."))
        row.note(f"{archive.stat().st_size / 1e6:.0f} MB")
    with report.step("volumes deleted; restore: `run backup -x`, `up`") as row:
        stack.compose("down", "--volumes")
        stack.compose("run", "--rm", "-T", "backup", "-x", read=archive.read_bytes())
        stack.compose("up", "--detach", "--wait")
        with stack.client() as client:
            demand(answers(client) == before, "the answers are others than before the backup")


def upgrade(stack: Stack, report: Report) -> None:
    """A new version with a change of the schema takes over the same volumes."""
    with report.step("rebuild after a changed source file") as row:
        with (stack.folder / "service" / "main.py").open("a") as file:
            file.write("# changed\n")
        began = time.monotonic()
        stack.compose("build")
        took = time.monotonic() - began
        demand(took < REBUILD_SECONDS, f"it took {took:.0f} s")
    with stack.client() as client:
        before = answers(client)
    with report.step("upgrade with a migration, on the same volumes") as row:
        old, new = _add_migration(stack.folder / "service" / "db" / "migrations" / "versions")
        stack.compose("up", "--detach", "--wait", "--build")
        with stack.client() as client:
            demand(answers(client) == before, "the answers are others than before the upgrade")
        version = stack.compose("exec", "-T", "postgres", "psql", "-U", "reid", "-Atc", "SELECT * FROM alembic_version")
        demand(version.strip() == new, f"the schema is at version {version}")
        row.note(f"schema {old} to {new}")


def _add_migration(folder: Path) -> tuple[str, str]:
    old = max(path.name.partition("_")[0] for path in folder.glob("[0-9]*.py"))
    (folder / "9999_upgraded.py").write_text(_MIGRATION.format(new="9999", old=old))
    return old, "9999"


def _await_healthy(stack: Stack) -> None:
    stack.compose("up", "--detach", "--wait")


STEPS: tuple[Callable[[Stack, Report], None], ...] = (
    build,
    start,
    walk_through,
    commands,
    kill_training,
    health,
    down_and_up,
    scale,
    back_up,
    upgrade,
)
