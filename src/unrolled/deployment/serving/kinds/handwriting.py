"""Handwriting, as a picture of its strokes."""

from typing import TYPE_CHECKING, Annotated, Any

from unrolled.checkpoint import Bundle
from unrolled.deployment.handwriting import continue_strokes, write, writer_of
from unrolled.deployment.page import break_lines, to_svg
from unrolled.deployment.serving.kinds.base import Kind
from unrolled.deployment.serving.kinds.trials import STEPS, trial_text
from unrolled.deployment.serving.service import Refusal
from unrolled.processing.text.base import Tokenizer

if TYPE_CHECKING:
    from fastapi import APIRouter

    from unrolled.deployment.serving.service import Service

_LINE, _MOST_LINES = 20, 8  # characters of a line, lines


def _settings(bundle: Bundle) -> dict[str, Any]:
    return {"reads_text": _reads_text(bundle), "most": _LINE * _MOST_LINES}


def _reads_text(bundle: Bundle) -> bool:
    return isinstance(bundle.processor.source, Tokenizer)


def _add_routes(routes: "APIRouter", service: "Service") -> None:
    from fastapi import Body

    @routes.post("/write")
    async def write_text(
        text: Annotated[str, Body()] = "",
        bias: Annotated[float, Body(ge=0, le=10, allow_inf_nan=False)] = 0.5,
    ) -> dict[str, Any]:
        """Write a text by hand, or what looks like writing."""
        return await service.run(lambda: _written(service, text, bias))


def _written(service: "Service", text: str, bias: float, most: int = 700) -> dict[str, Any]:
    bundle, generator = service.bundle, service.generator
    if not _reads_text(bundle):
        points = min(most, service.limits.steps)
        strokes = continue_strokes(bundle, 3, num_points=points, bias=bias, generator=generator)
        return {"picture": to_svg([line for line in strokes if line]), "unfinished": []}
    lines = break_lines(text, _LINE)
    if len(lines) > _MOST_LINES or max(map(len, lines)) > 2 * _LINE:
        raise Refusal(413, f"the text has {len(text)} characters, and this server writes {_LINE * _MOST_LINES}")
    written = write(bundle, lines, bias=bias, generator=generator)
    return {
        "picture": to_svg([one.strokes for one in written if one.strokes]),
        "unfinished": [one.text for one in written if not one.finished],
    }


def _trial(service: "Service") -> object:
    source = service.bundle.processor.source
    text = trial_text(source)[:_LINE] if isinstance(source, Tokenizer) else ""
    return _written(service, text, 0.5, most=STEPS)


KIND = Kind("write", "Write by hand", writer_of, _settings, _add_routes, _trial)
