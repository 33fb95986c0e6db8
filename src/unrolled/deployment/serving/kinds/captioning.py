"""Captions of images, with the regions that each word attended to."""

import io
from typing import TYPE_CHECKING, Any

from unrolled.checkpoint import Bundle
from unrolled.deployment.captioning import CAPTIONS, caption_attended, captioner_of
from unrolled.deployment.serving.kinds.base import Kind, body_of, data_url
from unrolled.deployment.serving.kinds.translation import rounded, texts_of
from unrolled.deployment.serving.kinds.trials import trial_picture
from unrolled.processing.images import read_image

if TYPE_CHECKING:
    from fastapi import APIRouter

    from unrolled.deployment.serving.service import Service


def _settings(bundle: Bundle) -> dict[str, Any]:
    return {"size": captioner_of(bundle)[1].size}


def _add_routes(routes: "APIRouter", service: "Service") -> None:
    from starlette.requests import Request

    @routes.post("/caption")
    async def caption(request: Request) -> dict[str, Any]:
        """Describe an image, the body of the request."""
        content = await body_of(request)
        return await service.run(lambda: _captioned(service, content))


def _captioned(service: "Service", content: bytes) -> dict[str, Any]:
    transform, most = captioner_of(service.bundle)[1], service.limits.pixels
    picture = transform.picture(read_image(content, "the image", max_pixels=most))
    options = CAPTIONS._replace(n_best=min(3, CAPTIONS.num_beams))
    found = caption_attended(service.bundle, content, options=options, max_pixels=most)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {
        "captions": texts_of(found.candidates),
        "written": found.written,
        "weights": None if found.weights is None else rounded(found.weights),
        "picture": data_url(file.getvalue(), "image/png"),
    }


def _trial(service: "Service") -> object:
    return _captioned(service, trial_picture())


KIND = Kind("caption", "Describe an image", captioner_of, _settings, _add_routes, _trial)
