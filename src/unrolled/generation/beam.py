"""Beam search. Sees `Decoder` only, never a concrete class, and reorders whatever it remembers by `state.select`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.generation.limits import (
    blocked_row,
    check_beginning,
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
    """What a search found for each row, the best first."""

    tokens: Tensor  # (batch, n_best, length): behind the stop symbol comes the stop symbol again
    lengths: Tensor  # (batch, n_best): tokens before the stop symbol
    scores: Tensor  # (batch, n_best): by which they are ordered; −∞ where a row has fewer
    log_probability: Tensor  # (batch, n_best): nats, of all tokens and the stop symbol
    weights: Tensor | None  # (batch, n_best, length + 1, source): attention at each step, the stop's included


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
    """Looks for the texts with the highest score log P(Y|X) / lp(Y) + cp(X; Y).

    Wu et al. 2016, "Google's Neural Machine Translation System", eq. 14, with lp(Y) = ((5 + |Y|) / 6)^α and
    cp = β Σ_i log min(Σ_j p_ij, 1), where |Y| counts the stop symbol. A hypothesis that ends keeps its place in the
    beam, so one beam is greedy. A row is finished when none of its open hypotheses can still beat those it gives
    back; finished rows cost nothing any more. A hypothesis that reaches max_length ends there without a stop symbol.

    Args:
        decoder: in eval mode, as a rule.
        state: where it stands before `start`, a row for each text.
        memory: what `Decoder.start` gave beside the state.
        start: (batch,) token ids to read first.
        stop: the token that ends a text.
        num_beams: hypotheses kept at each step.
        max_length: tokens to write at most, for all rows or (batch,).
        min_length: tokens to write before the stop symbol may come, likewise.
        length_penalty: α; 0 compares plain log probabilities.
        coverage_penalty: β; 0 for none; needs a decoder that gives attention weights.
        n_best: hypotheses given back for each row.
        num_beam_groups: groups of beams that are chosen one after another (Vijayakumar et al. 2018, "Diverse Beam
            Search").
        diversity_penalty: λ, what a token loses for each hypothesis of an earlier group that took it at the same step.
        no_repeat_ngram_size: no n-gram of this size comes twice; 0 allows all.
        forbidden: tokens never to be written.

    Raises:
        ShapeError: a state or a memory of another batch than `start`.
        ValueError: an option outside its range, a coverage penalty without attention, tokens that the decoder doesn't
            know, a row for which the options leave no token, logits that are NaN or infinite.
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
        raise ValueError("min_length is above max_length, so no text could end")
    longest = int(most.max()) if len(most) else 0
    try:
        finite(**{"": _length_norm(longest + 1, length_penalty)})
    except (OverflowError, ValueError):
        raise ValueError(f"length_penalty={length_penalty} is too large for texts of {longest} tokens") from None
    beam = _Beam(options, start, most, least, state, memory)
    with torch.no_grad():
        while beam.open:
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
    """Looks at what `beam_search` can refuse before there is anything to search.

    Raises:
        ValueError: an option outside its range.
    """
    whole(1, num_beams=num_beams, n_best=n_best, num_beam_groups=num_beam_groups)
    whole(0, no_repeat_ngram_size=no_repeat_ngram_size)
    finite(diversity_penalty=diversity_penalty, length_penalty=length_penalty, coverage_penalty=coverage_penalty)
    if n_best > num_beams:
        raise ValueError(f"num_beams={num_beams} and n_best={n_best}: 1 or more, n_best at most num_beams")
    if num_beams % num_beam_groups:
        raise ValueError(f"num_beam_groups={num_beam_groups}: a divisor of num_beams={num_beams}")


@dataclass
class _Finished:
    """Ended hypotheses of all rows: (batch, num_beams, …), in the order in which they ended."""

    tokens: Tensor
    lengths: Tensor
    scores: Tensor
    log_probability: Tensor
    count: Tensor  # (batch,)
    weights: Tensor | None = None


class _Beam:
    """The open hypotheses of the rows that are not finished, and the ended ones of all rows.

    Attributes:
        rows: (open,) which rows of the batch are still searched.
        log_probability: (open, num_beams) of the open hypotheses; −∞ where a place is taken by an ended one.
        tokens: (open, num_beams, length) what they have written.
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
        self.log_probability[:, :: num_beams // options.num_beam_groups] = 0.0  # each group begins with one hypothesis
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
        at_once = most == 0  # nothing may be written: the empty text, which nobody has scored
        self.finished.scores[at_once, 0] = self.finished.log_probability[at_once, 0] = 0.0
        self._keep(~at_once)

    @property
    def open(self) -> bool:
        """Whether any row is still searched."""
        return len(self.rows) > 0

    def advance(self, decoder: Decoder) -> None:
        """One token more for every open hypothesis."""
        decoded = decoder.step(self.latest, self.state, self.memory)
        scores = self._allowed(self._defined(decoded.logits.float().log_softmax(-1)))
        origins, tokens, values = self._choose(scores)
        self._reorder(origins, tokens, values, decoded.state, decoded.weights)
        stopped = (tokens == self.options.stop) & values.isfinite()
        self._end(stopped, cut=False)
        cut = self.log_probability.isfinite() & self.most.eq(self.tokens.shape[2])[:, None]
        self._end(cut, cut=True)
        self._keep(self._promising())

    def _defined(self, scores: Tensor) -> Tensor:
        """The same log probabilities, looked through for NaN; what stands in the place of an ended one never counts."""
        broken = undefined(scores)
        if not bool(broken.any()):
            return scores
        searched = broken.view(len(self.rows), -1) & self.log_probability.isfinite()
        if bool(searched.any()):
            raise undefined_row(int(self.rows[searched.any(1)][0]))
        return scores.masked_fill(broken.unsqueeze(1), -torch.inf)

    def _allowed(self, scores: Tensor) -> Tensor:
        """Log probabilities (open × num_beams, vocabulary) of what may come next."""
        options = self.options
        scores = forbid(scores, options.forbidden)
        early = self.least.gt(self.tokens.shape[2]).repeat_interleave(options.num_beams)
        scores[:, options.stop].masked_fill_(early, -torch.inf)
        return forbid_repeats(scores, self.tokens.flatten(0, 1), options.no_repeat_ngram_size)

    def _choose(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations, (open, num_beams) each: of which hypothesis, by which token, log probability."""
        options, rows, vocabulary = self.options, len(self.rows), scores.shape[-1]
        size = options.num_beams // options.num_beam_groups
        totals = (self.log_probability.unsqueeze(-1) + scores.view(rows, options.num_beams, vocabulary)).view(
            rows, options.num_beam_groups, size * vocabulary
        )
        taken = totals.new_zeros(rows, vocabulary)  # hypotheses of earlier groups that took each token
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
        """Moves hypotheses (open, num_beams) from the beam to the finished ones."""
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
            # A source position behind the end of its row gets no attention and asks for none.
            real = self.weights[row].sum((1, 2)) > 0
            score = score + options.coverage_penalty * covered.log().masked_fill(~real, 0.0).sum(-1)
        return score

    def _promising(self) -> Tensor:
        """(open,) rows with an open hypothesis that could still beat those that would be given back."""
        options = self.options
        bound = self.log_probability.max(1).values / _length_norm(self.most, options.length_penalty)
        ended = self.finished.scores[self.rows]
        worst = ended.topk(options.n_best, dim=1).values[:, -1]
        return bound > worst

    def _keep(self, kept: Tensor) -> None:
        """Drops the rows that are finished."""
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
        """The `n_best` of each row."""
        finished, n_best = self.finished, self.options.n_best
        blocked = finished.log_probability.isneginf().all(1)
        if bool(blocked.any()):
            raise blocked_row(int(blocked.int().argmax()))
        scores = finished.scores
        if self.options.num_beam_groups > 1:  # groups may have found the same text
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
    """Wu et al. 2016, eq. 14: ((5 + |Y|) / 6)^α."""
    return ((5 + length) / 6) ** exponent
