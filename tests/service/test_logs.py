"""Log lines are JSON objects that carry the request's id, whoever writes them."""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import structlog

PROGRAM = """
import logging, structlog
from service.logs import configure_logging
configure_logging("info")
with structlog.contextvars.bound_contextvars(request_id="r-1"):
    structlog.get_logger("ours").info("request", path="/jobs", status=200)
    logging.getLogger("theirs").debug("too quiet")
    try:
        1 / 0
    except ZeroDivisionError as error:
        logging.getLogger("theirs").error("failed: %s", "why", exc_info=error)
"""


def test_both_kinds_of_loggers_write_json_with_the_request_id() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    ours, theirs = [json.loads(line) for line in done.stderr.splitlines()]
    assert (ours["event"], ours["path"], ours["status"], ours["level"]) == ("request", "/jobs", 200, "info")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("failed: why", "theirs", "error")
    assert "ZeroDivisionError" in theirs["exception"]
    assert ours["request_id"] == theirs["request_id"] == "r-1"
    assert ours["timestamp"].endswith("Z")
    assert done.stdout == ""


def test_probes_are_logged_only_when_they_fail(client: httpx.Client) -> None:
    with structlog.testing.capture_logs() as lines:
        for path in ("/healthz/live", "/v1/healthz/live", "/metrics", "/methods"):
            assert client.get(path).status_code == 200
        assert client.get("/healthz/ready").status_code == 503  # no worker is there
    assert [line["path"] for line in lines if line["event"] == "request"] == ["/methods", "/healthz/ready"]
