"""Refuses requests that don't belong to this server, before anything of them is read."""

import asyncio
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from unrolled.deployment.serving.limits import ServingLimits

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Middleware for all requests.

    A page of another site may make a browser send requests to this server. It can't read the answers, as there are no
    CORS headers. It can't make the browser compute, either: a request with another `Origin` is refused. And it can't
    pretend to be this server by a host name that it lets point here (DNS rebinding): a `Host` must be an address,
    which nobody can redirect, or a name of this machine.

    Args:
        app: the application.
        limits: the limits of requests.
        host: the address or name that the server listens on.
    """

    def __init__(self, app: Any, limits: ServingLimits, host: str) -> None:
        self._app, self._limits = app, limits
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        await self._app(scope, self._limited(receive), _with_headers(send))

    def _refused(self, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 403, f"this server has no name {host!r:.80}; open it by its address, such as http://127.0.0.1"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, f"a page of {origin!r:.80} may not use this server"
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.upload:
            return 413, too_large(self._limits.upload)
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    def _limited(self, receive: Receive) -> Receive:
        """Return the request's body as it arrives, limited in size and time."""
        from starlette.exceptions import HTTPException

        count, ends, whole = 0, asyncio.get_running_loop().time() + self._limits.seconds, False

        async def limited() -> Any:
            nonlocal count, whole
            try:
                async with asyncio.timeout_at(None if whole else ends):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the request took too long to arrive") from None
            count += len(message.get("body", b""))
            whole = whole or not message.get("more_body", False)
            if count > self._limits.upload:
                raise HTTPException(413, too_large(self._limits.upload))
            return message

        return limited


def too_large(limit: int) -> str:
    """Return the message about a request that is too large."""
    return (
        f"the request has more than {limit:,} bytes, which this server reads: send a smaller file, or start the server "
        "with a greater --max-upload"
    )


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
