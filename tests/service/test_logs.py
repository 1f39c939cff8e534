"""Log lines are JSON objects that carry the request's id, whoever writes them."""

from __future__ import annotations

import json
import subprocess
import sys

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
