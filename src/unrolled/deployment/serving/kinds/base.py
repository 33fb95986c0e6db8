"""What a module of this package defines."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from unrolled.checkpoint import Bundle

if TYPE_CHECKING:
    from fastapi import APIRouter

    from unrolled.deployment.serving.service import Service


class Kind(NamedTuple):
    """A kind of network that has a page.

    Attributes:
        name: the command that does the same, which names the page's files and the route.
        title: heading of the page.
        parts: returns the parts of such a network, and raises a ValueError for another one.
        settings: returns what the page must know of it.
        add_routes: adds the routes.
        trial: makes a small prediction of an invented source, so that kernels are compiled and modules are loaded
            before the first request.
    """

    name: str
    title: str
    parts: Callable[[Bundle], Any]
    settings: Callable[[Bundle], dict[str, Any]]
    add_routes: "Callable[[APIRouter, Service], None]"
    trial: "Callable[[Service], object]"


async def body_of(request: Any) -> bytes:
    """Return the body of a request, a file that was uploaded.

    Raises:
        Refusal: 400 for an empty one.
    """
    from unrolled.deployment.serving.service import Refusal

    content: bytes = await request.body()
    if not content:
        raise Refusal(400, "there is no file in the request")
    return content


def data_url(content: bytes, kind: str) -> str:
    """Return a file as the URL of a picture or of sound."""
    from base64 import b64encode

    return f"data:{kind};base64,{b64encode(content).decode()}"
