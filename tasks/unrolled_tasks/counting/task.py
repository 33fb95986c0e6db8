"""Formal languages, learned from short strings and tested on long ones."""

from collections.abc import Mapping, Sequence

from unrolled.training.tasks.generated import Answer, GeneratedTask
from unrolled_tasks.counting.counters import Counted


class Counting(GeneratedTask):
    """Trains a network on a formal language; see `GeneratedTask` for the metrics.

    For strings aⁿbⁿ, `largest_n` is the greatest n up to which all strings are accepted, 0 if the first one is not.
    """

    def scores(self, means: Mapping[str, float], rows: Sequence[Answer]) -> dict[str, float]:
        """Returns the metrics; see the class."""
        found = super().scores(means, rows)
        if not isinstance(self.problem, Counted):
            return found
        return {**found, "largest_n": float(max(found["solved_length"] - 1, 0) // self.problem.letters)}
