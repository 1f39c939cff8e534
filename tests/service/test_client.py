"""The client that the command line uses."""

from __future__ import annotations

from contextlib import closing

import pytest

from service.cli.client import Client
from service.main import create_app
from service.settings import Settings
from tests.service.serving import serve


def test_loopback_is_asked_past_the_proxy_of_the_environment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    with (
        serve(create_app(settings)) as address,
        closing(Client(address, settings.admin_key_path.read_text().strip())) as client,
    ):
        assert client.get("/datasets")["items"] == []
