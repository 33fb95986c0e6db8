"""Translation, with the source symbols that each symbol attended to."""

from typing import TYPE_CHECKING, Annotated, Any

from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.decoding import Attended, Candidate, ensemble_members
from unrolled.deployment.serving.kinds.base import Kind
from unrolled.deployment.serving.kinds.trials import trial_text
from unrolled.deployment.translation import translate_attended
from unrolled.generation.search import Search
from unrolled.processing.text.base import Tokenizer

if TYPE_CHECKING:
    from fastapi import APIRouter

    from unrolled.deployment.serving.service import Service

MOST_BEAMS = 10


def parts(bundle: Bundle) -> Any:
    """Return the network and the processor of a translator.

    Raises:
        ValueError: the bundle contains another network.
    """
    return ensemble_members(bundle, Tokenizer, "translates")


def _settings(bundle: Bundle) -> dict[str, Any]:
    source, target = parts(bundle)[1]
    return {"reads": source.unit, "writes": target.unit, "beams": MOST_BEAMS}


def _add_routes(routes: "APIRouter", service: "Service") -> None:
    from fastapi import Body

    @routes.post("/translate")
    async def translate(
        text: Annotated[str, Body()],
        num_beams: Annotated[int, Body(ge=1, le=MOST_BEAMS)] = 5,
        length_penalty: Annotated[float, Body(ge=0, le=10, allow_inf_nan=False)] = 1.0,
    ) -> dict[str, Any]:
        """Translate a text."""
        options = Search(num_beams=num_beams, n_best=min(num_beams, 5), length_penalty=length_penalty)
        line = " ".join(service.check_text(text).split())
        found = await service.run(lambda: translate_attended(service.bundle, line, options=options))
        return {"translations": texts_of(found.candidates), "pieces": [shown(piece) for piece in found.pieces]}


def texts_of(candidates: list[Candidate]) -> list[dict[str, Any]]:
    """Return texts with their scores."""
    return [{"text": one.text, "score": one.score, "log_probability": one.log_probability} for one in candidates]


def shown(piece: Attended) -> dict[str, Any]:
    """Return the symbols of a text and their attention."""
    weights = None if piece.weights is None else rounded(piece.weights)
    return {"source": piece.source, "written": piece.written, "weights": weights}


def rounded(weights: Tensor) -> list[list[float]]:
    """Return weights with three digits, which is more than a picture shows."""
    return [[round(weight, 3) for weight in row] for row in weights.tolist()]


def _trial(service: "Service") -> object:
    source = parts(service.bundle)[1].source
    return translate_attended(service.bundle, trial_text(source), options=Search(num_beams=5, n_best=5))


KIND = Kind("translate", "Translate", parts, _settings, _add_routes, _trial)
