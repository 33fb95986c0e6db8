"""Images that a network draws, or draws again."""

import io
from typing import TYPE_CHECKING, Annotated, Any

from unrolled.checkpoint import Bundle
from unrolled.deployment.drawing import draw_images, drawer_of, picture_of, reconstruct
from unrolled.deployment.serving.kinds.base import Kind, body_of, data_url

if TYPE_CHECKING:
    from fastapi import APIRouter

    from unrolled.deployment.serving.service import Service

_MOST_IMAGES = 16


def _settings(bundle: Bundle) -> dict[str, Any]:
    return {"images": _MOST_IMAGES, "glimpses": drawer_of(bundle)[0].num_glimpses}


def _add_routes(routes: "APIRouter", service: "Service") -> None:
    from fastapi import Body
    from starlette.requests import Request

    @routes.post("/draw")
    async def draw(num: Annotated[int, Body(ge=1, le=_MOST_IMAGES, embed=True)] = 4) -> dict[str, Any]:
        """Draw new images."""
        return await service.run(lambda: _picture(draw_images(service.bundle, num, generator=service.generator)))

    @routes.post("/redraw")
    async def redraw(request: Request) -> dict[str, Any]:
        """Draw an image again, the body of the request."""
        content = await body_of(request)
        return await service.run(lambda: _redrawn(service, content))


def _redrawn(service: "Service", content: bytes) -> dict[str, Any]:
    found = reconstruct(service.bundle, [content], generator=service.generator, max_pixels=service.limits.pixels)
    return {**_picture(found.glimpses, found.images), "bound": float(found.bound.total[0])}


def _picture(glimpses: Any, images: Any = None) -> dict[str, Any]:
    file = io.BytesIO()
    picture_of(glimpses, images, columns=8).save(file, "PNG")
    return {"picture": data_url(file.getvalue(), "image/png")}


def _trial(service: "Service") -> object:
    return _picture(draw_images(service.bundle, 1, generator=service.generator))


KIND = Kind("draw", "Draw images", drawer_of, _settings, _add_routes, _trial)
