"""The kinds of networks that have a page, one a module: what the page must know, and routes from predictions."""

from unrolled.checkpoint import Bundle
from unrolled.deployment.serving.kinds import (
    captioning,
    classification,
    drawing,
    forecasting,
    handwriting,
    language,
    music,
    tagging,
    transcription,
    translation,
)
from unrolled.deployment.serving.kinds.base import Kind
from unrolled.wording import article

_MODULES = (
    language,
    translation,
    captioning,
    classification,
    tagging,
    transcription,
    forecasting,
    music,
    handwriting,
    drawing,
)
KINDS: tuple[Kind, ...] = tuple(module.KIND for module in _MODULES)


def kind_of(bundle: Bundle) -> Kind:
    """Return the kind of a network.

    Raises:
        ValueError: a network without a page.
    """
    for kind in KINDS:
        try:
            kind.parts(bundle)
        except ValueError:
            continue
        return kind
    source, target = (type(side).__name__ for side in bundle.processor)
    raise ValueError(
        f"there is no page for {article(type(bundle.network).__name__)} from {source} to {target}; a page does what "
        f"one of the commands {', '.join(sorted(kind.name for kind in KINDS))} does"
    )
