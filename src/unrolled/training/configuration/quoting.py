"""Overrides as Hydra reads them."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

_PLAIN = re.compile(r"[\w./@-]+", re.ASCII)  # what neither Hydra nor a shell reads anything into
_WORDS = ("null", "true", "false", "nan", "inf")


def written(value: Any) -> str:
    """A value as Hydra's overrides are written."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return "{" + ",".join(f"{written(key)}:{written(item)}" for key, item in items) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(written, cast("Sequence[Any]", value))) + "]"
    if isinstance(value, float):
        return repr(value)  # 0.5, inf
    if not isinstance(value, str):
        return json.dumps(value)  # null, true, 1
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and not re.match(r"[-+.\d]", value):
        return value
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # or else an interpolation
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", escaped).replace("'", r"\'")
    return f"'{escaped}'"
