"""Training tools: the only package that may import lightning, hydra, torchmetrics and datasets.

Names load on first use, so that a mistake in a configuration is reported before torch is imported.
"""

from unrolled.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
