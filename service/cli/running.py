"""The service that runs already and that the environment belongs to: reaching it, and leaving nothing in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from service.cli.client import OVER, Client, Refused
from service.cli.up import address_of, local_host
from service.home import holder_of
from service.settings import Settings

_STORES = {"database_url", "broker_url"}
_NEWEST = 200

_HINT = (
    "REID_DATABASE_URL or REID_BROKER_URL (or its _FILE) names a service that runs, and its API is looked for at "
    "REID_HOST and REID_PORT, its key in REID_HOME: start it, or set these to where it is. With none of the two URLs "
    "in the environment a service of its own is started."
)


def is_named(settings: Settings) -> bool:
    """True where the environment names a database or a broker: those of a service that others use, too."""
    return bool(settings.model_fields_set & _STORES)


def address_in(settings: Settings) -> str | None:
    """The address of the `reid up` that has this home now; None where none has it."""
    holder = holder_of(settings.home)
    return holder and holder.rpartition(" on ")[2]


@contextmanager
def connect(settings: Settings, address: str | None = None) -> Iterator[Client]:
    """Gives a client of that service with the admin key of its home, once it is ready; raises `Refused`.

    Without an address it is looked for at REID_HOST and REID_PORT.
    """
    try:
        key = settings.admin_key_path.read_text().strip()
    except OSError as error:
        raise Refused(f"{settings.admin_key_path}, the admin key, cannot be read: {error.strerror}. {_HINT}") from error
    address = address or address_of(local_host(settings), settings.port)
    with closing(Client(address, key)) as client:
        try:
            client.get("/datasets", limit=1)
        except Refused as error:
            raise Refused(f"{error} {_HINT}") from error
        client.wait_until_ready(lambda: True)
        yield client


def remove(client: Client, settings: Settings, paths: Sequence[str]) -> None:
    """Cancels the jobs about what is at the paths, deletes it in their order, and then the jobs' files.

    What is not there is passed over. Raises `Refused` with the paths where the service does not answer any more.
    """
    try:
        jobs = _jobs_about(client, [found["id"] for path in paths if (found := client.find(path))])
        for job in jobs:
            if job["state"] not in OVER:
                client.post(f"/jobs/{job['id']}/cancel", {})
                client.watch_job(job["id"], lambda _: None)
        for path in paths:
            client.delete(path)
    except Refused as error:
        raise Refused(f"{error} These may still be there, to be deleted: {', '.join(paths)}.") from error
    for job in jobs:
        shutil.rmtree(settings.jobs_dir / job["id"], ignore_errors=True)


def _jobs_about(client: Client, ids: Sequence[str]) -> list[Any]:
    """The newest jobs whose spec has one of the ids."""
    jobs = client.get("/jobs", limit=_NEWEST)["items"]
    return [job for job in jobs if any(f'"{found}"' in json.dumps(job["spec"]) for found in ids)]
