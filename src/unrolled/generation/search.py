"""How a text is looked for: one set of options for tasks, functions and commands."""

from typing import NamedTuple

from unrolled.generation.beam import check_options
from unrolled.generation.limits import check_temperature, finite, whole


class Search(NamedTuple):
    """How a text is looked for; the defaults suit translation.

    Attributes:
        num_beams: hypotheses kept at each step; 1 is greedy.
        length_penalty: α of GNMT's length normalization (Wu et al. 2016, eq. 14); 0 for none, which favours short ones.
        coverage_penalty: β of the same equation; needs attention.
        n_best: alternatives given back.
        num_beam_groups: diverse beam search in so many groups (Vijayakumar et al. 2018).
        diversity_penalty: what a token costs that an earlier group has taken at the same step.
        no_repeat_ngram_size: no n-gram of this size comes twice; 0 allows all.
        max_ratio: tokens written at most, per token of the source …
        max_extra: … and beyond.
        min_ratio: tokens written at least, per token of the source.
        temperature: draw at random at this temperature instead of searching; None searches.
    """

    num_beams: int = 5
    length_penalty: float = 1.0
    coverage_penalty: float = 0.0
    n_best: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    max_ratio: float = 2.0
    max_extra: int = 10
    min_ratio: float = 0.0
    temperature: float | None = None

    def checked(self) -> "Search":
        """The same options.

        Raises:
            ValueError: an option outside its range, or a random search for several alternatives.
        """
        check_options(
            num_beams=self.num_beams,
            n_best=self.n_best,
            num_beam_groups=self.num_beam_groups,
            diversity_penalty=self.diversity_penalty,
            length_penalty=self.length_penalty,
            coverage_penalty=self.coverage_penalty,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
        )
        finite(max_ratio=self.max_ratio, min_ratio=self.min_ratio)
        whole(0, max_extra=self.max_extra)
        if self.max_ratio + self.max_extra == 0:
            raise ValueError(
                f"max_ratio={self.max_ratio}, max_extra={self.max_extra}: tokens per source token and beyond, "
                "0 or more, not both 0"
            )
        if self.min_ratio > self.max_ratio:
            raise ValueError(f"min_ratio={self.min_ratio}: from 0 to max_ratio, which is {self.max_ratio}")
        if self.temperature is not None:
            check_temperature(self.temperature)
        if self.temperature is not None and self.n_best > 1:
            raise ValueError(f"n_best={self.n_best} with a temperature: texts drawn at random come one by one")
        return self
