"""Where a request comes from: behind a router the connection is the router's own, and the caller is in a header."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from receiver.settings import Network

Address = IPv4Address | IPv6Address


def source(environ: Mapping[str, Any], trusted_hops: int) -> Address | None:
    """Give the address that the outermost of our routers saw; None where that cannot be read.

    Each router adds one entry at the end of ``X-Forwarded-For``: the caller is at place ``trusted_hops`` from the end,
    and everything before it may be invented. A request that did not pass all routers counts as the connection's.
    """
    text = environ.get("REMOTE_ADDR", "")
    if trusted_hops:
        hops = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
        text = hops[-trusted_hops] if len(hops) >= trusted_hops and any(hops) else text
    try:
        found = ip_address(_without_port(text.strip()))
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def is_allowed(address: Address | None, allowed: Iterable[Network]) -> bool:
    """Whether an address lies in one of the networks."""
    return address is not None and any(address in network for network in allowed)


def neighbourhood(address: Address | None) -> str:
    """What counts as one caller: an IPv4 address; in IPv6 a /64, as one host has all addresses of it."""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
