"""Several API processes are one API: each sees what another has changed, and nobody misses one that dies."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from service.db.schema import upgrade
from service.db.session import open_database
from service.settings import Settings
from tests.service.galleries.stock import add_model_row, added_ids, image_file, save_tiny_model, upload
from tests.service.serving import open_client
from tests.waiting import wait_until
from tests.worker.service import Service

pytestmark = pytest.mark.timeout(1800)

CLIENTS = 12


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    settings = Settings(home=tmp_path / "home")
    save_tiny_model(settings.models_dir / "mdl_1")
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    add_model_row(database, "mdl_1")
    database.close()
    service = Service(settings.home, tmp_path, REID_API_PROCESSES="2")
    service.start()
    yield service
    if service.processes():
        service.kill_everything()


@pytest.fixture
def clients(service: Service) -> Iterator[list[httpx.Client]]:
    """Clients that keep their connections, with every process."""
    headers = dict(service.http.headers)
    with ExitStack() as stack:
        clients = [stack.enter_context(open_client(service.address, headers)) for _ in range(CLIENTS)]
        for client in clients:
            client.get("/version").raise_for_status()
        assert sum(map(connections, servers(service))) >= CLIENTS
        assert all(map(connections, servers(service))), "one in 2,048 times they all come to one process"
        yield clients


def servers(service: Service) -> list[psutil.Process]:
    return service.processes("api", "--one-of-several")


def connections(process: psutil.Process) -> int:
    return sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp"))


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_one_process_changes_the_others_see_at_once(service: Service, clients: list[httpx.Client]) -> None:
    service.post("/galleries", {"name": "hall", "model": "tiny"}, expect=201)
    first = added_ids(upload(service.http, "hall", [image_file(1)]))
    for number, client in enumerate(clients, start=2):
        (added,) = added_ids(upload(client, "hall", [image_file(number)]))
        for other in clients:
            found = other.get("/search", params={"gallery": "hall", "image_id": added, "top_k": 100}).json()["results"]
            assert len(found) == number
        first.append(added)
    assert clients[0].delete(f"/galleries/hall/images/{first[0]}").status_code == 204
    for client in clients:
        gone = client.get("/search", params={"gallery": "hall", "image_id": first[0]})
        assert gone.status_code == 410
        found = client.get("/search", params={"gallery": "hall", "image_id": first[1], "top_k": 100}).json()["results"]
        assert first[0] not in [result["image_id"] for result in found]
    key = service.post("/api-keys", {"name": "reader", "scopes": ["read"]}, expect=201)
    reader = {"Authorization": f"Bearer {key['key']}"}
    assert {client.get("/galleries", headers=reader).status_code for client in clients} == {200}
    assert service.http.delete("/api-keys/reader").status_code == 204
    assert {client.get("/galleries", headers=reader).status_code for client in clients} == {401}
    searches = service.get("/audit", action="search", limit=200)["items"]
    wait_until(lambda: len(service.get("/audit", action="search", limit=200)["items"]) >= CLIENTS**2)
    assert searches


def test_figures_are_those_of_all_processes(service: Service, clients: list[httpx.Client]) -> None:
    asked = 40
    for number in range(asked):
        clients[number % CLIENTS].get("/methods").raise_for_status()
    counted = 'reid_http_requests_total{method="GET",route="/methods",status="200"}'
    for client in clients:
        (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(counted)]
        assert float(line.split()[-1]) == asked


def other_threads(process: psutil.Process) -> list[str]:
    """The threads of a process beside its first, which on a busy machine end after it."""
    folder = Path(f"/proc/{process.pid}/task")
    return [thread.name for thread in folder.glob("*") if thread.name != str(process.pid)]


def test_a_process_that_dies_comes_back_and_the_other_answers_meanwhile(service: Service) -> None:
    before = servers(service)
    assert len(before) == 2
    before[0].kill()
    # Those that wait for it are lost with it; a zombie's threads may hold its socket a moment longer.
    wait_until(lambda: not is_alive(before[0]) and not other_threads(before[0]))
    for _ in range(20):
        with open_client(service.address) as client:
            assert client.get("/healthz/live").status_code == 200
    wait_until(lambda: len(servers(service)) == 2 and before[0] not in servers(service))
    assert "was killed by SIGKILL; it is started again" in service.output()
    service.stop()
    assert service.processes() == []


def test_they_end_with_their_parent(service: Service) -> None:
    (parent,) = [one for one in service.processes("api") if one not in servers(service)]
    children = servers(service)
    parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
    wait_until(service.is_ready)
    assert len(servers(service)) == 2
    service.stop()
