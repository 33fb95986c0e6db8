"""Prediction of the next symbol of a grammar's strings."""

from collections.abc import Mapping, Sequence

from unrolled.training.tasks.generated import Answer, GeneratedTask


class Grammar(GeneratedTask):
    """Trains a network to predict the next symbol of strings; see `GeneratedTask` for the metrics.

    `exact_match` is the share of strings that are predicted legally throughout, and `symbols_before_mistake` the mean
    number of symbols predicted legally before the first mistake, as Gers, Schmidhuber & Cummins 2000 count them.
    """

    def scores(self, means: Mapping[str, float], rows: Sequence[Answer]) -> dict[str, float]:
        """Returns the metrics; see the class."""
        before = sum(row.before_mistake for row in rows) / max(len(rows), 1)
        return {**super().scores(means, rows), "symbols_before_mistake": before}
