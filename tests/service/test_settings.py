"""Settings come from REID_* variables, refuse what would be unsafe, and are documented one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, get_settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def test_everything_follows_from_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REID_HOME", str(tmp_path))
    settings = Settings()
    assert settings.database_url == f"sqlite:///{tmp_path}/reid.db"
    assert settings.data_roots == (tmp_path / "datasets",)
    assert settings.weights_dir == tmp_path / "weights"
    assert settings.admin_key_path == tmp_path / "admin.key"
    assert settings.broker_url is None


def test_a_relative_home_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings().home == tmp_path / "reid-data"


def test_data_roots_are_separated_by_colons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REID_DATA_ROOTS", "/data/a:/data/b:")
    assert Settings().data_roots == (Path("/data/a"), Path("/data/b"))


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REID_BROKER_URL", "")
    monkeypatch.setenv("REID_DATA_ROOTS", "")
    assert Settings().broker_url is None
    assert Settings().data_roots == (Settings().home / "datasets",)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_auth_may_be_off_on_loopback(host: str) -> None:
    assert Settings(auth="off", host=host).auth == "off"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "re-id.local"])
def test_auth_may_not_be_off_where_others_can_connect(host: str) -> None:
    with pytest.raises(ValidationError, match=r"REID_AUTH=off is accepted only while bound to loopback.*" + host):
        Settings(auth="off", host=host)


@pytest.mark.parametrize("name", ["REID_DATABASE_URL", "REID_BROKER_URL"])
def test_a_sample_password_is_refused_and_not_repeated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "postgresql://reid:ChangeMe@db/reid")
    with pytest.raises(ValidationError, match="is a sample") as caught:
        Settings()
    assert "ChangeMe" not in str(caught.value)


def test_passwords_are_not_shown() -> None:
    settings = Settings(database_url="postgresql://reid:s3cr3t-of-ours@db/reid", broker_url="redis://:s3cr3t-too@r/0")
    assert "s3cr3t" not in repr(settings)


def test_secrets_may_stand_in_files(tmp_path: Path) -> None:
    (tmp_path / "database").write_text("postgresql://reid:s3cr3t-of-ours@db/reid\n")
    (tmp_path / "broker").write_text("redis://:s3cr3t-too@r/0\n")
    settings = Settings(database_url_file=tmp_path / "database", broker_url_file=tmp_path / "broker")
    assert settings.database_url == "postgresql://reid:s3cr3t-of-ours@db/reid"
    assert settings.broker_url == "redis://:s3cr3t-too@r/0"


def test_a_secret_is_given_once_and_its_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "broker").write_text("redis://r/0")
    with pytest.raises(ValidationError, match="REID_BROKER_URL and REID_BROKER_URL_FILE are both set"):
        Settings(broker_url="redis://other/0", broker_url_file=tmp_path / "broker")
    with pytest.raises(ValidationError, match=r"missing cannot be read: No such file"):
        Settings(database_url_file=tmp_path / "missing")
    (tmp_path / "broker").write_text("redis://:password@r/0")
    with pytest.raises(ValidationError, match="sample"):
        Settings(broker_url_file=tmp_path / "broker")


@pytest.mark.parametrize(
    ("migrate", "url", "expected"),
    [
        ("auto", "sqlite:////tmp/x.db", True),
        ("auto", "postgresql://db/reid", False),
        ("on", "postgresql://db/reid", True),
        ("off", "sqlite:////tmp/x.db", False),
    ],
)
def test_migrating_at_start(migrate: str, url: str, expected: bool) -> None:
    assert Settings.model_validate({"migrate": migrate, "database_url": url}).migrate_at_start is expected


@pytest.mark.parametrize("value", ["gpu", "cuda:", "cuda:a", "CPU"])
def test_an_unknown_device_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="device"):
        Settings(device=value)


def test_the_process_reads_its_settings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    get_settings.cache_clear()
    first = get_settings()
    monkeypatch.setenv("REID_PORT", "9999")
    assert get_settings() is first
    get_settings.cache_clear()


def test_every_setting_is_documented_with_its_default() -> None:
    documented = dict(_documented_rows())
    assert set(documented) == {f"REID_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        row = documented[f"REID_{name.upper()}"]
        assert field.description in row, f"docs/settings.md describes REID_{name.upper()} differently: {row}"
        if isinstance(field.default, int | float | str):
            assert f"`{field.default}`" in row, f"docs/settings.md names another default than {field.default}: {row}"


def _documented_rows() -> list[tuple[str, str]]:
    rows = [line.split("|", 2) for line in DOCUMENT.read_text().splitlines() if line.startswith("| `REID_")]
    return [(name.strip(" `"), rest) for _, name, rest in rows]
