"""Tags of words."""

from typing import TYPE_CHECKING, Annotated, Any

from unrolled.checkpoint import Bundle
from unrolled.deployment.serving.kinds.base import Kind
from unrolled.deployment.serving.kinds.trials import STEPS
from unrolled.deployment.tagging import tag, tagger_of

if TYPE_CHECKING:
    from fastapi import APIRouter

    from unrolled.deployment.serving.service import Service


def _settings(bundle: Bundle) -> dict[str, Any]:
    return {"tags": list(tagger_of(bundle)[2].labels)}


def _add_routes(routes: "APIRouter", service: "Service") -> None:
    from fastapi import Body

    @routes.post("/tag")
    async def tag_text(text: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
        """Tag the words of sentences, one on each line, with spaces between words."""
        lines = [line for line in service.check_text(text).splitlines() if line.split()]
        found = await service.run(lambda: list(tag(service.bundle, lines)))
        return {"sentences": [[word._asdict() for word in words] for words in found]}


def _trial(service: "Service") -> object:
    return list(tag(service.bundle, [" ".join(["word"] * STEPS)]))


KIND = Kind("tag", "Tag words", tagger_of, _settings, _add_routes, _trial)
