"""Problems of long lags: each sequence is read again by hand, as its paper describes it."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.training.data.base import DataError
from unrolled.training.data.generated import Example, GeneratedData, Problem
from unrolled_tasks.long_lag import (
    Adding,
    Copy,
    DelayedRecall,
    Multiplication,
    NoiseFreeLag,
    NoisyLag,
    TemporalOrder,
)


def drawn(problem: Problem, count: int = 400) -> Iterator[Example]:
    made = GeneratedData(problem, inputs=problem.inputs, target_type=problem.target_type, train_size=count)
    return (made.drawn("train", index) for index in range(count))


def strings(problem: Problem, count: int = 400) -> Iterator[tuple[str, Example]]:
    for example in drawn(problem, count):
        yield "".join(problem.names[i] for i in example.inputs), example


@pytest.mark.parametrize(("problem", "low"), [(Adding(min_length=50), -1.0), (Multiplication(min_length=50), 0.0)])
def test_two_numbers_are_marked_and_the_target_is_theirs(problem: Adding, low: float) -> None:
    lengths, places, numbers, firsts = Counter[int](), Counter[int](), [], 0
    for example in drawn(problem, 3000):
        number, marker = example.inputs.T
        assert example.steps is not None
        assert example.steps.tolist() == [len(number) - 1]
        marked = np.flatnonzero(marker == 1.0)
        ends = {0, len(marker) - 1} - set(marked)
        assert len(marked) == 2
        assert set(np.flatnonzero(marker == -1.0)) == ends
        assert marked[0] < 10
        assert marked[1] < 24
        first, second = (float(number[place]) for place in marked)
        if marked[0] == 0:
            firsts += 1
            assert first == float(isinstance(problem, Multiplication))
        expected = first * second if isinstance(problem, Multiplication) else 0.5 + (first + second) / 4
        assert example.targets.item() == pytest.approx(expected, abs=1e-6)
        lengths[len(number)] += 1
        places.update(marked.tolist())
        numbers += number[1:].tolist()
    assert set(lengths) == set(range(50, 56))
    assert min(lengths.values()) > 400
    assert set(places) == set(range(24))
    assert firsts > 200
    assert (np.min(numbers), np.max(numbers)) == (pytest.approx(low, abs=1e-2), pytest.approx(1.0, abs=1e-2))
    assert np.mean(numbers) == pytest.approx((low + 1) / 2, abs=0.02)


@pytest.mark.parametrize(
    ("relevant", "table"),
    [
        (2, {"XX": "Q", "XY": "R", "YX": "S", "YY": "U"}),
        (3, {"XXX": "Q", "XXY": "R", "XYX": "S", "XYY": "U", "YXX": "V", "YXY": "A", "YYX": "B", "YYY": "C"}),
    ],
)
def test_the_order_of_the_relevant_symbols_is_the_class(relevant: int, table: dict[str, str]) -> None:
    ranges = {2: [(10, 20), (50, 60)], 3: [(10, 20), (33, 43), (66, 76)]}[relevant]
    problem, places, classes, lengths = TemporalOrder(relevant=relevant), [], Counter[str](), set[int]()
    for string, example in strings(problem, 1200):
        assert re.fullmatch("E[abcdXY]+B", string)
        found = [match.start() + 1 for match in re.finditer("[XY]", string)]
        assert len(found) == relevant
        name = problem.outputs[int(example.targets[0])]
        assert table[re.sub("[^XY]", "", string)] == name
        assert example.steps is not None
        assert example.steps.tolist() == [len(string) - 1]
        places.append(found)
        classes[name] += 1
        lengths.add(len(string))
    assert lengths == set(range(100, 111))
    for column, (first, last) in zip(np.array(places).T, ranges, strict=True):
        assert set(column.tolist()) == set(range(first, last + 1))
    assert len(classes) == len(table)
    assert min(classes.values()) > 0.6 * 1200 / len(table)


def test_noise_free_lags() -> None:
    for example in drawn(NoiseFreeLag(lag=5), 20):
        end = example.inputs[0]
        assert end in (0, 1)
        assert example.inputs.tolist() == [end, 2, 3, 4, 5]
        assert example.targets.tolist() == [2, 3, 4, 5, end]
        assert example.truth is not None
        assert example.truth.argmax(1).tolist() == example.targets.tolist()
    problem = NoiseFreeLag(variant="2b", lag=6, symbols=3)
    between = Counter[int]()
    for example in drawn(problem, 300):
        assert len(example.inputs) == 6
        assert example.targets.tolist() == [*example.inputs[1:], example.inputs[0]]
        between.update(example.inputs[1:].tolist())
        assert example.truth is not None
        assert not example.truth[:-1].any()
        right = problem.right(torch.zeros(6, 5) + 0.2, torch.from_numpy(example.truth))
        assert right.tolist() == [True] * 5 + [False]
    assert set(between) == {2, 3, 4}
    problem, lengths = NoiseFreeLag(variant="2c", lag=8, symbols=4), []
    for example in drawn(problem, 2000):
        names = [problem.names[i] for i in example.inputs]
        assert re.fullmatch(r"b[xy](a[1-4]){8,}e", "".join(names))
        assert problem.outputs[int(example.targets[0])] == names[1]
        lengths.append(len(names))
    assert min(lengths) == 8 + 3
    assert np.mean(lengths) == pytest.approx(8 + 3 + 9, abs=0.7)  # 9 further symbols are expected


@pytest.mark.parametrize("variant", ["3a", "3b", "3c"])
def test_noisy_lags(variant: Any) -> None:
    problem = NoisyLag(variant=variant, min_length=30, informative=2)
    firsts, others, targets, truths = [], [], [], []
    for example in drawn(problem, 3000):
        assert example.truth is not None
        numbers, truth = example.inputs[:, 0], float(example.truth[0, 0])
        sign = 1 if round(truth, 3) in (0.2, 1.0) else -1
        assert 30 <= len(numbers) <= 33
        firsts += (sign * numbers[:2]).tolist()
        others += numbers[2:].tolist()
        targets.append(float(example.targets[0, 0]) - truth)
        truths.append(truth)
    assert {round(value, 6) for value in truths} == ({0.2, 0.8} if variant == "3c" else {0.0, 1.0})
    assert np.var(others) == pytest.approx(0.2, abs=0.01)
    assert np.mean(firsts) == pytest.approx(1.0, abs=0.02)
    assert np.var(firsts) == pytest.approx(0.2 if variant == "3b" else 0.0, abs=0.01)
    assert np.var(targets) == pytest.approx(0.1 if variant == "3c" else 0.0, abs=0.01)


def test_copies_and_recalls() -> None:
    for string, example in strings(Copy(lag=7, count=3, symbols=4), 50):
        letters = re.fullmatch("([abcd]{3})_{6}:_{3}", string)
        assert letters is not None
        assert "".join("abcd_"[i] for i in example.targets) == "_" * 10 + letters[1]
    for string, example in strings(DelayedRecall(lag=3, count=8), 50):
        assert example.steps is not None
        for step, target in zip(example.steps, example.targets, strict=True):
            assert string[step - 3] == "abcd"[target]
        assert example.steps.tolist() == list(range(3, 11))


def test_the_criteria_are_those_of_the_papers() -> None:
    assert Adding().criterion == (0.04, 0.0, 0.01)
    assert Multiplication().criterion == (0.04, 12 / 2000, float("inf"))
    assert TemporalOrder().criterion == (0.3, 0.0, 0.1)
    assert [NoiseFreeLag(variant=each).criterion.tolerance for each in ("2a", "2b", "2c")] == [0.25, 0.25, 0.2]
    right = TemporalOrder().right(torch.tensor([[0.71, 0.1, 0.1, 0.09], [0.69, 0.11, 0.1, 0.1]]), torch.eye(4)[[0, 0]])
    assert right.tolist() == [True, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adding(min_length=21), "min_length=21: expected 22 or more"),
        (lambda: TemporalOrder(relevant=4), "relevant=4: expected 2 or 3"),
        (lambda: NoiseFreeLag(variant="2d"), "variant=2d: expected 2a, 2b or 2c"),  # pyright: ignore[reportArgumentType]
        (lambda: NoiseFreeLag(lag=1), "lag=1: expected 2 or more"),
        (lambda: NoiseFreeLag(symbols=4), "symbols=4: expected 1 or more; 2a takes null"),
        (lambda: NoisyLag(variant="4"), "variant=4: expected 3a, 3b or 3c"),  # pyright: ignore[reportArgumentType]
        (lambda: NoisyLag(informative=200), "informative=200, min_length=100"),
        (lambda: Copy(lag=0), "lag=0, count=10: expected 1 or more"),
        (lambda: Copy(symbols=1), "symbols=1: expected 2 to 26"),
        (lambda: DelayedRecall(lag=-1), "lag=-1, count=50"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()
