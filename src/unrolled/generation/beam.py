"""Beam search with any `Decoder`, whose state is reordered with `state.select`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.generation.limits import (
    blocked_row,
    check_beginning,
    check_time,
    finite,
    forbid,
    forbid_repeats,
    per_row,
    undefined,
    undefined_row,
    whole,
)
from unrolled.models.decoders.base import Decoder, DecoderState
from unrolled.state import select


class Hypotheses(NamedTuple):
    """The results of a search for each row, the best first."""

    tokens: Tensor  # (batch, n_best, length), padded with the stop symbol
    lengths: Tensor  # (batch, n_best): number of tokens before the stop symbol
    scores: Tensor  # (batch, n_best), in descending order; −∞ where a row has fewer hypotheses
    log_probability: Tensor  # (batch, n_best): of all tokens and the stop symbol, in nats
    weights: Tensor | None  # (batch, n_best, length + 1, source): attention at each step, including the stop symbol


class _Options(NamedTuple):
    stop: int
    num_beams: int
    num_beam_groups: int
    diversity_penalty: float
    length_penalty: float
    coverage_penalty: float
    n_best: int
    no_repeat_ngram_size: int
    forbidden: Sequence[int]


def beam_search(
    decoder: Decoder,
    state: DecoderState,
    memory: Any = None,
    *,
    start: Tensor,
    stop: int,
    num_beams: int = 5,
    max_length: int | Tensor,
    min_length: int | Tensor = 0,
    length_penalty: float = 0.0,
    coverage_penalty: float = 0.0,
    n_best: int = 1,
    num_beam_groups: int = 1,
    diversity_penalty: float = 0.0,
    no_repeat_ngram_size: int = 0,
    forbidden: Sequence[int] = (),
) -> Hypotheses:
    """Search for the texts with the highest score log P(Y|X) / lp(Y) + cp(X; Y).

    Wu et al. 2016, "Google's Neural Machine Translation System", eq. 14, with lp(Y) = ((5 + |Y|) / 6)^α and
    cp = β Σ_i log min(Σ_j p_ij, 1), where |Y| counts the stop symbol. A finished hypothesis keeps its place in the
    beam, so a search with one beam is greedy. A row is finished if none of its open hypotheses can have a higher score
    than its n_best finished ones, and is then removed from the batch. A hypothesis of length max_length ends without a
    stop symbol.

    Args:
        decoder: the decoder, usually in evaluation mode.
        state: the decoder's state before `start`, with a row for each text.
        memory: the memory that `Decoder.start` returned.
        start: (batch,) the first token ids.
        stop: the token that ends a text.
        num_beams: number of hypotheses kept at each step.
        max_length: maximum number of generated tokens, one for all rows or (batch,).
        min_length: minimum number of tokens before the stop symbol, one for all rows or (batch,).
        length_penalty: α; with 0, log probabilities are compared.
        coverage_penalty: β; 0 for none. It needs a decoder with attention weights.
        n_best: number of hypotheses returned for each row.
        num_beam_groups: number of groups of beams, which are extended one after another (Vijayakumar et al. 2018,
            "Diverse Beam Search").
        diversity_penalty: λ, subtracted from a token's score for each hypothesis of an earlier group that has chosen
            the token at the same step.
        no_repeat_ngram_size: size of n-grams that can't be repeated; 0 for no limit.
        forbidden: tokens that are never generated.

    Raises:
        ShapeError: a state or a memory of another batch than `start`.
        ValueError: an option outside its range, a coverage penalty without attention, unknown tokens, a row for which
            the options allow no token, logits that are NaN or infinite.
    """
    options = _Options(
        stop,
        num_beams,
        num_beam_groups,
        diversity_penalty,
        length_penalty,
        coverage_penalty,
        n_best,
        no_repeat_ngram_size,
        forbidden,
    )
    check_options(
        num_beams=num_beams,
        n_best=n_best,
        num_beam_groups=num_beam_groups,
        diversity_penalty=diversity_penalty,
        length_penalty=length_penalty,
        coverage_penalty=coverage_penalty,
        no_repeat_ngram_size=no_repeat_ngram_size,
    )
    check_beginning(decoder, state, memory, start, stop, forbidden)
    most, least = per_row(max_length, start, "max_length"), per_row(min_length, start, "min_length")
    if bool((least > most).any()):
        raise ValueError("min_length is above max_length; lower it, or raise max_length")
    longest = int(most.max()) if len(most) else 0
    try:
        finite(**{"": _length_norm(longest + 1, length_penalty)})
    except (OverflowError, ValueError):
        raise ValueError(f"length_penalty={length_penalty} is too large for texts of {longest} tokens") from None
    beam = _Beam(options, start, most, least, state, memory)
    with torch.no_grad():
        while beam.open:
            check_time()
            beam.advance(decoder)
    return beam.best()


def check_options(
    *,
    num_beams: int,
    n_best: int,
    num_beam_groups: int,
    diversity_penalty: float,
    length_penalty: float,
    coverage_penalty: float,
    no_repeat_ngram_size: int,
) -> None:
    """Check the options of `beam_search` that don't depend on its other arguments.

    Raises:
        ValueError: an option outside its range.
    """
    whole(1, num_beams=num_beams, n_best=n_best, num_beam_groups=num_beam_groups)
    whole(0, no_repeat_ngram_size=no_repeat_ngram_size)
    finite(diversity_penalty=diversity_penalty, length_penalty=length_penalty, coverage_penalty=coverage_penalty)
    if n_best > num_beams:
        raise ValueError(f"num_beams={num_beams} and n_best={n_best}: expected n_best at most num_beams")
    if num_beams % num_beam_groups:
        raise ValueError(f"num_beam_groups={num_beam_groups}: expected a divisor of num_beams={num_beams}")


@dataclass
class _Finished:
    """Finished hypotheses of all rows, (batch, num_beams, …), in the order in which they finished."""

    tokens: Tensor
    lengths: Tensor
    scores: Tensor
    log_probability: Tensor
    count: Tensor  # (batch,)
    weights: Tensor | None = None


class _Beam:
    """The open hypotheses of unfinished rows, and the finished ones of all rows.

    Attributes:
        rows: (open,) indices of the unfinished rows in the batch.
        log_probability: (open, num_beams) of the open hypotheses; −∞ in place of a finished one.
        tokens: (open, num_beams, length) the tokens so far.
    """

    def __init__(
        self, options: _Options, start: Tensor, most: Tensor, least: Tensor, state: DecoderState, memory: Any
    ) -> None:
        batch, num_beams, device = len(start), options.num_beams, start.device
        self.options = options
        self.rows = torch.arange(batch, device=device)
        self.most, self.least = most, least
        self.latest = start.repeat_interleave(num_beams)
        several = self.rows.repeat_interleave(num_beams)
        self.state, self.memory = select(state, several), select(memory, several)
        self.tokens = start.new_zeros(batch, num_beams, 0)
        self.log_probability = torch.full((batch, num_beams), -torch.inf, device=device)
        self.log_probability[:, :: num_beams // options.num_beam_groups] = 0.0  # each group starts with one hypothesis
        self.places = torch.full((batch, options.num_beam_groups), num_beams // options.num_beam_groups, device=device)
        self.weights: Tensor | None = None  # (open, num_beams, length, source)
        longest = int(most.max()) if batch else 0
        self.finished = _Finished(
            start.new_full((batch, num_beams, longest), options.stop),
            start.new_zeros(batch, num_beams),
            torch.full((batch, num_beams), -torch.inf, device=device),
            torch.full((batch, num_beams), -torch.inf, device=device),
            start.new_zeros(batch),
        )
        empty = most == 0  # max_length 0: the only result is the empty text, without a score
        self.finished.scores[empty, 0] = self.finished.log_probability[empty, 0] = 0.0
        self._keep(~empty)

    @property
    def open(self) -> bool:
        """Whether any row is unfinished."""
        return len(self.rows) > 0

    def advance(self, decoder: Decoder) -> None:
        """Extend every open hypothesis by one token."""
        decoded = decoder.step(self.latest, self.state, self.memory)
        scores = self._allowed(self._defined(decoded.parameters.float().log_softmax(-1)))
        origins, tokens, values = self._choose(scores)
        self._reorder(origins, tokens, values, decoded.state, decoded.weights)
        stopped = (tokens == self.options.stop) & values.isfinite()
        self._end(stopped, cut=False)
        cut = self.log_probability.isfinite() & self.most.eq(self.tokens.shape[2])[:, None]
        self._end(cut, cut=True)
        self._keep(self._promising())

    def _defined(self, scores: Tensor) -> Tensor:
        """Check log probabilities for NaN, and replace those in place of finished hypotheses by −∞."""
        broken = undefined(scores)
        if not bool(broken.any()):
            return scores
        searched = broken.view(len(self.rows), -1) & self.log_probability.isfinite()
        if bool(searched.any()):
            raise undefined_row(int(self.rows[searched.any(1)][0]))
        return scores.masked_fill(broken.unsqueeze(1), -torch.inf)

    def _allowed(self, scores: Tensor) -> Tensor:
        """Return log probabilities (open × num_beams, vocabulary) with −∞ for tokens that aren't allowed."""
        options = self.options
        scores = forbid(scores, options.forbidden)
        early = self.least.gt(self.tokens.shape[2]).repeat_interleave(options.num_beams)
        scores[:, options.stop].masked_fill_(early, -torch.inf)
        return forbid_repeats(scores, self.tokens.flatten(0, 1), options.no_repeat_ngram_size)

    def _choose(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Choose the best continuations; return hypotheses, tokens and log probabilities, (open, num_beams) each."""
        options, rows, vocabulary = self.options, len(self.rows), scores.shape[-1]
        size = options.num_beams // options.num_beam_groups
        totals = (self.log_probability.unsqueeze(-1) + scores.view(rows, options.num_beams, vocabulary)).view(
            rows, options.num_beam_groups, size * vocabulary
        )
        taken = totals.new_zeros(rows, vocabulary)  # number of hypotheses of earlier groups with each token
        origins: list[Tensor] = []
        chosen: list[Tensor] = []
        values: list[Tensor] = []
        for group in range(options.num_beam_groups):
            total = totals[:, group]
            ranked = (
                total - options.diversity_penalty * taken.repeat(1, size)
                if group and options.diversity_penalty
                else total
            )
            best = ranked.topk(size, dim=1).indices
            value = total.gather(1, best)
            place = torch.arange(size, device=total.device)
            value = value.masked_fill(place >= self.places[:, group, None], -torch.inf)
            token = best % vocabulary
            taken = taken.scatter_add(1, token, value.isfinite().to(taken.dtype))
            origins.append(best // vocabulary + group * size)
            chosen.append(token)
            values.append(value)
        return torch.cat(origins, 1), torch.cat(chosen, 1), torch.cat(values, 1)

    def _reorder(
        self, origins: Tensor, tokens: Tensor, values: Tensor, state: DecoderState, weights: Tensor | None
    ) -> None:
        num_beams = self.options.num_beams
        flat = (origins + torch.arange(len(origins), device=origins.device).unsqueeze(1) * num_beams).flatten()
        self.state = select(state, flat)
        self.latest = tokens.flatten()
        self.log_probability = values
        before = self.tokens.flatten(0, 1).index_select(0, flat).view(*origins.shape, -1)
        self.tokens = torch.cat([before, tokens.unsqueeze(-1)], dim=-1)
        if weights is None:
            if self.options.coverage_penalty > 0:
                raise ValueError(
                    f"coverage_penalty={self.options.coverage_penalty} needs attention, which this decoder doesn't have"
                )
            return
        latest = weights.index_select(0, flat).view(*origins.shape, 1, -1)
        if self.weights is not None:
            earlier = self.weights.flatten(0, 1).index_select(0, flat).view(*origins.shape, -1, latest.shape[-1])
            latest = torch.cat([earlier, latest], dim=2)
        self.weights = latest

    def _end(self, ended: Tensor, *, cut: bool) -> None:
        """Move hypotheses (open, num_beams) from the beam to the finished ones."""
        row, place = ended.nonzero(as_tuple=True)
        if not len(row):
            return
        finished, length = self.finished, self.tokens.shape[2]
        home = self.rows[row]
        slot = finished.count[home] + (ended.long().cumsum(1) - 1)[row, place]
        written = length if cut else length - 1
        finished.tokens[home, slot, :written] = self.tokens[row, place, :written]
        finished.lengths[home, slot] = written
        finished.log_probability[home, slot] = self.log_probability[row, place]
        finished.scores[home, slot] = self._score(row, place, length)
        if self.weights is not None:
            if finished.weights is None:
                steps, source = finished.tokens.shape[2] + 1, self.weights.shape[-1]
                finished.weights = self.weights.new_zeros(*finished.lengths.shape, steps, source)
            finished.weights[home, slot, :length] = self.weights[row, place]
        finished.count[self.rows] += ended.sum(1)
        size = self.options.num_beams // self.options.num_beam_groups
        self.places = self.places - ended.view(len(ended), -1, size).sum(-1)
        self.log_probability = self.log_probability.masked_fill(ended, -torch.inf)

    def _score(self, row: Tensor, place: Tensor, length: int) -> Tensor:
        options = self.options
        score = self.log_probability[row, place] / _length_norm(length, options.length_penalty)
        if options.coverage_penalty > 0 and self.weights is not None:
            covered = self.weights[row, place].float().sum(1).clamp(torch.finfo(torch.float32).tiny, 1.0)
            # Source positions in the padding have no attention and are not penalized.
            real = self.weights[row].sum((1, 2)) > 0
            score = score + options.coverage_penalty * covered.log().masked_fill(~real, 0.0).sum(-1)
        return score

    def _promising(self) -> Tensor:
        """Return a mask (open,) of rows with an open hypothesis that can still exceed the n_best finished ones."""
        options = self.options
        bound = self.log_probability.max(1).values / _length_norm(self.most, options.length_penalty)
        ended = self.finished.scores[self.rows]
        worst = ended.topk(options.n_best, dim=1).values[:, -1]
        return bound > worst

    def _keep(self, kept: Tensor) -> None:
        """Remove rows outside of the mask `kept`."""
        if bool(kept.all()):
            return
        index = kept.nonzero()[:, 0]
        num_beams = self.options.num_beams
        several = (index.unsqueeze(1) * num_beams + torch.arange(num_beams, device=index.device)).flatten()
        self.state, self.memory = select(self.state, several), select(self.memory, several)
        self.latest = self.latest[several]
        self.rows, self.most, self.least = self.rows[index], self.most[index], self.least[index]
        self.tokens, self.log_probability = self.tokens[index], self.log_probability[index]
        self.places = self.places[index]
        if self.weights is not None:
            self.weights = self.weights[index]

    def best(self) -> Hypotheses:
        """Return the `n_best` hypotheses of each row."""
        finished, n_best = self.finished, self.options.n_best
        blocked = finished.log_probability.isneginf().all(1)
        if bool(blocked.any()):
            raise blocked_row(int(blocked.int().argmax()))
        scores = finished.scores
        if self.options.num_beam_groups > 1:  # several groups may contain the same text
            same = (finished.tokens.unsqueeze(1) == finished.tokens.unsqueeze(2)).all(-1)
            same &= finished.lengths.unsqueeze(1) == finished.lengths.unsqueeze(2)
            scores = scores.masked_fill(same.tril(-1).any(-1), -torch.inf)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        scores, order = scores[:, :n_best], order[:, :n_best]
        lengths = finished.lengths.gather(1, order)
        longest = int(lengths.max()) if lengths.numel() else 0
        row = torch.arange(len(order), device=order.device).unsqueeze(1)
        weights = None if finished.weights is None else finished.weights[row, order, : longest + 1]
        tokens = finished.tokens[row, order, :longest]
        return Hypotheses(tokens, lengths, scores, finished.log_probability.gather(1, order), weights)


def _length_norm(length: int | Tensor, exponent: float) -> Any:
    """Return ((5 + |Y|) / 6)^α, Wu et al. 2016, eq. 14."""
    return ((5 + length) / 6) ** exponent
