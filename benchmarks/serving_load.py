"""Load for a search service over HTTP: clients that ask again as soon as they are answered, each on its connection."""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil


@dataclass(slots=True)
class Load:
    """The answers to a load: seconds of each and of their stages, and the service's processor time."""

    seconds: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    refused: int = 0
    wall: float = 0.0
    processor: float = 0.0

    def milliseconds(self, percent: float) -> float:
        return float(np.percentile(self.seconds, percent) * 1000)

    @property
    def per_second(self) -> float:
        return len(self.seconds) / self.wall

    @property
    def processor_ms(self) -> float:
        """Processor time of the service per answer, in milliseconds."""
        return 1000 * self.processor / len(self.seconds)

    def stage_ms(self, name: str) -> float:
        return float(np.median([stage.get(name, 0.0) for stage in self.stages])) if self.stages else 0.0


def form(image: bytes, fields: dict[str, str], name: str = "image") -> tuple[bytes, dict[str, str]]:
    """A multipart body with the image and the fields, and its header."""
    boundary = uuid.uuid4().hex
    start = f"--{boundary}\r\nContent-Disposition: form-data; name="
    parts = [f'{start}"{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()]
    head = f'{start}"{name}"; filename="a.jpg"\r\n\r\n'
    body = "".join(parts).encode() + head.encode() + image + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, Any]:
    """The status and the JSON of one answer."""
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    return response.status, json.loads(content) if content else None


def processor_seconds(pids: Sequence[int]) -> float:
    """Processor time that the processes and their children have used so far."""
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def run_load(
    port: int, images: Sequence[bytes], key: str, gallery: str, *, clients: int, seconds: float, pids: Sequence[int]
) -> Load:
    """Searches by `images` in turn, from as many connections as `clients`, for so many seconds."""
    load, lock = Load(), threading.Lock()
    bodies = [form(image, {"gallery": gallery}) for image in images]
    end = time.perf_counter() + seconds

    def search_again_and_again(number: int) -> None:
        connection, turn = http.client.HTTPConnection("127.0.0.1", port, timeout=120), number
        while time.perf_counter() < end:
            body, headers = bodies[turn % len(bodies)]
            started = time.perf_counter()
            status, answer = ask(connection, "POST", "/search", body, headers | {"X-API-Key": key})
            took = time.perf_counter() - started
            turn += clients
            with lock:
                if status == http.client.OK:
                    load.seconds.append(took)
                    if "timings_ms" in answer:
                        load.stages.append(answer["timings_ms"])
                else:
                    load.refused += 1

    processor, began = processor_seconds(pids), time.perf_counter()
    threads = [threading.Thread(target=search_again_and_again, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.wall, load.processor = time.perf_counter() - began, processor_seconds(pids) - processor
    return load
