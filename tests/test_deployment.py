"""The Dockerfile and the compose files, as far as no engine is needed; `make compose-test` runs them on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.compose.readme import start_script, walk_through_script
from tests.compose.stack import compose_binary

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@pytest.fixture
def services() -> dict[str, Any]:
    return dict(config()["services"])


def config(*words: str, **environment: str) -> Any:
    """Reads the project's file as Compose does, with nothing of this machine's environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("REID_", "PIP_"))} | environment
    command = [compose_binary(), "--env-file", os.devnull, "-f", "docker-compose.yml", *words]
    done = subprocess.run(
        [*command, "config", "--format", "json"], cwd=ROOT, env=clean, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_image_is_built_by_one_service_and_named_by_the_others(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "build" in service] == ["migrate"]
    ours = [name for name, service in services.items() if service["image"] == services["migrate"]["image"]]
    assert sorted(ours) == ["api", "migrate", "training", "worker"]


def test_every_service_is_hardened(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"], name
        assert name == "secrets" or service["stop_grace_period"], name
    assert {name: service["cap_add"] for name, service in services.items() if "cap_add" in service} == {
        "secrets": ["CHOWN"]
    }


def test_secrets_are_seen_only_by_whom_they_are_for(services: dict[str, Any]) -> None:
    seen = {
        name: {mount["source"] for mount in service["volumes"] if "secret" in mount["source"]}
        for name, service in services.items()
    }
    assert seen["postgres"] == {"postgres-secret"}
    assert seen["redis"] == {"redis-secret"}
    assert all(seen[name] == {"secrets"} for name in ("api", "migrate", "training", "worker"))


def test_no_shell_stands_around_a_command_of_ours(services: dict[str, Any]) -> None:
    for name in ("api", "migrate", "training", "worker"):
        assert services[name]["command"][0] in ("reid", "python"), name


def test_a_folder_of_data_may_be_named_with_or_without_a_dot(services: dict[str, Any]) -> None:
    assert source_of_data(services) == str(ROOT / "data")
    for name in ("sets", "./sets"):
        assert source_of_data(config(REID_DATA=name)["services"]) == str(ROOT / "sets")


def source_of_data(services: dict[str, Any]) -> str:
    (source,) = [mount["source"] for mount in services["api"]["volumes"] if mount["target"] == "/data"]
    return str(source)


def test_the_cards_are_asked_for_by_what_runs_networks() -> None:
    services = config("-f", "docker-compose.gpu.yml")["services"]
    assert [name for name, service in services.items() if "deploy" in service] == ["api", "training", "worker"]


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_readmes_commands_for_containers_stand_where_the_test_takes_them_from() -> None:
    assert "docker compose up" in start_script(ROOT / "README.md")
    walk_through = walk_through_script(ROOT / "README.md", "http://127.0.0.1:9")
    assert "API=http://127.0.0.1:9\n" in walk_through
    assert subprocess.run(["bash", "-n"], input=walk_through, text=True).returncode == 0


def test_without_an_engine_nothing_counts_as_tested(tmp_path: Path) -> None:
    nowhere = os.environ | {"DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"}
    command = [sys.executable, "-m", "tests.compose", "--cache", tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=nowhere, capture_output=True, text=True)
    assert done.returncode == 77
    assert done.stderr.startswith("Not tested: ")
    assert "| in all |" not in done.stdout
