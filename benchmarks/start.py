"""A start, a small registration and the idle service, beside one import of torch and torchvision.

    python -m benchmarks.start --repeat 3

Prints Markdown. The unit is `python -c "import torch, torchvision"` of the same interpreter in the same run, warmed up
once; every row is the median of the repeats and its ratio to that unit. Each repeat starts `reid up` in an empty home,
asks `GET /datasets` until it is answered, waits until `/healthz/ready` says 200, and registers a folder of eight
images. Last, the idle service: proportional set size and processor time of all its processes together, read from
/proc over `--idle` seconds after a minute's rest.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from PIL import Image

_POLL_SECONDS = 0.01
_REST_SECONDS = 60.0


def main() -> None:
    options = parse_options()
    unit = statistics.median(import_seconds(options.guard) for _ in range(options.repeat + 1))
    rows: dict[str, list[float]] = {"GET /datasets answered": [], "ready": [], "registration of 8 images": []}
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory(prefix="reid-start-") as folder, running(Path(folder)) as service:
            rows["GET /datasets answered"].append(service.seconds_until_answered())
            rows["ready"].append(service.seconds_until_ready())
            rows["registration of 8 images"].append(service.registration_seconds())
    print("| what | seconds | ratio |\n|---|---|---|")
    print(f"| import torch, torchvision | {unit:.2f} | 1 |")
    for name, seconds in rows.items():
        print(f"| {name} | {statistics.median(seconds):.2f} | {statistics.median(seconds) / unit:.2f} |")
    if options.idle:
        print_idle(options.idle)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="starts, each in an empty home")
    parser.add_argument("--idle", type=float, default=60, help="seconds over which the idle service is watched; 0: not")
    parser.add_argument(
        "--guard",
        default="reid_core._torchvision_guard",
        help="a module imported first that makes torchvision importable beside a CPU build of PyTorch",
    )
    return parser.parse_args()


def import_seconds(guard: str) -> float:
    """Seconds of an interpreter that imports torch and torchvision and ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import torch, {guard}, torchvision"], check=True)
    return time.perf_counter() - began


class Running:
    """A `reid up` and the moment at which it was started."""

    def __init__(self, home: Path, port: int, process: subprocess.Popen[bytes], began: float) -> None:
        self._home, self._process, self._began = home, process, began
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    def seconds_until_answered(self) -> float:
        """From the start to the first 200 of `GET /datasets`."""
        key = self._home / "admin.key"
        self._wait(lambda: key.exists() and bool(key.read_text().strip()))
        self._http.headers["X-API-Key"] = key.read_text().strip()
        return self._wait(lambda: self._answers("/datasets"))

    def seconds_until_ready(self) -> float:
        """From the start to the first 200 of `/healthz/ready`."""
        return self._wait(lambda: self._answers("/healthz/ready"))

    def registration_seconds(self) -> float:
        """From `POST /datasets` to the state `ready`."""
        draw_images(self._home / "datasets" / "eight")
        began = time.perf_counter()
        made = self._http.post("/datasets", json={"name": "eight", "path": "eight"}).raise_for_status().json()
        while self._http.get(f"/datasets/{made['id']}").json()["state"] != "ready":
            if self._http.get(f"/jobs/{made['job']}").json()["state"] == "failed":
                raise RuntimeError(self._http.get(f"/jobs/{made['job']}").text)
            time.sleep(_POLL_SECONDS)
        return time.perf_counter() - began

    def processes(self) -> list[psutil.Process]:
        """`reid up` and all that it started."""
        mother = psutil.Process(self._process.pid)
        return [mother, *mother.children(recursive=True)]

    def _answers(self, path: str) -> bool:
        try:
            return self._http.get(path).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _wait(self, done: Callable[[], bool]) -> float:
        while not done():
            if self._process.poll() is not None:
                raise RuntimeError("reid up ended")
            time.sleep(_POLL_SECONDS)
        return time.perf_counter() - self._began


@contextmanager
def running(home: Path) -> Iterator[Running]:
    """`reid up` in `home`, stopped as Ctrl-C stops it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"REID_HOME": str(home), "REID_LOG_LEVEL": "warning", "REID_MIN_FREE_BYTES": "0"}
    command = [sys.executable, "-P", "-m", "service.cli", "up", "--port", str(port)]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield Running(home, port, process, began)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def draw_images(folder: Path) -> None:
    """Four people, each once in query and once in gallery, in Market-1501 layout."""
    for number in range(8):
        split = folder / ("query" if number % 2 else "bounding_box_test")
        split.mkdir(parents=True, exist_ok=True)
        name = f"{number // 2 + 1:04d}_c{number % 2 + 1}s1_{number:06d}_00.png"
        Image.effect_noise((64, 128), 20 + 20 * number).convert("RGB").save(split / name)


def print_idle(seconds: float) -> None:
    """Memory and processor time of a service that has nothing to do."""
    with tempfile.TemporaryDirectory(prefix="reid-start-") as folder, running(Path(folder)) as service:
        service.seconds_until_answered()
        service.seconds_until_ready()
        time.sleep(_REST_SECONDS)
        before, began = _processor_seconds(service.processes()), time.monotonic()
        time.sleep(seconds)
        processes = service.processes()
        share = (_processor_seconds(processes) - before) / (time.monotonic() - began)
        print("\n| process | PSS, MB |\n|---|---|")
        sizes = {process: process.memory_full_info().pss / 1e6 for process in processes}
        for process, size in sizes.items():
            print(f"| {' '.join(word for word in process.cmdline()[-4:])[-60:]} | {size:.0f} |")
        print(f"| all {len(sizes)} | {sum(sizes.values()):.0f} |")
        print(f"\nIdle: {100 * share:.2f} % of one core over {seconds:g} s.")


def _processor_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


if __name__ == "__main__":
    main()
