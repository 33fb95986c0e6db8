"""Tokens out of a decoder, one after another. Sees `Decoder` only, never a concrete class."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.decoders import Decoder, DecoderState


class Generated(NamedTuple):
    """What a search wrote."""

    tokens: Tensor  # (batch, length): after a row's stop symbol comes the stop symbol again
    lengths: Tensor  # (batch,): tokens before the stop symbol
    log_probability: Tensor  # (batch,): nats, of the tokens written (the stop symbol included) under the model itself


def sample(
    decoder: Decoder,
    state: DecoderState,
    memory: Any = None,
    *,
    start: Tensor,
    stop: int | None = None,
    max_length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    forbidden: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Generated:
    """Draws tokens from the decoder's distribution.

    Args:
        decoder: in eval mode, as a rule.
        state: where it stands before `start`.
        memory: what `Decoder.start` gave beside the state.
        start: (batch,) token ids to read first: the start symbol, or the last token of a prompt.
        stop: the token that ends a row; None: rows end at max_length only.
        max_length: tokens to write at most.
        temperature: divides the logits; 0 is the limit, the most probable token (greedy).
        top_k: keep the k most probable tokens only.
        top_p: keep the smallest set of tokens with at least this probability (Holtzman et al. 2020).
        forbidden: tokens never to be written, such as the start symbol.
        generator: source of randomness, on the decoder's device; None: torch's own.

    Raises:
        ValueError: a temperature below 0, top_k below 1, top_p outside (0, 1], max_length below 0.
    """
    _check(max_length, temperature, top_k, top_p)
    tokens: list[Tensor] = []
    finished = torch.zeros_like(start, dtype=torch.bool)
    lengths = torch.zeros_like(start)
    log_probability = torch.zeros(start.shape, device=start.device)
    for logits in _steps(decoder, state, memory, start, tokens, max_length):
        log_probabilities = logits.float().log_softmax(-1)
        logits[:, list(forbidden)] = -torch.inf
        drawn = _draw(logits, temperature, top_k, top_p, generator)
        chosen = log_probabilities.gather(1, drawn[:, None])[:, 0]
        log_probability = log_probability + chosen.masked_fill(finished, 0.0)
        if stop is not None:
            drawn = drawn.masked_fill(finished, stop)
            finished = finished | (drawn == stop)
        lengths = lengths + (~finished).long()
        tokens.append(drawn)
        if stop is not None and bool(finished.all()):
            break
    written = torch.stack(tokens, dim=1) if tokens else start.new_zeros(len(start), 0)
    return Generated(written, lengths, log_probability)


def greedy(
    decoder: Decoder,
    state: DecoderState,
    memory: Any = None,
    *,
    start: Tensor,
    stop: int | None = None,
    max_length: int,
    forbidden: Sequence[int] = (),
) -> Generated:
    """The most probable token at every step: `sample` at temperature 0."""
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


def _steps(
    decoder: Decoder, state: DecoderState, memory: Any, start: Tensor, tokens: list[Tensor], max_length: int
) -> Iterator[Tensor]:
    """Logits (batch, vocabulary) after `start`, then after each token that the caller appends to `tokens`."""
    latest = start
    for _ in range(max_length):
        with torch.no_grad():
            decoded = decoder.step(latest, state, memory)
        yield decoded.logits.clone()
        state, latest = decoded.state, tokens[-1]


def _draw(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> Tensor:
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        limit = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < limit, -torch.inf)
    if top_p is not None and top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)  # probability of all that is likelier
        dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= top_p)
        logits = logits.masked_fill(dropped, -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def _check(max_length: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    if max_length < 0:
        raise ValueError(f"max_length={max_length}: the number of tokens to write, 0 or more")
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: 0 (greedy) or more; 1 is the model's own distribution")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}: the number of tokens to keep, 1 or more")
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p={top_p}: a probability above 0, at most 1")
