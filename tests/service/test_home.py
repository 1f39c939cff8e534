"""The home folder has one holder, who can be asked for."""

from __future__ import annotations

from pathlib import Path

from service.home import hold_home, holder_of


def test_others_learn_who_has_the_home_and_when_nobody_has_it_any_more(tmp_path: Path) -> None:
    assert holder_of(tmp_path / "nowhere") is None
    with hold_home(tmp_path, "process 7 on http://127.0.0.1:8000"):
        assert holder_of(tmp_path) == "process 7 on http://127.0.0.1:8000"
    assert holder_of(tmp_path) is None


def test_asking_takes_the_home_from_nobody(tmp_path: Path) -> None:
    with hold_home(tmp_path, "one"):
        pass
    assert holder_of(tmp_path) is None
    with hold_home(tmp_path, "two"):
        assert holder_of(tmp_path) == "two"
