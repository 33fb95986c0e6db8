"""Generation of tokens with a decoder: sampling, beam search and ensembles; and transcripts of a CTC network."""

from unrolled.generation.beam import Hypotheses as Hypotheses
from unrolled.generation.beam import beam_search as beam_search
from unrolled.generation.ctc import LanguageModel as LanguageModel
from unrolled.generation.ctc import ctc_alignment as ctc_alignment
from unrolled.generation.ctc import ctc_beam_search as ctc_beam_search
from unrolled.generation.ensemble import EnsembleDecoder as EnsembleDecoder
from unrolled.generation.sampling import Generated as Generated
from unrolled.generation.sampling import greedy as greedy
from unrolled.generation.sampling import sample as sample
from unrolled.generation.sampling import scheduled_sampling as scheduled_sampling

__all__ = [
    "EnsembleDecoder",
    "Generated",
    "Hypotheses",
    "LanguageModel",
    "beam_search",
    "ctc_alignment",
    "ctc_beam_search",
    "greedy",
    "sample",
    "scheduled_sampling",
]
