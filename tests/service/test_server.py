"""Requests that begin and do not go on end by themselves, and hold nobody else up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from service.db.session import open_database
from service.jobs import enqueue
from service.main import create_app
from service.server import MAX_HEADER_BYTES, MAX_UNREAD_BYTES
from service.settings import Settings
from tests.service.serving import open_client, serve
from tests.waiting import HANG_SECONDS

CONNECTIONS = 900
LIMIT_SECONDS = 1.0
REST = b"Host: here\r\nX-API-Key: %s\r\nContent-Type: application/json\r\n"
HALVES = {
    "nothing": b"",
    "half a line": b"GET /meth",
    "half a header": b"GET /methods HTTP/1.1\r\nHost: he",
    "half a body": b"POST /api-keys HTTP/1.1\r\n" + REST + b'Content-Length: 1000\r\n\r\n{"name": ',
    "half a chunk": b"POST /api-keys HTTP/1.1\r\n" + REST + b"Transfer-Encoding: chunked\r\n\r\n8\r\n{",
    "half a body that is refused": b"POST /api-keys HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{",
    "half a second request": b"GET /healthz/live HTTP/1.1\r\nHost: here\r\n\r\nGET /hea",
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    limits = {"header_seconds": LIMIT_SECONDS, "body_seconds": LIMIT_SECONDS, "body_bytes_per_second": 10**6}
    return settings.model_copy(update=limits)


@pytest.fixture
def address(settings: Settings) -> Iterator[str]:
    with serve(create_app(settings)) as address:
        yield address


@pytest.fixture
def key(address: str, settings: Settings) -> bytes:
    return settings.admin_key_path.read_bytes().strip()


@pytest.mark.parametrize("half", HALVES)
def test_a_half_sent_request_ends_in_time(address: str, key: bytes, half: str) -> None:
    started = time.monotonic()
    with begin(address, HALVES[half].replace(b"%s", key)) as connection:
        rest = read_to_end(connection)
    assert time.monotonic() - started > 0.9 * LIMIT_SECONDS  # timers count whole milliseconds
    if half in ("half a body", "half a chunk"):
        assert b"408 Request Timeout" in rest
        assert b"REID_BODY_SECONDS = 1" in rest
    if half == "half a body that is refused":
        assert b"401 Unauthorized" in rest


def test_a_crowd_of_half_sent_requests_holds_nobody_up(address: str, key: bytes) -> None:
    starts = [start.replace(b"%s", key) for start in HALVES.values()]
    connections = [begin(address, starts[number % len(starts)]) for number in range(CONNECTIONS)]
    with open_client(address, {"X-API-Key": key.decode()}) as client:
        assert client.get("/methods").status_code == 200
    for connection in connections:
        read_to_end(connection)
        connection.close()


def test_a_body_that_comes_at_a_fair_pace_may_take_longer(settings: Settings) -> None:
    slow = settings.model_copy(update={"body_bytes_per_second": 10})
    with serve(create_app(slow)) as address, open_client(address) as client:
        key = settings.admin_key_path.read_text().strip()

        def pieces() -> Iterator[bytes]:
            yield b'{"name": "camera", ' + b" " * 100
            time.sleep(1.5 * LIMIT_SECONDS)
            yield b'"scopes": ["read"]}'

        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        assert client.post("/api-keys", content=pieces(), headers=headers).status_code == 201


def test_headers_without_an_end_are_cut_off(address: str) -> None:
    with begin(address, b"GET /methods HTTP/1.1\r\nX-A: ") as connection, pytest.raises(ConnectionError):
        connection.sendall(1000 * MAX_HEADER_BYTES * b"a")


def test_a_refused_body_is_let_out_of_the_way_but_not_for_ever(address: str) -> None:
    start = HALVES["half a body that is refused"]
    with begin(address, start) as connection:
        assert b"401 Unauthorized" in connection.recv(65536)
        connection.sendall(999 * b"x")
        assert read_to_end(connection) == b""
    with begin(address, start.replace(b"1000", b"1000000000")) as connection:
        assert b"401 Unauthorized" in connection.recv(65536)
        with pytest.raises(ConnectionError):
            connection.sendall(100 * MAX_UNREAD_BYTES * b"x")


def test_a_connection_is_kept_for_the_next_request(address: str) -> None:
    with open_client(address) as client:
        streams = set()
        for _ in range(3):
            answer = client.get("/healthz/live")
            streams.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
            time.sleep(LIMIT_SECONDS)
    assert len(streams) == 1


def begin(address: str, start: bytes) -> socket.socket:
    parts = urlsplit(address)
    connection = socket.create_connection((parts.hostname, parts.port), HANG_SECONDS)
    connection.sendall(start)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """Reads until the other side closes the connection."""
    read = b""
    while piece := connection.recv(65536):
        read += piece
    return read


def test_a_stream_ends_when_the_server_stops_and_nothing_is_taken_for_an_error(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    begun = threading.Event()

    def follow(address: str, job: str) -> list[str]:
        key = settings.admin_key_path.read_text().strip()
        with open_client(address, {"X-API-Key": key}) as client, client.stream("GET", f"/jobs/{job}/events") as answer:
            return [line for line in answer.iter_lines() if begun.set() is None]

    with ThreadPoolExecutor() as pool:
        with serve(create_app(settings)) as address:
            database = open_database(settings.database_url)
            with database.write() as session:
                job = enqueue(session, "train", {}).id
            following = pool.submit(follow, address, job)
            assert begun.wait(HANG_SECONDS)
        lines = following.result(HANG_SECONDS)
        database.close()
    assert "event: queued" in lines
    assert "event: end" not in lines  # the job goes on
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
