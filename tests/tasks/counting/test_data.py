"""Formal languages against counting, brute force and Python's own arithmetic."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from unrolled.training.data.base import DataError
from unrolled.training.data.generated import Example, GeneratedData, Problem
from unrolled_tasks.counting import Counted, Dyck, EvenPairs, ModularArithmetic, Parity


def data(problem: Problem, **options: Any) -> GeneratedData:
    sizes = {"train_size": 400, "validation_size": 50, "test_size": 50}
    made = GeneratedData(problem, target_type=problem.target_type, **{**sizes, **options})
    made.prepare()
    return made


def drawn(problem: Problem, split: str = "train", count: int = 400) -> Iterator[tuple[str, Example]]:
    made = data(problem, **{f"{split}_size": count})
    for index in range(count):
        example = made.drawn(split, index)
        yield "".join(problem.names[i] for i in example.inputs), example


def named(problem: Problem, row: Any) -> str:
    return "".join(name for name, present in zip(problem.outputs, row, strict=True) if present)


@pytest.mark.parametrize("letters", [2, 3, 4])
def test_only_what_completes_a_string_may_come_next(letters: int) -> None:
    problem = Counted(letters=letters, train_n=(1, 5), test_n=(3, 9))
    language = ["".join(letter * n for letter in problem.alphabet) + "T" for n in range(30)]

    for string, example in drawn(problem, count=10):
        assert string[0] == "S"
        assert string[1:] + "T" in language
        for step, row in enumerate(example.targets):
            beginning = string[1 : step + 1]
            after = {word[len(beginning)] for word in language if word.startswith(beginning) and word != beginning}
            assert named(problem, row) == "".join(sorted(after - {"T"})) + "T" * ("T" in after)


def test_training_takes_turns_and_scores_have_each_n_once() -> None:
    made = data(Counted(train_n=(2, 4), test_n=(3, 9)), train_size=7, test_size=1)

    assert [len(made.drawn("train", index).inputs) // 2 for index in range(7)] == [2, 3, 4, 2, 3, 4, 2]
    assert [len(made.drawn("validation", index).inputs) // 2 for index in range(3)] == [2, 3, 4]
    assert sorted(n for batch in made.test_dataloader() for n in (batch.lengths // 2).tolist()) == list(range(3, 10))
    assert made.describe().startswith("train 7, validation 3, test 7 sequences of Counted(letters=2, train_n=(2, 4)")


def balanced(pairs: int) -> list[str]:
    if not pairs:
        return [""]
    halves = [(balanced(left), balanced(pairs - 1 - left)) for left in range(pairs)]
    return [f"({inner}){after}" for first, second in halves for inner in first for after in second]


def test_brackets_are_balanced_equally_likely_and_what_may_follow_is_told() -> None:
    problem = Dyck(train_lengths=(8, 8), test_lengths=(2, 12))
    every = balanced(4)
    counts = Counter(string[1:] for string, _ in drawn(problem, count=7000))

    assert set(counts) == set(every)
    assert len(every) == 14
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 34.5  # chi-square, 13 degrees, p = 0.001
    words = [f"{word}T" for pairs in range(8) for word in balanced(pairs)]
    for string, example in drawn(problem, "test", 60):
        for step, row in enumerate(example.targets):
            beginning = string[1 : step + 1]
            after = {word[len(beginning)] for word in words if word.startswith(beginning)}
            assert named(problem, row) == "".join(symbol for symbol in "()T" if symbol in after)


def test_parity_and_even_pairs_are_counted() -> None:
    for problem, count in (
        (Parity(), lambda text: text.count("b")),
        (EvenPairs(), lambda text: sum(text[i : i + 2] in ("ab", "ba") for i in range(len(text)))),
    ):
        for string, example in drawn(problem):
            assert len(string) <= 40
            assert example.steps is not None
            assert example.steps.tolist() == [len(string) - 1]
            assert example.targets.tolist() == [count(string) % 2]
        assert all(41 <= len(string) <= 256 for string, _ in drawn(problem, "test", 50))
    for string, example in drawn(EvenPairs(every_step=True, train_lengths=(1, 9)), count=50):
        assert example.steps is None
        assert example.targets.tolist() == [int(string[0] != symbol) for symbol in string]


def test_arithmetic_is_that_of_python() -> None:
    for modulus in (2, 5, 10):
        for string, example in drawn(ModularArithmetic(modulus=modulus), count=200):
            assert example.targets.tolist() == [eval(string) % modulus]
            assert example.steps is not None
            assert example.steps.tolist() == [len(string) - 1]
    lengths = Counter(len(string) for string, _ in drawn(ModularArithmetic(train_lengths=(1, 6)), count=300))
    assert set(lengths) == {1, 3, 5}
    assert min(lengths.values()) > 60
    answers = np.bincount([int(e.targets[0]) for _, e in drawn(ModularArithmetic(), count=400)])
    assert answers.min() > 30  # every class occurs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Counted(letters=1), "letters=1: expected 2 to 18"),
        (lambda: Counted(train_n=(5, 2)), r"train_n=\[5, 2\]: expected \[shortest, longest\], with 1 ≤ shortest"),
        (lambda: Parity(train_lengths=(0, 2)), r"train_lengths=\[0, 2\]: expected"),
        (lambda: EvenPairs(test_lengths=(1,)), r"test_lengths=\[1\]: expected"),
        (lambda: Dyck(train_lengths=(3, 3)), "balanced brackets have an even length"),
        (lambda: ModularArithmetic(modulus=1), "modulus=1: expected 2 to 10"),
        (lambda: ModularArithmetic(test_lengths=(4, 4)), "digits with operators between them have an odd length"),
        (lambda: GeneratedData(Parity(), target_type="labels"), "target_type=labels: Parity needs target_type=class"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()
