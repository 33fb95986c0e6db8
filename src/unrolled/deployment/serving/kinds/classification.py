"""Classification and regression of a text, a recording, an image or a series."""

from typing import TYPE_CHECKING, Annotated, Any

from unrolled.checkpoint import Bundle
from unrolled.deployment.classification import Prediction, classifier_of, predicting, reads
from unrolled.deployment.inspecting.sources import series_of
from unrolled.deployment.reading import Limits, read_in_batches
from unrolled.deployment.serving.kinds.base import Kind, body_of
from unrolled.deployment.serving.kinds.trials import STEPS, trial_picture, trial_sound, trial_text
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.frames import SeriesScaler
from unrolled.processing.numbers import Scaler
from unrolled.processing.text.base import Tokenizer

if TYPE_CHECKING:
    from fastapi import APIRouter

    from unrolled.deployment.serving.service import Service


def _settings(bundle: Bundle) -> dict[str, Any]:
    _, source, target = classifier_of(bundle)
    return {
        "reads": reads(bundle),
        "numbers": isinstance(target, Scaler),
        "multiple": not isinstance(target, Scaler) and target.multiple,
        "channels": source.channels if isinstance(source, SeriesScaler) else [],
    }


def _add_routes(routes: "APIRouter", service: "Service") -> None:
    from fastapi import Body
    from starlette.requests import Request

    if reads(service.bundle) in ("text", "series"):

        @routes.post("/classify")
        async def classify_text(text: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
            """Classify a text, or a series as CSV."""
            if reads(service.bundle) == "text":
                service.check_text(text)
            return await service.run(lambda: _classified(service, text))

        return

    @routes.post("/classify")
    async def classify_file(request: Request) -> dict[str, Any]:
        """Classify a recording or an image, the body of the request."""
        content = await body_of(request)
        return await service.run(lambda: _classified(service, content))


def _classified(service: "Service", source: Any) -> dict[str, Any]:
    bundle, limits = service.bundle, service.limits
    if reads(bundle) == "series":
        transform: Any = classifier_of(bundle)[1]
        source = series_of(source, "the table", getattr(transform, "channels", []))
    notices: list[str] = []
    found = read_in_batches(
        *predicting(bundle),
        [source],
        limits=Limits(limits.pixels, limits.recording, limits.steps),
        notice=notices.append,
    )
    (prediction,) = (each for each in found if each is not None)
    return _shown(bundle, prediction, notices)


def _shown(bundle: Bundle, prediction: Prediction, notices: list[str]) -> dict[str, Any]:
    target = classifier_of(bundle)[2]
    if isinstance(target, Scaler):
        written = target.format(list(prediction.values.values()))
        return {"numbers": dict(zip(prediction.values, written, strict=True)), "notices": notices}
    return {"label": prediction.label, "probabilities": list(prediction.values.items())[:20], "notices": notices}


def _trial(service: "Service") -> object:
    _, source, _ = classifier_of(service.bundle)
    if isinstance(source, Tokenizer):
        return _classified(service, trial_text(source))
    if isinstance(source, SeriesScaler):
        rows = [",".join(source.channels), *[",".join("0" * len(source.channels))] * STEPS]
        return _classified(service, "\n".join(rows))
    return _classified(service, trial_sound() if isinstance(source, AudioFeatures) else trial_picture())


KIND = Kind("classify", "Classify", classifier_of, _settings, _add_routes, _trial)
