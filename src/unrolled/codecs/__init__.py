"""Codecs: text <-> ids, built from plain data and written back to it.

A codec travels inside a checkpoint as a plain dict, so that a trained network reads and writes text wherever it is
loaded. Nothing here needs torch.
"""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from unrolled.codecs.base import Codec as Codec
from unrolled.codecs.image import CaptionCodec as CaptionCodec
from unrolled.codecs.labels import LabelCodec as LabelCodec
from unrolled.codecs.labels import NumberCodec as NumberCodec
from unrolled.codecs.pair import PairCodec as PairCodec
from unrolled.codecs.spaced import SpacedCodec as SpacedCodec
from unrolled.codecs.subword import BPECodec as BPECodec
from unrolled.codecs.subword import SubwordCodec as SubwordCodec
from unrolled.codecs.subword import UnigramCodec as UnigramCodec
from unrolled.codecs.text import CODECS as CODECS
from unrolled.codecs.text import ByteCodec as ByteCodec
from unrolled.codecs.text import CharacterCodec as CharacterCodec
from unrolled.codecs.text import SentenceCodec as SentenceCodec
from unrolled.codecs.text import WordCodec as WordCodec

__all__ = [
    "CODECS",
    "BPECodec",
    "ByteCodec",
    "CaptionCodec",
    "CharacterCodec",
    "Codec",
    "LabelCodec",
    "NumberCodec",
    "PairCodec",
    "SentenceCodec",
    "SpacedCodec",
    "SubwordCodec",
    "UnigramCodec",
    "WordCodec",
    "codec_from_dict",
]

_BUILT = (
    CharacterCodec,
    ByteCodec,
    WordCodec,
    SentenceCodec,
    BPECodec,
    UnigramCodec,
    SpacedCodec,
    PairCodec,
    CaptionCodec,
)


def codec_from_dict(plain: Mapping[str, Any]) -> Codec:
    """The codec that wrote this dict (`to_dict`). Only this package's classes are built: the dict may come from a file.

    Raises:
        ValueError: no `_target_`, one that is no codec of this package, or arguments that the codec does not take.
    """
    targets: dict[str, Callable[..., Codec]] = {f"unrolled.codecs.{codec.__name__}": codec for codec in _BUILT}
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
