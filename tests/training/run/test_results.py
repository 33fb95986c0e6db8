"""The best job of a sweep, and the axes of its picture."""

import math

import pytest

from unrolled.training.run.parallel_coordinates import axis_of
from unrolled.training.run.records import BROKEN, COMPLETE, PRUNED, JobRecord
from unrolled.training.run.results import best_job


def job(number: int, score: float | None, mode: str = "min", state: str = COMPLETE, metric: str = "m") -> JobRecord:
    numbers = {} if score is None else {"best_validation": score}
    return JobRecord(number, (), str(number), state=state, numbers=numbers, monitor={"metric": metric, "mode": mode})


@pytest.mark.parametrize(
    ("jobs", "best"),
    [
        ([job(0, 2.0), job(1, 0.0), job(2, 1.0)], 1),
        ([job(0, 2.0, "max"), job(1, 0.0, "max")], 0),
        ([job(0, -2.0, "max"), job(1, 0.0, "max")], 1),
        ([job(0, math.nan), job(1, math.inf), job(2, 3.0)], 2),
        ([job(0, 1.0, state=PRUNED), job(1, 0.5, state=BROKEN), job(2, 3.0)], 2),
        ([job(0, 1.0), job(1, 2.0, metric="another")], None),  # cannot be compared
        ([job(0, None)], None),
        ([], None),
    ],
)
def test_the_best_job_has_the_best_score_of_those_that_finished(jobs: list[JobRecord], best: int | None) -> None:
    found = best_job(jobs)

    assert (None if found is None else found.number) == best


def test_axes_are_linear_or_logarithmic_or_of_categories() -> None:
    assert axis_of(["1", "3", "2"]).heights == [0, 1, 0.5]
    assert axis_of(["1e-4", "1e-2", "1e-3"]).heights == pytest.approx([0, 1, 0.5])
    assert axis_of(["0", "100", "50"]).heights == [0, 1, 0.5]  # zero has no logarithm
    assert axis_of(["gru", "lstm", "gru", "elman"]) == ([0, 0.5, 0, 1], [(0, "gru"), (0.5, "lstm"), (1, "elman")])
    assert axis_of(["7", "7"]) == ([0.5, 0.5], [(0.5, "7")])
    assert axis_of(["'a b'", "null"]).ticks == [(0, "a b"), (1, "null")]
    many = axis_of([str(number) for number in range(100)])
    assert many.ticks == [(0, "0"), (0.5, "49.5"), (1, "99")]
    crowded = axis_of([repr(10 ** (-number / 20)) for number in range(100)])
    assert crowded.ticks[1] == (0.5, f"{10 ** (-99 / 40):.4g}")
