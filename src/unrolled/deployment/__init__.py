"""Inference with trained networks: functions that take a bundle, and their commands (python -m unrolled …).

Names load on first use, so that --help and wrong options are answered before torch is imported.
"""

from unrolled.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
