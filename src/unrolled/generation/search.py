"""Search options, shared by tasks, functions and commands."""

from typing import NamedTuple

from unrolled.generation.beam import check_options
from unrolled.generation.limits import finite, whole
from unrolled.heads.temperature import check_temperature


class Search(NamedTuple):
    """Search options. The defaults suit translation.

    Attributes:
        num_beams: number of hypotheses kept at each step; 1 for greedy search.
        length_penalty: α of the length normalization of Wu et al. 2016, eq. 14; 0 for none, which favors short texts.
        coverage_penalty: β of the same equation; it needs attention.
        n_best: number of alternatives returned.
        num_beam_groups: number of groups of a diverse beam search (Vijayakumar et al. 2018).
        diversity_penalty: penalty of a token that an earlier group has chosen at the same step.
        no_repeat_ngram_size: size of n-grams that can't be repeated; 0 for no limit.
        max_ratio: the maximum number of tokens is max_ratio times that of the source, plus max_extra.
        max_extra: see max_ratio.
        min_ratio: minimum number of tokens per token of the source.
        temperature: temperature for sampling instead of a search; None for a search.
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
        """Check the options and return them.

        Raises:
            ValueError: an option outside its range, or sampling with several alternatives.
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
                f"max_ratio={self.max_ratio}, max_extra={self.max_extra}: expected numbers of tokens, 0 or more and "
                "not both 0"
            )
        if self.min_ratio > self.max_ratio:
            raise ValueError(f"min_ratio={self.min_ratio}: expected 0 to max_ratio, which is {self.max_ratio}")
        if self.temperature is not None:
            check_temperature(self.temperature)
        if self.temperature is not None and self.n_best > 1:
            raise ValueError(f"n_best={self.n_best} with a temperature: sampling returns one text; set n_best to 1")
        return self
