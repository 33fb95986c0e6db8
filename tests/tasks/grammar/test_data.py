"""Reber strings against a regular expression, legal symbols against what is seen, and the laws of generated data."""

import re
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.training.data.base import DataError
from unrolled.training.data.generated import GeneratedData
from unrolled_tasks.grammar import Reber
from unrolled_tasks.grammar.reber import SYMBOLS

_LOOP = "T*V(?:PXT*V)*(?:V|PS)"  # from the lower left node of the graph to its end
PLAIN = f"B(?:TS*X(?:S|X{_LOOP})|P{_LOOP})E"
EMBEDDED = f"B(?:T{PLAIN}T|P{PLAIN}P)E"


def data(**options: Any) -> GeneratedData:
    problem = options.pop("problem", Reber())
    made = GeneratedData(problem, **{"train_size": 200, "validation_size": 50, "test_size": 50, **options})
    made.prepare()
    return made


def strings(made: GeneratedData, split: str, count: int) -> list[str]:
    found = []
    for index in range(count):
        example = made.drawn(split, index)
        assert (example.inputs[1:] == example.targets[:-1]).all()
        found.append("".join(SYMBOLS[i] for i in [*example.inputs, example.targets[-1]]))
    return found


@pytest.mark.parametrize(("embedded", "pattern"), [(False, PLAIN), (True, EMBEDDED)])
def test_strings_are_of_the_grammar(embedded: bool, pattern: str) -> None:
    found = strings(data(problem=Reber(embedded=embedded), train_size=3000), "train", 3000)

    assert all(re.fullmatch(pattern, string) for string in found)
    # Expected symbols of a string from the absorbing chain of the graph: from nodes 0 to 5, E among them.
    edges = np.zeros((6, 6))
    for node, targets in {0: (1, 2), 1: (1, 3), 2: (2, 4), 3: (2, 5), 4: (3, 5)}.items():
        edges[node, targets] = 0.5
    expected = 1 + np.linalg.solve(np.eye(6) - edges, np.ones(6))[0] + 4 * embedded
    assert np.mean([len(string) for string in found]) == pytest.approx(expected, abs=0.25)


@pytest.mark.parametrize("embedded", [False, True])
def test_legal_symbols_are_those_that_are_seen_after_a_beginning(embedded: bool) -> None:
    made = data(problem=Reber(embedded=embedded), train_size=4000)
    seen: dict[str, list[str]] = defaultdict(list)
    legal: dict[str, set[str]] = {}
    for index, string in enumerate(strings(made, "train", 4000)):
        truth = made.drawn("train", index).truth
        assert truth is not None
        for step in range(1, len(string)):
            seen[string[:step]].append(string[step])
            now = {symbol for symbol, possible in zip(SYMBOLS, truth[step - 1], strict=True) if possible}
            assert legal.setdefault(string[:step], now) == now

    frequent = {beginning: set(after) for beginning, after in seen.items() if len(after) >= 40}
    assert len(frequent) > 30
    assert {beginning: legal[beginning] for beginning in frequent} == frequent


def test_a_stream_is_a_row_of_strings_cut_at_its_end() -> None:
    made = data(problem=Reber(stream=100, test_stream=700), train_size=3)
    (whole,) = strings(made, "test", 1)
    (short,) = strings(made, "train", 1)

    assert (len(whole), len(short)) == (701, 101)
    assert re.fullmatch(f"(?:{EMBEDDED})+", whole[: whole.rindex("EB") + 1])
    example = made.drawn("test", 0)
    assert example.truth is not None
    after = [i + 2 for i in range(2, 699) if whole[i : i + 3] in ("ETE", "EPE")]
    assert all(example.truth[i].tolist() == [1.0, 0, 0, 0, 0, 0, 0] for i in after if i < 700)  # B alone may follow


def test_a_prediction_is_right_if_all_legal_symbols_are_the_most_active() -> None:
    legal = torch.tensor([0, 1, 0, 0, 1, 0, 0.0])
    outputs = [[0.1, 0.3, 0.1, 0.1, 0.2, 0.1, 0.1], [0.1, 0.7, 0.05, 0.0, 0.05, 0.1, 0.0], [0.1, 0.3, 0, 0, 0.1, 0, 0]]

    right = Reber().right(torch.tensor(outputs), legal.expand(3, 7))

    assert right.tolist() == [True, False, False]  # the last is a tie


def test_an_example_follows_from_seed_split_and_number() -> None:
    one, same, other = data(seed=3), data(seed=3, train_size=5), data(seed=4)

    assert strings(one, "train", 5) == strings(same, "train", 5) != strings(other, "train", 5)
    assert strings(one, "train", 5) != strings(one, "test", 5)
    assert one.fingerprint() != same.fingerprint() != other.fingerprint()


def test_distinct_examples_and_training_examples_among_the_scored() -> None:
    made = data(distinct=True, score_train=True, train_size=100, scoring_batch_size=150)

    train, test = set(strings(made, "train", 100)), set(strings(made, "test", 50))
    assert not train & test
    assert set(strings(data(train_size=100), "train", 100)) & set(strings(data(), "test", 50))
    (batch,) = made.test_dataloader()
    assert sorted(batch.examples.tolist()) == list(range(150))
    row = batch.examples.tolist().index(149)
    assert (batch.source[row, : batch.lengths[row]].numpy() == made.drawn("train", 99).inputs).all()
    assert len(list(made.train_dataloader())) == -(-100 // 32)


def test_a_batch_has_its_examples_and_zeros_after_them() -> None:
    made = data()

    batch = next(iter(made.val_dataloader()))

    assert batch.truth.shape == (*batch.targets.shape, 7)
    for row, index in enumerate(batch.examples.tolist()):
        example, n = made.drawn("validation", index), int(batch.lengths[row])
        assert (batch.source[row, :n].numpy() == example.inputs).all()
        assert (batch.targets[row, :n].numpy() == example.targets).all()
        assert (batch.truth[row, :n].numpy() == example.truth).all()
        assert not batch.truth[row, n:].any()
    assert made.processor().source.decode(batch.source[0].tolist())[0] == "B"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 0}, "train_size=0: expected 1 or more"),
        ({"test_size": -1}, r"test_size=-1: expected 0 \(no such split\) or more"),
        ({"inputs": "frame"}, "inputs=frame: Reber needs inputs=symbol"),
        ({"target_type": "labels"}, "target_type=labels: Reber needs target_type=class"),
        ({"scoring_batch_size": 0}, "scoring_batch_size=0 must be 1 or more"),
        ({"problem": Reber(embedded=False), "distinct": True, "train_size": 20000}, "in a row are among the"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unrolled.training.data.generated._ATTEMPTS", 3)
    with pytest.raises(DataError, match=message):
        data(**options)


def test_streams_need_symbols() -> None:
    with pytest.raises(DataError, match="stream=0, test_stream=None: expected 1 or more"):
        Reber(stream=0)
    with pytest.raises(DataError, match="test_stream=5 needs stream"):
        Reber(test_stream=5)
