"""Listens on a port, and serves the page of a network until it is interrupted."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from unrolled.deployment.serving.app import require

_CONNECTIONS = 64  # more at once are refused


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: an address, or a name of this machine.
        port: the port; 0 for any free one.

    Raises:
        ValueError: a port that is in use or not allowed, an address of another machine.
    """
    if not 0 <= port <= 65_535:
        raise ValueError(f"port {port}: expected 0 to 65535, where 0 is any free one")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ValueError(f"host {host!r}: {error.strerror}; expected an address of this machine") from None
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port is free as soon as a server has ended
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ValueError(
            f"port {port} of {host} can't be used: {error.strerror}; pass another one, or 0 for any free one"
        ) from None
    return listening


def address_of(listening: socket.socket, host: str) -> str:
    """Return the address of a page for a browser."""
    port = listening.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve_forever(app: Any, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve an application until SIGINT or SIGTERM, whose handlers are then called.

    Args:
        app: the result of `create_app`.
        listening: the result of `listen`.
        ready: called when the server answers requests.

    Raises:
        KeyboardInterrupt: after SIGINT.
        ValueError: uvicorn is not installed.
    """
    require("uvicorn")
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    config = uvicorn.Config(
        app,
        log_level="critical",  # `app` reports what goes wrong
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        ws="none",
    )
    Server(config).run(sockets=[listening])
