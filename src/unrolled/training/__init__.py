"""Training and inference tools that import lightning, hydra, torchmetrics and datasets: the only room that may.

Names load on first use, so that a mistake in a configuration is answered before torch is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unrolled.training.configuration.options import ConfigurationError as ConfigurationError
    from unrolled.training.data.base import DataError as DataError
    from unrolled.training.data.base import SequenceData as SequenceData
    from unrolled.training.run.composition import compose as compose
    from unrolled.training.tasks.base import SequenceTask as SequenceTask

_MODULE_OF = {
    "ConfigurationError": "unrolled.training.configuration.options",
    "DataError": "unrolled.training.data.base",
    "SequenceData": "unrolled.training.data.base",
    "SequenceTask": "unrolled.training.tasks.base",
    "compose": "unrolled.training.run.composition",
}

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'unrolled.training' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
