"""The processes of `reid up`: each is started again when it dies, and all end together."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import typer

STOP_SECONDS = 4.0
"""Time that the parts have to end in order; what is left is killed, so that Ctrl-C is over within five seconds."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STEADY_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1


class Part:
    """One process. `start` makes it, again and again; a pause that doubles lies between its deaths and its starts.

    A part that has run for a minute has its first pause again.
    """

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name = name
        self._start = start
        self._pause = _FIRST_PAUSE
        self._start_at: float | None = None
        self._begin()

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def describe_end(self) -> str:
        """The end of the process in words: `api was killed by SIGKILL`."""
        status = self.process.returncode
        if status < 0:
            return f"{self.name} was killed by {signal.Signals(-status).name}"
        return f"{self.name} ended with status {status}"

    def revive(self) -> None:
        """Starts the process again where it has died and its pause is over; says so, once, when it is seen dead."""
        if not self.has_ended:
            return
        now = time.monotonic()
        if self._start_at is None:
            if now - self._began > _STEADY_SECONDS:
                self._pause = _FIRST_PAUSE
            typer.echo(f"{self.describe_end()}; it is started again in {self._pause:g} s.", err=True)
            self._start_at = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        elif now >= self._start_at:
            self._begin()

    def _begin(self) -> None:
        self.process = self._start()
        self._began, self._start_at = time.monotonic(), None


def python_part(name: str, words: Sequence[str], environment: Mapping[str, str]) -> Part:
    """A part that runs `python -m` with the words, in a session of its own, and ends with this process."""
    # -P: a folder called `service` where the command is given must not be taken for ours.
    command = [sys.executable, "-P", "-m", *words]

    def start() -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches this process only, which then stops the others in order.
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=end_with_parent
        )

    return Part(name, start)


def stop_together(parts: Sequence[Part], seconds: float = STOP_SECONDS) -> None:
    """Asks all parts to end, and kills those that have not after `seconds`."""
    for part in parts:
        if not part.has_ended:
            part.process.terminate()
    deadline = time.monotonic() + seconds
    for part in parts:
        try:
            part.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            part.process.kill()
            part.process.wait()


def end_with_parent() -> None:
    """In a new child: be told to end when `reid up` is killed, so that no port and no GPU stays taken."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
