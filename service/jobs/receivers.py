"""Receivers of webhooks: which addresses may be connected to.

Whoever may start jobs names the address, and the worker stands inside of networks that they may not: none but public
addresses are connected to, unless REID_WEBHOOK_NETWORKS has them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from service.errors import invalid_request
from service.settings import Settings, is_loopback

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_INSIDE = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24", "fec0::/10", "64:ff9b:1::/48")))
"""Taken for public by Python, some versions of it: the hosts of Azure's and Oracle's machines, which answer with
metadata, and the local networks of old and of NAT64."""

_PORTS = {"http": 80, "https": 443}


def is_allowed(address: str, networks: Sequence[Network]) -> bool:
    """True for a public address and for one in `networks`; False for private, loopback, link-local and the like."""
    reached = _embedded(ipaddress.ip_address(address))
    if any(reached in network for network in networks):
        return True
    return reached.is_global and not reached.is_multicast and not any(reached in network for network in _INSIDE)


def receiver_of(url: str) -> str:
    """Scheme, host and port of the url: `https://lab.example:8443`, without the port that is usual."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def check_url(settings: Settings, url: str) -> None:
    """Raises 422 for a url that names an address which may not be connected to; names are resolved at delivery."""
    host = urlsplit(url).hostname or ""
    try:
        allowed = is_allowed("127.0.0.1" if host == "localhost" else host, settings.webhook_networks)
    except ValueError:  # a name
        return
    if not allowed:
        kind = "a loopback" if is_loopback(host) else "not a public"
        message = f"{host} is {kind} address, to which no webhook is sent"
        hint = "Name a public address, or let the operator add its network to REID_WEBHOOK_NETWORKS."
        raise invalid_request("/webhook/url", "private-address", message, hint=hint)


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one leads to: mapped, 6to4 or NAT64; else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
