"""Estimators in scikit-learn's conventions, for notebooks: from arrays to a trained network, without a configuration.

They compose a configuration, train a task of it in a temporary folder, and keep the bundle. What a network, a loss or a
loader is belongs to the other packages.
"""

from unrolled.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
