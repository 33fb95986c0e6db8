"""Options of tasks that generate texts: how they are trained, and how texts are generated in evaluations."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from unrolled.generation.search import Search
from unrolled.training.configuration.flat import check_names
from unrolled.training.tasks.reinforcement import Reinforcement


@dataclass(frozen=True, kw_only=True)
class TeacherForcingOptions:
    """The loss of reference texts.

    Attributes:
        label_smoothing: share of each target that is spread over the vocabulary.
        coverage: weight of the coverage loss (See et al. 2017, eq. 13), per target token; it needs attention.
        scheduled_sampling: probability at the end of training that an input is the network's own prediction; it rises
            linearly from 0 (Bengio et al. 2015).
        hard: options of `Reinforcement`, for a `HardAttention`.

    Raises:
        ValueError: a probability outside [0, 1), a negative weight, an unknown or invalid option of `hard`.
    """

    label_smoothing: float = 0.0
    coverage: float = 0.0
    scheduled_sampling: float = 0.0
    hard: Annotated[Mapping[str, float], Reinforcement] | None = None

    def __post_init__(self) -> None:
        for name in ("label_smoothing", "scheduled_sampling"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number in [0, 1)")
        if not 0 <= self.coverage < float("inf"):
            raise ValueError(f"coverage={self.coverage}: expected 0 or more")
        if self.hard is not None:
            check_names("hard", self.hard, Reinforcement)
            Reinforcement(**self.hard)  # checks the values, with any attention


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """The generation of texts in validations and tests.

    Attributes:
        search: options of the search in the test; see `Search`.
        validation_num_beams: beams of the search in validations; 1 is greedy, and several times faster.
        num_samples: number of examples whose generated texts are shown after every validation.

    Raises:
        ValueError: an unknown or invalid option of the search, no beam, a negative number.
    """

    search: Annotated[Mapping[str, Any], Search] | None = None
    validation_num_beams: int = 1
    num_samples: int = 6

    def __post_init__(self) -> None:
        if self.validation_num_beams < 1 or self.num_samples < 0:
            raise ValueError(
                f"validation_num_beams={self.validation_num_beams} must be 1 or more, num_samples={self.num_samples} "
                "0 or more"
            )
        _ = self.test_search

    @cached_property
    def test_search(self) -> Search:
        """The search in the test."""
        options = dict(self.search or {})
        check_names("search", options, Search)
        return Search(**options).checked()

    @property
    def validation_search(self) -> Search:
        """The search in validations: one text without sampling or penalties of coverage."""
        return self.test_search._replace(
            num_beams=self.validation_num_beams, n_best=1, num_beam_groups=1, coverage_penalty=0.0, temperature=None
        )
