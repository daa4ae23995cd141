"""Host names and addresses as people and clients write them. Read as literals: nothing here resolves a name."""

from __future__ import annotations

import ipaddress

WILDCARDS = frozenset(("0.0.0.0", "::"))
"""Addresses that listen on every interface of the machine."""


def bare_host(host: str) -> str:
    """Return a host as it is compared: lower case, without the brackets of IPv6 and the root's dot at the end."""
    return host.removeprefix("[").removesuffix("]").removesuffix(".").lower()


def is_address(host: str) -> bool:
    """Return whether a bare host is an address. Short forms such as `0` and `127.1` are none, and count as names."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False

    return True


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine's own, so that nobody else reaches what listens there.

    A name counts only if it is `localhost`: what another resolves to can change. `127.0.0.1.` is the address with the
    root's dot, as a client may send it; `listen_host` makes sure that it is listened on as the address.
    """
    bare = bare_host(host)
    return bare == "localhost" or (is_address(bare) and ipaddress.ip_address(bare).is_loopback)


def listen_host(host: str) -> str:
    """Return a host as it is listened on: without brackets; an address also without the dot, which asks a resolver."""
    bare = bare_host(host)
    return bare if is_address(bare) else host.removeprefix("[").removesuffix("]")
