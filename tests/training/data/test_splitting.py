"""One splitter: the known divisions, every example in one split, whole groups, and proportions of labels."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from unrolled.training.data.base import DataError
from unrolled.training.data.options import Batching, SourceOptions, StreamOptions
from unrolled.training.data.splitting import LabeledSplit, Split, borders

FRACTIONS = st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(1, 10)).map(lambda n: [k / sum(n) for k in n])
BY_LABEL = {"train": [1, 3, 4, 5, 10, 11], "validation": [0, 6, 8], "test": [2, 7, 9]}
PLAIN = {"train": [1, 3, 5, 8, 10, 11], "validation": [0, 4, 9], "test": [2, 6, 7]}
law = settings(max_examples=60, derandomize=True, deadline=None)


@law
@given(count=st.integers(0, 60), fractions=FRACTIONS, given_split=st.sampled_from([[], ["test"], ["validation"]]))
def test_the_last_examples_are_split_off_and_none_is_lost(
    count: int, fractions: list[float], given_split: list[str]
) -> None:
    found = Split(split_fractions=fractions).last(count, given_split)

    in_order = [row for name in ("train", "validation", "test") for row in found.get(name, [])]
    assert in_order == list(range(count))
    assert not set(found) & set(given_split)
    if "test" not in given_split:
        assert len(found.get("test", [])) == min(round(count * fractions[2]), count)


@law
@given(groups=st.lists(st.sampled_from("abcdef"), min_size=20, max_size=60), seed=st.integers(0, 5))
def test_no_group_is_divided(groups: list[str], seed: int) -> None:
    split = LabeledSplit(split_fractions=(0.6, 0.2, 0.2), group="speaker", seed=seed)

    try:
        found = split.drawn(None, groups, [])
    except DataError:
        reject()  # fewer groups than splits

    assert sorted(row for rows in found.values() for row in rows) == list(range(len(groups)))
    homes = [{groups[row] for row in rows} for rows in found.values()]
    assert sum(map(len, homes)) == len(set().union(*homes))


def test_a_stratified_split_keeps_proportions_as_scikit_learn_does() -> None:
    labels = list("a" * 300 + "b" * 90 + "c" * 10)
    found = LabeledSplit(split_fractions=(0.8, 0.0, 0.2), seed=3).drawn(labels, [""] * 400, [])

    (_, expected) = next(StratifiedShuffleSplit(1, test_size=0.2, random_state=0).split(labels, labels))

    assert Counter(labels[row] for row in found["test"]) == Counter(labels[row] for row in expected)
    plain = LabeledSplit(split_fractions=(0.8, 0.0, 0.2), seed=3, stratified=False).drawn(labels, [""] * 400, [])
    assert plain["test"].tolist() != found["test"].tolist()


def test_the_division_of_a_seed_stays() -> None:
    """Reported numbers depend on it."""
    split = LabeledSplit(split_fractions=(0.5, 0.25, 0.25), seed=7)

    by_label = split.drawn(list("aabbaabbaabb"), [""] * 12, [])
    plain = split.drawn(None, [""] * 12, [])

    assert {name: rows.tolist() for name, rows in by_label.items()} == BY_LABEL
    assert {name: rows.tolist() for name, rows in plain.items()} == PLAIN


def test_documents_are_divided_by_position() -> None:
    sizes = np.asarray([300, 290, 200, 110, 100])

    assert borders(sizes, [0.6, 0.2, 0.2], whole=False) == [0, 600, 800, 1000]
    assert borders(sizes, [0.6, 0.2, 0.2], whole=True) == [0, 590, 790, 1000]


def test_options_without_sense_are_refused() -> None:
    with pytest.raises(DataError, match="sum to 1"):
        Split(split_fractions=(0.5, 0.1, 0.1))
    with pytest.raises(DataError, match=r"needs data\.group"):
        LabeledSplit(held_out=["ann"])
    with pytest.raises(DataError, match="there is no group 'an'; did you mean ann"):
        LabeledSplit(held_out=["an"], group="speaker").check_held_out(["ann", "bob"])
    with pytest.raises(DataError, match="one of batch_size=3 and batch_tokens=4"):
        Batching(batch_size=3, batch_tokens=4)
    with pytest.raises(DataError, match="workers=-1: must be 0"):
        Batching(batch_size=3, workers=-1)
    with pytest.raises(DataError, match="workers=-2: must be 0"):
        StreamOptions(workers=-2)
    with pytest.raises(DataError, match="validation_files and test_files need files"):
        SourceOptions(test_files="a.txt")
    with pytest.raises(DataError, match="dataset_options need dataset"):
        SourceOptions(files="a.txt", dataset_options={"column": "text"})
