"""Tokens out of a decoder: drawn, searched for, or written by several networks as one."""

from unrolled.generation.beam import Hypotheses as Hypotheses
from unrolled.generation.beam import beam_search as beam_search
from unrolled.generation.ensemble import EnsembleDecoder as EnsembleDecoder
from unrolled.generation.sampling import Generated as Generated
from unrolled.generation.sampling import greedy as greedy
from unrolled.generation.sampling import own_inputs as own_inputs
from unrolled.generation.sampling import sample as sample

__all__ = ["EnsembleDecoder", "Generated", "Hypotheses", "beam_search", "greedy", "own_inputs", "sample"]
