"""A run from its configuration to its summary, and the commands that start one.

Names load on first use, so that a mistake in a configuration is answered before torch is imported.
"""

from unrolled.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
