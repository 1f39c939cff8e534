"""Talking to a running service, as any client would."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from service.settings import is_loopback

_POLL_SECONDS = 0.2
_PAGE = 200
_KEPT_SECONDS = 1.0
"""An idle connection is used again for so long: well before the service closes it, which it does after five."""

OVER = ("succeeded", "failed", "cancelled")


class Refused(Exception):
    """The service answered with a problem, or not at all; the text is its detail and hint."""


class NoAnswer(Refused):
    """The service did not answer at all: it is not there, or no longer."""


class Client:
    """Requests with a key; answers are decoded, problems raised as `Refused`."""

    def __init__(self, address: str, key: str) -> None:
        # A proxy of the environment cannot reach this machine's own loopback.
        trust_env = not is_loopback(httpx.URL(address).host)
        headers = {"Authorization": f"Bearer {key}"}
        limits = httpx.Limits(keepalive_expiry=_KEPT_SECONDS)
        self._http = httpx.Client(base_url=address, headers=headers, timeout=120, trust_env=trust_env, limits=limits)

    def close(self) -> None:
        """Ends its connections."""
        self._http.close()

    def get(self, path: str, **parameters: Any) -> Any:
        return _decode(self._ask("GET", path, params=parameters))

    def find(self, path: str) -> Any | None:
        """The answer, or None where nothing is at `path`."""
        answer = self._ask("GET", path)
        return None if answer.status_code == httpx.codes.NOT_FOUND else _decode(answer)

    def pages(self, path: str, **parameters: Any) -> Iterator[Any]:
        """All items of a list, page by page."""
        page = {"items": [], "next_cursor": ""}
        while page["next_cursor"] is not None:
            after = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
            page = self.get(path, limit=_PAGE, **parameters, **after)
            yield from page["items"]

    def post(self, path: str, body: dict[str, Any], *, key: str | None = None) -> Any:
        """Posts the body; with the idempotency key `key` it is done once, however often it is sent."""
        return _decode(self._ask("POST", path, json=body, headers={"Idempotency-Key": key} if key else {}))

    def upload(self, path: str, fields: dict[str, str], archive: Path) -> Any:
        """Posts a form with the fields and the file `archive`."""
        with archive.open("rb") as file:
            return _decode(self._ask("POST", path, data=fields, files={"archive": (archive.name, file)}))

    def delete(self, path: str) -> None:
        """Deletes what is at `path`, if anything still is."""
        answer = self._ask("DELETE", path)
        if answer.is_error and answer.status_code != httpx.codes.NOT_FOUND:
            _decode(answer)

    def content(self, path: str, *, first: int = 0, last: int | None = None, **parameters: Any) -> bytes:
        """The bytes at `path`, from the one at `first` to the one at `last`; None: to the end."""
        headers = {"Range": f"bytes={first}-{last}"} if last is not None else {}
        answer = self._ask("GET", path, params=parameters, headers=headers)
        if answer.is_error:
            _decode(answer)
        return answer.content

    def wait_until_ready(self, alive: Callable[[], bool], seconds: float = 300.0) -> None:
        """Returns once the service can take work; raises `Refused` with its reasons when it cannot in time."""
        deadline, reason = time.monotonic() + seconds, "it does not answer"
        while time.monotonic() < deadline and alive():
            try:
                answer = self._http.get("/healthz/ready")
                if answer.status_code == httpx.codes.OK:
                    return
                reason = answer.text
            except httpx.TransportError as error:
                reason = str(error)
            time.sleep(_POLL_SECONDS)
        raise Refused(f"The service did not become ready: {reason}")

    def wait_for_job(self, job_id: str, on_progress: Callable[[dict[str, Any]], None]) -> Any:
        """The job once it is over; `on_progress` sees it meanwhile. Raises `Refused` unless it succeeded."""
        job = self.watch_job(job_id, on_progress)
        if job["state"] != "succeeded":
            error = job["error"] or {"detail": f"The job was {job['state']}.", "hint": ""}
            raise Refused(f"{error['detail']} {error['hint']}")
        return job

    def watch_job(self, job_id: str, on_progress: Callable[[dict[str, Any]], None]) -> Any:
        """The job once it is over, however it ended."""
        while True:
            job = self.get(f"/jobs/{job_id}")
            on_progress(job)
            if job["state"] in OVER:
                return job
            time.sleep(_POLL_SECONDS)

    def _ask(self, method: str, path: str, **words: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **words)
        except httpx.TransportError as error:
            raise NoAnswer(f"The service at {self._http.base_url} does not answer: {error}.") from error


def _decode(answer: httpx.Response) -> Any:
    if answer.is_error:
        problem = answer.json()
        raise Refused(f"{problem['title']}: {problem['detail']} {problem['hint']}")
    return answer.json()
