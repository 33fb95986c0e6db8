"""Transcripts of images of lines, and of recordings."""

from typing import TYPE_CHECKING, Any

from unrolled.checkpoint import Bundle
from unrolled.deployment.reading import Limits
from unrolled.deployment.serving.kinds.base import Kind, body_of
from unrolled.deployment.serving.kinds.trials import trial_picture, trial_sound
from unrolled.deployment.transcription import transcribe, transcriber_of
from unrolled.processing.audio.features import AudioFeatures

if TYPE_CHECKING:
    from fastapi import APIRouter

    from unrolled.deployment.serving.service import Service


def _settings(bundle: Bundle) -> dict[str, Any]:
    return {"reads": "sound" if isinstance(transcriber_of(bundle)[1], AudioFeatures) else "pictures"}


def _add_routes(routes: "APIRouter", service: "Service") -> None:
    from starlette.requests import Request

    @routes.post("/transcribe")
    async def transcribe_file(request: Request) -> dict[str, Any]:
        """Transcribe an image of a line or a recording, the body of the request."""
        content = await body_of(request)
        return await service.run(lambda: _transcribed(service, content))


def _transcribed(service: "Service", content: bytes) -> dict[str, Any]:
    limits, notices = service.limits, list[str]()
    found = transcribe(
        service.bundle,
        [content],
        limits=Limits(limits.pixels, limits.recording, limits.steps),
        notice=notices.append,
    )
    transcript = next(found)
    labels = [label._asdict() for label in transcript.labels]
    return {
        "text": transcript.text,
        "log_probability": transcript.log_probability,
        "labels": labels,
        "notices": notices,
    }


def _trial(service: "Service") -> object:
    sound = isinstance(transcriber_of(service.bundle)[1], AudioFeatures)
    return _transcribed(service, trial_sound() if sound else trial_picture())


KIND = Kind("transcribe", "Transcribe", transcriber_of, _settings, _add_routes, _trial)
