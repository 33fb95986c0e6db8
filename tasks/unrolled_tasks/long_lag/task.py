"""Problems whose targets depend on what was read long before."""

from unrolled.training.tasks.generated import GeneratedTask


class LongLag(GeneratedTask):
    """Trains a network on a problem of long lags; see `GeneratedTask` for the metrics.

    `solved` is the criterion of the problem's paper, on the sequences of a split.
    """
