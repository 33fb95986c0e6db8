"""Numbers that are no numbers: what ends a run because nothing good can follow."""


class NonFiniteError(RuntimeError):
    """A NaN or an infinity where training can't go on with one."""


class NonFiniteGradient(NonFiniteError):  # noqa: N818 - what it is, as StopIteration
    """A gradient that is NaN or infinite, met where nothing was allowed to skip it."""


class NonFiniteWeights(NonFiniteError):  # noqa: N818
    """A weight that is NaN or infinite."""
