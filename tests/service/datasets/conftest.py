"""A folder to register, and registration as a worker runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.datasets.registration import register
from service.db.session import Database
from service.settings import Settings
from tests.service.datasets.registering import Register, make_market, set_job


@pytest.fixture
def market(settings: Settings) -> Path:
    """A folder that can be registered as `market`."""
    return make_market(settings.data_roots[0] / "market")


@pytest.fixture
def run(database: Database, settings: Settings) -> Register:
    """Registers as the worker does and marks the job as over."""

    def run(dataset: dict[str, Any], **options: Any) -> dict[str, Any]:
        try:
            return register(database, settings, dataset["id"], **options)
        finally:
            set_job(database, dataset["job"])

    return run
