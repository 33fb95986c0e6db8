"""What a network reads of words: the vocabulary is that of the training texts, and of a file if asked for."""

from pathlib import Path
from typing import Any

import pytest

from unrolled.training.data.base import DataError
from unrolled.training.data.words import WordOptions

TEXTS = [["The", "cat", "sat"], ["the", "dog", "sat"]]


def vocabulary(**options: Any) -> list[str]:
    transform: Any = WordOptions(min_count=1, **options).fit(TEXTS)
    return (transform.words if options["unit"] == "spelled" else transform.tokenizer).words


@pytest.mark.parametrize("unit", ["spelled", "word"])
def test_words_of_a_file_follow_those_of_the_texts_each_once_in_order(unit: str, tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("6 2\nzebra 1 2\nCat 1 2\nzebra 3 4\nApe 1 2\n\nbird 5 6\n")
    alone = vocabulary(unit=unit)

    assert sorted(alone) == ["cat", "dog", "sat", "the"]
    assert vocabulary(unit=unit, words_from=str(file)) == [*alone, "zebra", "ape", "bird"]
    assert vocabulary(unit=unit, words_from=str(file), vocabulary_size=6) == [*alone, "zebra", "ape"]
    assert vocabulary(unit=unit, words_from=str(file), vocabulary_size=3) == alone[:3]
    assert "Cat" in vocabulary(unit=unit, words_from=str(file), lowercase=False)


def test_words_of_a_file_need_a_unit_of_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"words_from=a\.txt: needs unit=spelled or unit=word, got unit=byte"):
        WordOptions(unit="byte", words_from="a.txt")
    with pytest.raises(DataError, match="no file or folder"):
        WordOptions(words_from=str(tmp_path / "none.txt")).fit(TEXTS)
