"""Music, as sound and as a picture of its piano roll."""

import io
from typing import TYPE_CHECKING, Annotated, Any

from unrolled.checkpoint import Bundle
from unrolled.deployment.music import compose, composer_of
from unrolled.deployment.serving.kinds.base import Kind, data_url
from unrolled.processing.notes.pictures import draw_roll
from unrolled.processing.notes.sound import to_wav

if TYPE_CHECKING:
    from fastapi import APIRouter

    from unrolled.deployment.serving.service import Service

_MOST_FRAMES = 256


def _settings(bundle: Bundle) -> dict[str, Any]:
    return {"frames": _MOST_FRAMES, "steps_per_beat": composer_of(bundle)[1].steps_per_beat}


def _add_routes(routes: "APIRouter", service: "Service") -> None:
    from fastapi import Body

    @routes.post("/compose")
    async def compose_piece(
        frames: Annotated[int, Body(ge=1, le=min(_MOST_FRAMES, service.limits.steps))] = 64,
        temperature: Annotated[float, Body(ge=0, le=100, allow_inf_nan=False)] = 1.0,
        tempo: Annotated[float, Body(ge=20, le=400, allow_inf_nan=False)] = 90.0,
    ) -> dict[str, Any]:
        """Write a piece of music."""
        return await service.run(lambda: _composed(service, frames, temperature, tempo))


def _composed(service: "Service", frames: int, temperature: float, tempo: float) -> dict[str, Any]:
    piece = compose(service.bundle, frames=frames, temperature=temperature, generator=service.generator)
    file = io.BytesIO()
    draw_roll(piece.frames, piece.steps_per_beat).save(file, "PNG")
    sound = to_wav(piece.frames, piece.steps_per_beat, tempo=tempo)
    return {
        "sound": data_url(sound, "audio/wav"),
        "picture": data_url(file.getvalue(), "image/png"),
        "frames": piece.frames,
        "log_probability": piece.log_probability,
    }


def _trial(service: "Service") -> object:
    return _composed(service, 8, 1.0, 90.0)


KIND = Kind("compose", "Compose music", composer_of, _settings, _add_routes, _trial)
