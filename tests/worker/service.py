"""A whole service as users start it, `reid up`, for tests that kill parts of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.service.serving import open_client
from tests.waiting import HANG_SECONDS, wait_until


class Service:
    """Starts `reid up` in a home folder, stops or kills it, and talks to it."""

    def __init__(self, home: Path, data: Path, **settings: str) -> None:
        self.home = home
        self.port = _free_port()
        self.environment = os.environ | {
            "REID_HOME": str(home),
            "REID_DATA_ROOTS": str(data),
            "REID_LOG_LEVEL": "warning",
            # Longer than a busy machine may stall a process: a living attempt must not be taken for a lost one.
            "REID_LEASE_SECONDS": "15",
            "REID_CHECKPOINT_SECONDS": "1",
            "REID_MIN_FREE_BYTES": "0",
            "REID_THREADS": "1",
            **settings,
        }
        self._output = home.with_name(f"{home.name}-output.txt")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once the service can take work."""
        if self._process is not None:
            self.http.close()
            self._process.wait(HANG_SECONDS)
        command = [sys.executable, "-P", "-m", "service.cli", "up", "--port", str(self.port)]
        with self._output.open("ab") as output:
            said_before = output.tell()
            self._process = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=output, start_new_session=True
            )
        # Its own word too: until it has seen that all is ready, it takes a part that dies for one that cannot start.
        wait_until(lambda: self.is_ready() and "Ready: " in self.output()[said_before:], why=self.output)
        key = (self.home / "admin.key").read_text().strip()
        self.http = open_client(self.address, {"X-API-Key": key})

    def recover(self, *words: str) -> None:
        """Returns once the service can take work again, after the part whose command line has the words was killed.

        Where `reid up` ended with it, it is started anew; where it puts another in its place, that is waited for.
        """
        assert self._process is not None
        up = self._process
        wait_until(lambda: up.poll() is not None or bool(self.processes(*words) and self._answers_ready()))
        if up.poll() is not None:
            self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def output(self) -> str:
        """All that its processes have said so far."""
        return self._output.read_bytes().decode("latin-1")  # a byte is a character, so that sizes are places

    def stop(self) -> None:
        """Ends it as Ctrl-C does."""
        assert self._process is not None
        self.http.close()
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(HANG_SECONDS) == 0

    def kill_everything(self) -> None:
        """Kills every process, as a power cut does."""
        self.http.close()
        for process in self.processes():
            process.kill()
        wait_until(lambda: not self.processes())
        assert self._process is not None
        self._process.wait(HANG_SECONDS)

    def processes(self, *words: str) -> list[psutil.Process]:
        """The living processes of this service whose command line has all the words."""
        found = []
        for process in psutil.process_iter():
            try:
                line = process.cmdline()
                ours = process.environ().get("REID_HOME") == str(self.home)
                if ours and process.status() != psutil.STATUS_ZOMBIE and all(word in line for word in words):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def broker(self) -> psutil.Process:
        """The embedded broker, whose command line is not the one it was started by."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children()
        (broker,) = [child for child in children if child.status() != psutil.STATUS_ZOMBIE and "valkey" in child.name()]
        return broker

    def post(self, path: str, body: dict[str, Any] | None = None, expect: int = 202) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self.http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def job(self, job_id: str) -> Any:
        return self.get(f"/jobs/{job_id}")

    def wait_for(self, job_id: str, *states: str) -> Any:
        """The job once it is in one of the states."""
        wait_until(lambda: self.job(job_id)["state"] in states, why=lambda: self._explain(job_id))
        return self.job(job_id)

    def register(self, name: str, folder: Path) -> str:
        """The id of a ready data set."""
        made = self.post("/datasets", {"name": name, "path": str(folder)})
        self.wait_for(made["job"], "succeeded")
        return str(made["id"])

    def is_ready(self) -> bool:
        """True when it can take work; an AssertionError once it has ended."""
        assert self._process is not None
        assert self._process.poll() is None, f"reid up ended: {self.output()}"
        return self._answers_ready()

    def _answers_ready(self) -> bool:
        try:
            return httpx.get(f"{self.address}/healthz/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _explain(self, job_id: str) -> str:
        return f"{self.job(job_id)} {self.http.get(f'/jobs/{job_id}/logs').text[-2000:]}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
