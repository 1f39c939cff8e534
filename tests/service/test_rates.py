"""Wrong keys, and if wanted right ones, are slowed down by address and by key; nobody is shut out by others."""

from __future__ import annotations

import math
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api import rates
from service.api.rates import Rates, TokenBuckets
from service.errors import Problem
from service.main import create_app
from service.settings import Settings
from tests.service.serving import open_client, serve


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(1, 100), st.lists(st.floats(0, 30), max_size=300))
def test_no_minute_gives_more_than_a_full_bucket_and_what_it_regains(per_minute: int, pauses: list[float]) -> None:
    clock = Clock()
    buckets, given_at = TokenBuckets(per_minute, clock), []
    for pause in pauses:
        clock.now += pause
        wait = buckets.take("a")
        if not wait:
            given_at.append(clock.now)
            assert sum(at > clock.now - 60 for at in given_at) <= 2 * per_minute
        else:
            clock.now += wait + 1e-6
            assert buckets.take("a") == 0, "after the time that was told there is a token"
            given_at.append(clock.now)


def test_each_name_has_a_bucket_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_KEPT_NAMES", 3)
    buckets = TokenBuckets(1, Clock())
    assert [buckets.take(name) for name in "aabc"] == [0, 60, 0, 0]
    assert buckets.take("d") == 0  # `a` has to make room
    assert buckets.take("a") == 0
    assert buckets.take("d") == 60
    assert len(buckets._buckets) == 3


def test_without_a_limit_nothing_is_counted() -> None:
    buckets = TokenBuckets(0)
    assert {buckets.take("a") for _ in range(1000)} == {0}


def test_wrong_keys_are_counted_by_address_and_by_key(settings: Settings) -> None:
    limits = Rates(settings.model_copy(update={"rate_wrong_keys": 3}))
    for number in range(3):
        limits.count_wrong_key("10.0.0.1", f"reid_{number:06}-wrong")
    with pytest.raises(Problem, match="Too many wrong keys") as refused:
        limits.count_wrong_key("10.0.0.1", "reid_abcdef-wrong")
    assert refused.value.status == 429
    assert 0 < int(refused.value.headers["Retry-After"]) <= 20
    for number in range(3):
        limits.count_wrong_key(f"10.0.0.{number + 2}", "reid_others-wrong")
    with pytest.raises(Problem, match="Too many wrong keys"):
        limits.count_wrong_key("10.0.0.9", "reid_others-wrong, too")


def test_a_network_of_ipv6_counts_as_one_address(settings: Settings) -> None:
    limits = Rates(settings.model_copy(update={"rate_wrong_keys": 1}))
    limits.count_wrong_key("2001:db8:1:2::1", "reid_111111")
    with pytest.raises(Problem):
        limits.count_wrong_key("2001:db8:1:2:ffff::9", "reid_222222")
    limits.count_wrong_key("2001:db8:1:3::1", "reid_333333")


@pytest.fixture
def client(settings: Settings) -> Iterator[httpx.Client]:
    with serve(create_app(settings)) as address, open_client(address) as client:
        yield client


def test_300_wrong_keys_are_slowed_down_and_a_right_one_is_not(client: httpx.Client, settings: Settings) -> None:
    answers = [client.get("/methods", headers={"X-API-Key": f"reid_{number:040}"}) for number in range(300)]
    assert [answer.status_code for answer in answers[: settings.rate_wrong_keys]] == [401] * settings.rate_wrong_keys
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) > 200
    assert refused[-1].json()["type"] == "/problems/too-many-requests"
    assert 0 < int(refused[-1].headers["Retry-After"]) <= math.ceil(60 / settings.rate_wrong_keys)
    right = {"X-API-Key": settings.admin_key_path.read_text().strip()}
    assert client.get("/methods", headers=right).status_code == 200
    assert client.get("/methods").status_code == 401
    assert client.get("/healthz/live", headers={"X-API-Key": "reid_wrong"}).status_code == 200


def test_a_key_may_have_a_limit(settings: Settings) -> None:
    limited = settings.model_copy(update={"rate_requests": 5})
    with serve(create_app(limited)) as address, open_client(address) as client:
        right = {"X-API-Key": settings.admin_key_path.read_text().strip()}
        statuses = [client.get("/methods", headers=right).status_code for _ in range(7)]
        assert statuses[:5] == [200] * 5
        assert 429 in statuses
        assert "REID_RATE_REQUESTS" in client.get("/methods", headers=right).json()["detail"]
