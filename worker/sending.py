"""One attempt to deliver a job's end to its webhook: to an address that was checked, within its time."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import httpx

from service.jobs.receivers import Network, is_allowed
from service.jobs.signatures import sign
from service.jobs.webhooks import Attempt, Delivery
from service.settings import Settings

logger = logging.getLogger(__name__)

_NAMES_AT_ONCE = 64
"""Twice the attempts at a time: a name that is asked for goes on being asked for when its attempt is over."""


class AddressRefused(Exception):
    """The receiver has no address that may be connected to."""


async def send(settings: Settings, delivery: Delivery) -> Attempt:
    """One attempt within REID_WEBHOOK_SECONDS. Redirects are not followed, nothing of the answer's body is read."""
    try:
        async with _open_client() as client, asyncio.timeout(settings.webhook_seconds):
            status = await _post(client, settings.webhook_networks, delivery)
    except TimeoutError:
        return Attempt(None, f"there was no answer within {settings.webhook_seconds:g} s")
    except (AddressRefused, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Attempt(None, str(error) or type(error).__name__)
    if 200 <= status < 300:
        return Attempt(status, None)
    redirects = "; redirects are not followed" if 300 <= status < 400 else ""
    return Attempt(status, f"it was answered with {status}{redirects}")


def _open_client() -> httpx.AsyncClient:
    """A client that goes to the receiver itself: a proxy of the environment would resolve names past our check."""
    return httpx.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113  the whole attempt has one
        limits=httpx.Limits(max_keepalive_connections=0),
        verify=_tls(),
    )


@cache
def _tls() -> ssl.SSLContext:
    """The system's certificates, or those of SSL_CERT_FILE."""
    return ssl.create_default_context()


async def _post(client: httpx.AsyncClient, networks: Sequence[Network], delivery: Delivery) -> int:
    """The status of the answer, from the first of the receiver's allowed addresses that can be connected to."""
    url = httpx.URL(delivery.url)
    host = url.raw_host.decode()
    addresses = await _resolve(host, url.port or (443 if url.scheme == "https" else 80), networks)
    for place, address in enumerate(addresses, 1):
        # To the address that was checked: a name may lead elsewhere when it is asked again.
        request = client.build_request(
            "POST",
            url.copy_with(host=address),
            content=delivery.body.encode(),
            headers={**_headers(delivery), "Host": url.netloc.decode()},
            extensions={"sni_hostname": host},
        )
        try:
            answer = await client.send(request, stream=True)
        except httpx.ConnectError:
            if place == len(addresses):
                raise
            continue
        await answer.aclose()
        return answer.status_code
    raise AddressRefused(f"{host} has no address")


async def _resolve(host: str, port: int, networks: Sequence[Network]) -> list[str]:
    """The host's addresses that may be connected to; raises AddressRefused where there is none."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = await asyncio.get_running_loop().run_in_executor(_resolvers(), ask)
    except OSError as error:
        raise AddressRefused(f"{host} cannot be resolved: {error.strerror}") from error
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    allowed = [address for address in addresses if is_allowed(address, networks)]
    if not allowed:
        # Whoever started the job reads the fault, and may not learn from it what stands in our networks.
        logger.info("webhook host %s leads to %s, which is not public", host, ", ".join(addresses))
        raise AddressRefused(f"{host} leads to no public address; its network is not in REID_WEBHOOK_NETWORKS")
    return allowed


@cache
def _resolvers() -> ThreadPoolExecutor:
    """Threads for names alone: in those of asyncio a few that are slow would hold up all that is to be delivered."""
    return ThreadPoolExecutor(_NAMES_AT_ONCE, thread_name_prefix="names")


def _headers(delivery: Delivery) -> dict[str, str]:
    timestamp = int(time.time())
    return {
        "Content-Type": "application/json",
        "User-Agent": "reid-search",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(delivery.secret, delivery.id, timestamp, delivery.body),
    }
