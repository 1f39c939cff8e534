"""Fixtures that tests of the library, the service and the workers share."""

from __future__ import annotations

import pytest


@pytest.fixture
def scores_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matcher's scores to as many digits on every CPU; by themselves some take bf16, some int16."""
    monkeypatch.setattr("reid_core.matching.scores._fastest", lambda maps: "fp32")
