"""Sampling of tokens from any `Decoder`, and scheduled sampling."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.generation.limits import (
    blocked_row,
    check_beginning,
    forbid,
    forbid_repeats,
    per_row,
    undefined,
    undefined_row,
    whole,
)
from unrolled.heads.temperature import check_temperature
from unrolled.models.decoders.base import Decoder, DecoderState
from unrolled.state import select

_SINGLE = torch.finfo(torch.float32)


class Generated(NamedTuple):
    """Generated tokens."""

    tokens: Tensor  # (batch, length), padded with the stop symbol
    lengths: Tensor  # (batch,): number of tokens before the stop symbol
    log_probability: Tensor  # (batch,): of the tokens and the stop symbol under the model's distribution, in nats


def sample(
    decoder: Decoder,
    state: DecoderState,
    memory: Any = None,
    *,
    start: Tensor,
    stop: int | None = None,
    max_length: int | Tensor,
    min_length: int | Tensor = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    no_repeat_ngram_size: int = 0,
    forbidden: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Generated:
    """Sample tokens from the decoder's distribution.

    Args:
        decoder: the decoder, usually in evaluation mode.
        state: the decoder's state before `start`.
        memory: the memory that `Decoder.start` returned.
        start: (batch,) the first token ids: the start symbol, or the last token of a prompt.
        stop: the token that ends a row; with None, rows end only at max_length.
        max_length: maximum number of generated tokens, one for all rows or (batch,).
        min_length: minimum number of tokens before the stop symbol, one for all rows or (batch,).
        temperature: divisor of the logits; 0 for the most probable token (greedy).
        top_k: sample from the k most probable tokens only.
        top_p: sample from the smallest set of tokens with at least this probability (Holtzman et al. 2020).
        no_repeat_ngram_size: size of n-grams that can't be repeated; 0 for no limit.
        forbidden: tokens that are never generated, such as the start symbol.
        generator: the random number generator, on the decoder's device; None for torch's global generator.

    Raises:
        ShapeError: a state or a memory of another batch than `start`.
        ValueError: a temperature below 0, top_k below 1, top_p outside (0, 1], a negative length, unknown tokens, a row
            for which the options allow no token, or logits that are NaN or infinite.
    """
    _check(temperature, top_k, top_p, no_repeat_ngram_size)
    check_beginning(decoder, state, memory, start, stop, forbidden)
    most, least = per_row(max_length, start, "max_length"), per_row(min_length, start, "min_length")
    longest = int(most.max()) if len(most) else 0
    written = start.new_full((len(start), longest), 0 if stop is None else stop)
    lengths = torch.zeros_like(start)
    log_probability = torch.zeros(start.shape, device=start.device)
    rows, finished, latest = torch.arange(len(start), device=start.device), most == 0, start
    for step in range(longest):
        active = int((~finished).sum())
        if active == 0:
            return _defined(Generated(written[:, :step], lengths, log_probability))
        if 2 * active <= len(rows):  # not earlier: selecting rows copies their whole state
            kept = (~finished).nonzero()[:, 0]
            state, memory = select(state, kept), select(memory, kept)
            rows, finished, latest = rows[kept], finished[kept], latest[kept]
        with torch.no_grad():
            decoded = decoder.step(latest, state, memory)
        state, logits = decoded.state, decoded.logits.clone()
        log_probabilities = logits.float().log_softmax(-1)
        logits = forbid(logits, forbidden)
        if no_repeat_ngram_size and step:
            logits = forbid_repeats(logits, written[rows, :step], no_repeat_ngram_size)
        if stop is not None:
            logits[:, stop].masked_fill_(step < least[rows], -torch.inf)
        logits = _some_allowed(logits, finished, log_probabilities, rows)
        drawn = _draw(logits, temperature, top_k, top_p, generator)
        chosen = log_probabilities.gather(1, drawn[:, None])[:, 0]
        log_probability.index_add_(0, rows, chosen.masked_fill(finished, 0.0))
        latest = drawn.masked_fill(finished, 0 if stop is None else stop)
        written[rows, step] = latest
        ended = finished if stop is None else finished | (latest == stop)
        lengths.index_add_(0, rows, (~ended).long())
        finished = ended | (lengths[rows] == most[rows])
    return _defined(Generated(written, lengths, log_probability))


def _defined(generated: Generated) -> Generated:
    """Raise an error for a text with an undefined probability: the logit of a forbidden token was NaN."""
    unknown = generated.log_probability.isnan()
    if bool(unknown.any()):
        raise undefined_row(int(unknown.int().argmax()))
    return generated


def greedy(
    decoder: Decoder,
    state: DecoderState,
    memory: Any = None,
    *,
    start: Tensor,
    stop: int | None = None,
    max_length: int | Tensor,
    forbidden: Sequence[int] = (),
) -> Generated:
    """Generate the most probable token at every step: `sample` with temperature 0."""
    return sample(
        decoder,
        state,
        memory,
        start=start,
        stop=stop,
        max_length=max_length,
        temperature=0.0,
        forbidden=forbidden,
    )


def scheduled_sampling(
    decoder: Decoder,
    tokens: Tensor,
    state: DecoderState,
    memory: Any = None,
    *,
    probability: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Replace some inputs of teacher forcing by samples of the decoder (scheduled sampling, Bengio et al. 2015).

    The decoder runs step by step, without gradients. From the second step on, each input is replaced, with the given
    probability, by a sample from the decoder's distribution. Train on the result with `forward`.

    Args:
        decoder: the decoder, in the mode in which it is trained.
        tokens: (batch, time) the inputs of teacher forcing.
        state: the decoder's state before them.
        memory: the memory that `Decoder.start` returned.
        probability: from 0, which returns `tokens`, to 1.
        generator: the random number generator, on the decoder's device; None for torch's global generator.

    Raises:
        ShapeError: a state or a memory of another batch than the tokens.
        ValueError: a probability outside [0, 1], unknown tokens, logits that are NaN or infinite.
    """
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability is {probability}, expected 0 to 1")
    if probability == 0.0 or tokens.shape[1] == 0:
        return tokens
    check_beginning(decoder, state, memory, tokens[:, 0], None, ())
    drawn = torch.rand(tokens.shape, device=tokens.device, generator=generator) < probability
    fed = list(tokens.unbind(1))
    with torch.no_grad():
        for step in range(len(fed) - 1):
            decoded = decoder.step(fed[step], state, memory)
            state = decoded.state
            chances = decoded.logits.float().softmax(-1)
            broken = undefined(chances)
            if bool(broken.any()):
                raise undefined_row(int(broken.int().argmax()))
            own = torch.multinomial(chances, 1, generator=generator)[:, 0]
            fed[step + 1] = torch.where(drawn[:, step + 1], own, fed[step + 1])
    return torch.stack(fed, dim=1)


def _some_allowed(logits: Tensor, finished: Tensor, log_probabilities: Tensor, rows: Tensor) -> Tensor:
    """Check logits (batch, vocabulary), and return them with valid values in finished rows."""
    logits = logits.masked_fill(finished.unsqueeze(1), 0.0)
    peaks = logits.amax(-1)  # NaN if any logit is NaN, −∞ if all are −∞
    if not math.isfinite(float(peaks.sum())):
        broken, blocked = undefined(log_probabilities) & ~finished, peaks.isneginf()
        if bool(broken.any()):
            raise undefined_row(int(rows[broken][0]))
        if bool(blocked.any()):
            raise blocked_row(int(rows[blocked][0]))
    return logits


def _draw(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> Tensor:
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    logits = logits.float()
    if temperature < 1e-6:  # avoids an overflow of the quotient
        logits = logits - logits.amax(-1, keepdim=True)
    logits = logits / min(max(temperature, _SINGLE.tiny), _SINGLE.max)  # 0 and ∞ would give NaN
    if top_k is not None and top_k < logits.shape[-1]:
        limit = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < limit, -torch.inf)
    if top_p is not None and top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)  # probability of all more probable tokens
        dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= top_p)
        logits = logits.masked_fill(dropped, -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def _check(temperature: float, top_k: int | None, top_p: float | None, no_repeat_ngram_size: int) -> None:
    whole(0, no_repeat_ngram_size=no_repeat_ngram_size)
    check_temperature(temperature)
    if top_k is not None:
        whole(1, top_k=top_k)
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p={top_p}: expected a probability above 0 and at most 1")
