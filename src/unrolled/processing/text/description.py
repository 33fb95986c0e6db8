"""Creation of codecs from the plain dicts in checkpoints."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from unrolled.processing.text.base import Codec
from unrolled.processing.text.captions import CaptionCodec
from unrolled.processing.text.pair import PairCodec
from unrolled.processing.text.spaced import SpacedTokenizer
from unrolled.processing.text.subword import BPETokenizer, UnigramTokenizer
from unrolled.processing.text.tokenizers import ByteTokenizer, CharacterTokenizer, SentenceTokenizer, WordTokenizer

_BUILT = (
    CharacterTokenizer,
    ByteTokenizer,
    WordTokenizer,
    SentenceTokenizer,
    BPETokenizer,
    UnigramTokenizer,
    SpacedTokenizer,
    PairCodec,
    CaptionCodec,
)


def codec_from_dict(plain: Mapping[str, Any]) -> Codec:
    """Create a codec from the result of its `to_dict`. Only classes of this package are allowed in the dict.

    Raises:
        ValueError: no `_target_`, one that isn't a codec of this package, or unknown arguments.
    """
    targets: dict[str, Callable[..., Codec]] = {f"unrolled.{codec.__name__}": codec for codec in _BUILT}
    target = plain.get("_target_")
    if target not in targets:
        near = get_close_matches(str(target), targets, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"a codec's _target_ is one of {', '.join(targets)}, got {target!r}{hint}")
    arguments = {name: value for name, value in plain.items() if name != "_target_"}
    expected = set(inspect.signature(targets[target]).parameters)
    if set(arguments) != expected:
        raise ValueError(f"{target} takes {sorted(expected) or 'nothing'}, got {sorted(arguments) or 'nothing'}")
    return targets[target](**{name: _built(value) for name, value in arguments.items()})


def _built(value: Any) -> Any:
    return codec_from_dict(value) if isinstance(value, Mapping) and "_target_" in value else value
