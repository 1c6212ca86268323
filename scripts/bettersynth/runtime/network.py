"""No network in a job: an attempt to connect is an error that names the host and the job."""

from __future__ import annotations

import ipaddress
import logging
import socket
import sys
from typing import Any

from bettersynth.core.commands import make

logger = logging.getLogger(__name__)

CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg")
LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname")
"""CPython's audit events (PEP 578) of sockets, raised below whatever library opens one."""


class NetworkError(RuntimeError):
    """A job tried to reach another machine. No `OSError`: libraries catch those, wait and try again."""


def forbid_network(job: str) -> None:
    """Refuse every connection of this process but those to itself, for good; `job` is named in the error.

    The refusal is logged too, because a library may swallow the error.
    """

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CONNECTIONS:
            address = arguments[1]
            host: Any = address[0] if isinstance(address, tuple) else None  # a Unix socket has a path
            allowed = host is None or is_loopback(host)
        elif event in LOOKUPS:
            host = arguments[0]
            allowed = asks_nobody(host)
        else:
            return
        if not allowed:
            message = (
                f"{job} tried to reach {_text(host)}, and jobs have no network: everything is staged before. "
                f"What is missing: {make('verify')}; to fetch it, where there is a network: {make('stage')}"
            )
            logger.error("%s", message)
            raise NetworkError(message)

    sys.addaudithook(refuse)


def is_loopback(host: Any) -> bool:
    """Whether a connection to `host` stays on this machine; a number is no host but the kernel's netlink."""
    if not isinstance(host, (str, bytes)):
        return True
    try:
        return ipaddress.ip_address(_text(host).partition("%")[0]).is_loopback
    except ValueError:
        return _text(host) == "localhost"


def asks_nobody(host: Any) -> bool:
    """Whether to look up `host` needs no name server: no host, an address, or this machine's own name."""
    if not host:
        return True
    try:
        ipaddress.ip_address(_text(host).partition("%")[0])
    except ValueError:
        return _text(host) in ("localhost", socket.gethostname())
    return True


def _text(host: str | bytes) -> str:
    return host.decode(errors="replace") if isinstance(host, bytes) else host
