"""Training and inference tools that import lightning, hydra, torchmetrics and datasets: the only room that may.

Names load on first use, so that a mistake in a configuration is answered before torch is imported.
"""

from unrolled.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
