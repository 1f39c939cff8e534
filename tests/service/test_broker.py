"""The broker that `reid up` brings along."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.queue.broker import EmbeddedBroker


def test_a_broker_that_ends_is_not_waited_for_and_its_last_words_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.queue.broker._START_SECONDS", 1e9)
    (tmp_path / "appendonlydir").write_text("a file where the server wants a folder")
    broker = EmbeddedBroker(tmp_path)
    with pytest.raises(RuntimeError, match="appendonlydir"):
        broker.wait_until_ready(broker.start())
    broker.close()
