"""Quoting of values for Hydra's overrides."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

_PLAIN = re.compile(r"[\w./@-]+", re.ASCII)  # characters without a special meaning in Hydra or a shell
_WORDS = ("null", "true", "false", "nan", "inf")


def quote_value(value: Any) -> str:
    """Returns a value in the syntax of Hydra's overrides."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return "{" + ",".join(f"{quote_value(key)}:{quote_value(item)}" for key, item in items) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(quote_value, cast("Sequence[Any]", value))) + "]"
    if isinstance(value, float):
        return repr(value)  # 0.5, inf
    if not isinstance(value, str):
        return json.dumps(value)  # null, true, 1
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and not re.match(r"[-+.\d]", value):
        return value
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # otherwise an interpolation
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", escaped).replace("'", r"\'")
    return f"'{escaped}'"
