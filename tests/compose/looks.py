"""Looking at a stack from outside: what it has, what it answers, and waiting for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from service.cli.client import Client, Refused
from tests.compose.report import Failed
from tests.compose.stack import Stack

PATIENCE_SECONDS = 300.0


def models_inside(stack: Stack, port: int, key: str) -> list[str]:
    """The names of the models of an API that listens on `port` inside the API's container."""
    program = (
        "import json, sys, urllib.request as web; "
        f"ask = web.Request('http://127.0.0.1:{port}/models', headers={{'X-API-Key': sys.argv[1]}}); "
        "print(json.dumps([model['name'] for model in json.load(web.urlopen(ask))['items']]))"
    )
    models: list[str] = json.loads(stack.compose("exec", "-T", "api", "python", "-c", program, key))
    return models


def all_there_is(stack: Stack, client: Client) -> Any:
    """The names of data sets, models and galleries, and the files that belong to them and to jobs."""
    listed = [names(client, path) for path in ("/datasets", "/models", "/galleries")]
    folders = "cd /var/lib/reid; find uploads models galleries jobs -type f | sort"
    return listed, stack.compose("exec", "-T", "api", "sh", "-c", folders)


def answers(client: Client) -> Any:
    """Lists what must survive: the models, the galleries and a search's results."""
    image = client.get("/datasets/people/images", split="query", limit=1)["items"][0]["id"]
    found = client.get("/search", gallery="lobby", image_id=image, top_k=5)["results"]
    results = [(result["links"]["image"], round(result["score"], 5)) for result in found]
    return names(client, "/models"), names(client, "/galleries"), results


def names(client: Client, path: str) -> list[str]:
    """The sorted names in the listing at `path`."""
    return sorted(item["name"] for item in client.get(path)["items"])


def events_of(client: Client, job: str) -> list[Any]:
    """The events of the job so far."""
    lines = client.content(f"/jobs/{job}/events").decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith('data: {"id"')]


def finished(client: Client, job: str) -> Any:
    """The job once it has succeeded; raises `Failed` where it ends otherwise."""
    try:
        return client.wait_for_job(job, lambda _: None)
    except Refused as error:
        raise Failed(f"the job did not succeed: {error}") from error


def has_checkpoint(stack: Stack, job: str) -> bool:
    """True once the job's folder has a checkpoint."""
    return "checkpoint" in stack.compose("exec", "-T", "training", "find", f"/var/lib/reid/jobs/{job}")


def wait(look: Callable[[], Any], why: str) -> Any:
    """Returns the value of `look` once it is true; errors count as not yet. Raises `Failed` with the last of them."""
    deadline, error = time.monotonic() + PATIENCE_SECONDS, ""
    while time.monotonic() < deadline:
        try:
            if seen := look():
                return seen
        except (Failed, Refused) as failed:
            error = str(failed)
        time.sleep(0.5)
    raise Failed(f"{why} {error}")


def demand(holds: bool, otherwise: str) -> None:
    """Raises `Failed` with the text unless the first holds."""
    if not holds:
        raise Failed(otherwise)
