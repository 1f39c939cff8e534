"""Rate limits: of wrong keys by address and by key, of requests by key. Kept in this process's memory."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from service.auth import visible_prefix
from service.errors import Problem
from service.settings import Settings

_KEPT_NAMES = 10_000


class TokenBuckets:
    """A bucket by each name, that holds and each minute regains `per_minute` tokens; 0 means without a limit.

    Of more than 10,000 names those are forgotten that were used longest ago. For one thread.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Takes a token: 0, or if there is none the seconds until there will be one."""
        if not self._per_minute:
            return 0.0
        now, per_second = self._clock(), self._per_minute / 60
        tokens, seen = self._buckets.pop(name, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - seen) * per_second)
        missing = max(0.0, 1 - tokens)
        self._buckets[name] = (tokens if missing else tokens - 1, now)
        if len(self._buckets) > _KEPT_NAMES:
            self._buckets.popitem(last=False)
        return missing / per_second


class Rates:
    """The limits of REID_RATE_WRONG_KEYS and REID_RATE_REQUESTS; each method raises the 429 problem beyond its own.

    A key that is right is never refused for wrong ones, wherever they came from.
    """

    def __init__(self, settings: Settings) -> None:
        self._wrong_by_address = TokenBuckets(settings.rate_wrong_keys)
        self._wrong_by_key = TokenBuckets(settings.rate_wrong_keys)
        self._requests = TokenBuckets(settings.rate_requests)

    def count_wrong_key(self, address: str, key: str) -> None:
        """Counts a key that is not valid."""
        waits = self._wrong_by_address.take(_network(address)), self._wrong_by_key.take(visible_prefix(key))
        if any(waits):
            raise _too_many("Too many wrong keys, from this address or like this one.", max(waits))

    def count_request(self, key_id: str) -> None:
        """Counts a request by a key that is valid."""
        if wait := self._requests.take(key_id):
            raise _too_many("This key has been used more often than REID_RATE_REQUESTS allows.", wait)


def _network(address: str) -> str:
    """The address, or of IPv6 the network that one customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    return address if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


def _too_many(detail: str, seconds: float) -> Problem:
    return Problem("too-many-requests", detail, headers={"Retry-After": str(math.ceil(seconds))})
