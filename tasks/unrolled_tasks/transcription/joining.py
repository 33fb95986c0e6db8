"""Longer recordings, made by joining short ones: connected digits from single ones."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.training.data.base import SPLITS, DataError


class Opened(NamedTuple):
    """An opened source with its transcript."""

    source: Tensor
    text: str
    name: str  # by which the user can find it
    place: str  # path or row, for messages


class Joining:
    """Joins random recordings, all of one speaker, and their transcripts with a space between them.

    A joined recording depends on the seed, its split and its number alone.

    Args:
        train_size: number of joined recordings.
        validation_size: number of joined recordings.
        test_size: number of joined recordings.
        min_items: least number of recordings in one.
        max_items: greatest number of recordings in one.
        pause: maximum silence before, between and after them, in seconds.
        speaker: regular expression for the speaker in the name of a recording's file; None to join any recordings.
        seed: seed of the choice.

    Raises:
        DataError: numbers below 1, min_items above max_items, a negative pause, or an invalid expression.
    """

    def __init__(
        self,
        train_size: int = 4000,
        validation_size: int = 200,
        test_size: int = 500,
        min_items: int = 1,
        max_items: int = 7,
        pause: float = 0.2,
        speaker: str | None = None,
        seed: int = 0,
    ) -> None:
        sizes = (train_size, validation_size, test_size)
        if min(*sizes, min_items) < 1 or min_items > max_items or not 0 <= pause < float("inf"):
            raise DataError(
                f"join: train_size, validation_size and test_size={sizes}, min_items={min_items}, "
                f"max_items={max_items}, pause={pause}: must be 1 or more, min_items at most max_items, and a pause of "
                "0 seconds or more"
            )
        try:
            self._speaker = None if speaker is None else re.compile(speaker)
        except re.error as error:
            raise DataError(f"join: speaker={speaker!r} is not a valid regular expression: {error}") from error
        self.sizes: dict[str, int] = dict(zip(SPLITS, sizes, strict=True))
        self.min_items, self.max_items, self.pause, self.seed = min_items, max_items, pause, seed

    def __call__(self, split: str, opened: Sequence[Opened], rate: int) -> list[Opened]:
        """Returns the joined recordings of a split.

        Args:
            split: name of the split.
            opened: recordings (samples,).
            rate: their sampling rate in hertz.

        Raises:
            DataError: a name without a speaker.
        """
        random = Random(f"{self.seed} {split}")
        groups: dict[str, list[Opened]] = defaultdict(list)
        for each in opened:
            groups[self._speaker_of(each)].append(each)
        names = sorted(groups)
        return [
            self._joined(random, groups[random.choice(names)], rate, f"{split} {number}")
            for number in range(self.sizes[split])
        ]

    def _speaker_of(self, each: Opened) -> str:
        if self._speaker is None:
            return ""
        found = self._speaker.search(Path(each.name).name)
        if found is None:
            raise DataError(f"{each.place}: its name does not match data.join.speaker={self._speaker.pattern!r}")
        return found[0]

    def _joined(self, random: Random, members: Sequence[Opened], rate: int, name: str) -> Opened:
        chosen = [random.choice(members) for _ in range(random.randint(self.min_items, self.max_items))]
        pieces: list[Tensor] = [self._silence(random, rate)]
        for each in chosen:
            pieces += [each.source, self._silence(random, rate)]
        text = " ".join(each.text for each in chosen)
        return Opened(torch.cat(pieces), text, name, " + ".join(each.place for each in chosen))

    def _silence(self, random: Random, rate: int) -> Tensor:
        return torch.zeros(round(random.random() * self.pause * rate))
