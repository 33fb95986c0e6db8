"""Errors raised when training diverges: NaN and infinite values, and losses that spike again and again."""


class NonFiniteError(RuntimeError):
    """A NaN or infinite value that training cannot continue with."""


class NonFiniteGradient(NonFiniteError):  # noqa: N818 - named like StopIteration
    """A gradient that is NaN or infinite, and may not be skipped."""


class NonFiniteWeights(NonFiniteError):  # noqa: N818 - as above
    """A weight that is NaN or infinite."""


class NonFiniteOutputs(NonFiniteError):  # noqa: N818 - as above
    """Predictions that are NaN or infinite, of finite weights."""


class Diverged(NonFiniteError):  # noqa: N818 - as above
    """A loss that spikes more often than training may be rolled back."""
