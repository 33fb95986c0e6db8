"""Sampling of tokens or frames from any `Decoder`, and scheduled sampling."""

import math
from collections.abc import Callable, Mapping, Sequence
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.generation.limits import (
    blocked_row,
    check_beginning,
    check_time,
    forbid,
    forbid_repeats,
    per_row,
    undefined,
    undefined_row,
    whole,
)
from unrolled.heads.base import Head
from unrolled.heads.temperature import check_temperature
from unrolled.models.decoders.base import Decoded, Decoder, DecoderState
from unrolled.shapes import ShapeError
from unrolled.state import select
from unrolled.wording import article

_SINGLE = torch.finfo(torch.float32)


# Whether a sequence ends, (batch,) bool, given the step, the decoder's state after it and the values drawn in it.
Stop = Callable[[int, DecoderState, Tensor], Tensor]


class Generated(NamedTuple):
    """Generated tokens or frames."""

    values: Tensor  # (batch, length) tokens, padded with the stop symbol; or (batch, length, features), padded with 0
    lengths: Tensor  # (batch,): number of values, without the stop symbol
    log_probability: Tensor  # (batch,): of values and stop symbol under the model, in nats; of frames −Σ losses


def sample(
    decoder: Decoder,
    state: DecoderState,
    memory: Any = None,
    *,
    start: Tensor,
    conditions: Tensor | None = None,
    stop: int | Stop | None = None,
    max_length: int | Tensor,
    min_length: int | Tensor = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    no_repeat_ngram_size: int = 0,
    forbidden: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Generated:
    """Sample from the decoder's distribution, feeding back each sample.

    Args:
        decoder: the decoder, usually in evaluation mode.
        state: the decoder's state before `start`.
        memory: the memory that `Decoder.start` returned.
        start: the first inputs: (batch,) token ids, such as the start symbol or the last token of a prompt; or (batch,
            features) frames.
        conditions: (batch, max_length or more, condition_size), what is known of each step beside its input.
        stop: the token that ends a row; or a function of the step (from 0), the decoder's state after it and the values
            drawn in it, which returns (batch,) bool, true for rows that end with this value. With None, rows end at
            max_length only.
        max_length: maximum number of generated values, one for all rows or (batch,).
        min_length: minimum number of values before the stop symbol, one for all rows or (batch,).
        temperature: 1 for the model's distribution, less for less varied values; see `Head.sharpen`. With 0 each value
            is the head's prediction, such as the most probable token (greedy).
        top_k: tokens only: sample from the k most probable ones.
        top_p: tokens only: sample from the smallest set with at least this probability (Holtzman et al. 2020).
        no_repeat_ngram_size: tokens only: size of n-grams that can't be repeated; 0 for no limit.
        forbidden: tokens that are never generated, such as the start symbol.
        generator: the random number generator, on the decoder's device; None for torch's global generator.

    Raises:
        ShapeError: a state, memory or conditions that don't fit `start` and max_length.
        ValueError: a temperature below 0, top_k below 1, top_p outside (0, 1], a negative length, unknown tokens, a row
            for which the options allow no token, parameters that are NaN or infinite; an option of tokens for a
            decoder of frames; a head that can't be sampled, with a temperature above 0.
    """
    _check(temperature, top_k, top_p, no_repeat_ngram_size)
    most, least = per_row(max_length, start, "max_length"), per_row(min_length, start, "min_length")
    longest = int(most.max()) if len(most) else 0
    symbol = None if stop is None or callable(stop) else index(stop)
    check_beginning(decoder, state, memory, start, symbol, forbidden)
    _check_length(conditions, longest, start)
    draw: _TokenDraw | _FrameDraw
    if decoder.input_axes == "":
        draw = _TokenDraw(symbol, temperature, top_k, top_p, no_repeat_ngram_size, forbidden, generator)
    else:
        given = {"top_k": top_k, "top_p": top_p, "no_repeat_ngram_size": no_repeat_ngram_size, "forbidden": forbidden}
        draw = _FrameDraw(decoder.head, start, temperature, generator, {**given, "stop": symbol is not None})
    filler = 0 if symbol is None else symbol
    written = start.new_full((len(start), longest, *start.shape[1:]), filler)
    lengths = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    log_probability = torch.zeros(len(start), device=start.device)
    rows, finished, latest = torch.arange(len(start), device=start.device), most == 0, start
    for step in range(longest):
        check_time()
        active = int((~finished).sum())
        if active == 0:
            return _defined(Generated(written[:, :step], lengths, log_probability))
        # Not earlier: selecting rows copies their whole state. Not for a function, which sees all rows.
        if 2 * active <= len(rows) and not callable(stop):
            kept = (~finished).nonzero()[:, 0]
            state, memory = select(state, kept), select(memory, kept)
            rows, finished, latest = rows[kept], finished[kept], latest[kept]
        with torch.no_grad():
            decoded = _step(decoder, latest, state, memory, None if conditions is None else conditions[rows, step])
        state = decoded.state
        drawn, chosen = draw(decoded.parameters, _Place(step, rows, finished, written, least))
        log_probability.index_add_(0, rows, chosen.masked_fill(finished, 0.0))
        latest = drawn.masked_fill(finished if drawn.dim() == 1 else finished.unsqueeze(1), filler)
        written[rows, step] = latest
        ended = finished if symbol is None else finished | (latest == symbol)
        lengths.index_add_(0, rows, (~ended).long())
        if callable(stop):
            ended = ended | (stop(step, state, latest) & (step >= least[rows]))
        finished = ended | (lengths[rows] == most[rows])
    return _defined(Generated(written, lengths, log_probability))


def _check_length(conditions: Tensor | None, longest: int, start: Tensor) -> None:
    if conditions is not None and (conditions.dim() != 3 or len(conditions) != len(start)):
        raise ShapeError(f"conditions has the shape {tuple(conditions.shape)}, expected ({len(start)}, time, features)")
    if conditions is not None and conditions.shape[1] < longest:
        raise ShapeError(f"conditions has {conditions.shape[1]} steps, but max_length is {longest}")


class _Place(NamedTuple):
    """What has been generated before a step."""

    step: int
    rows: Tensor  # (rows,): index of each row in the batch
    finished: Tensor  # (rows,) bool
    written: Tensor  # (batch, length, …)
    least: Tensor  # (batch,): minimum lengths


class _TokenDraw(NamedTuple):
    """Draws tokens from logits."""

    stop: int | None
    temperature: float
    top_k: int | None
    top_p: float | None
    no_repeat_ngram_size: int
    forbidden: Sequence[int]
    generator: torch.Generator | None

    def __call__(self, logits: Tensor, place: _Place) -> tuple[Tensor, Tensor]:
        """Return tokens (rows,) and their log probabilities."""
        step, rows, finished, written, least = place
        log_probabilities = logits.float().log_softmax(-1)
        logits = forbid(logits.clone(), self.forbidden)
        if self.no_repeat_ngram_size and step:
            logits = forbid_repeats(logits, written[rows, :step], self.no_repeat_ngram_size)
        if self.stop is not None:
            logits[:, self.stop].masked_fill_(step < least[rows], -torch.inf)
        logits = _some_allowed(logits, finished, log_probabilities, rows)
        drawn = _draw(logits, self.temperature, self.top_k, self.top_p, self.generator)
        return drawn, log_probabilities.gather(1, drawn[:, None])[:, 0]


class _FrameDraw:
    """Draws frames from a head's distribution."""

    def __init__(
        self,
        head: Head,
        start: Tensor,
        temperature: float,
        generator: torch.Generator | None,
        options: Mapping[str, Any],
    ) -> None:
        given = [name for name, value in options.items() if value not in (None, 0, (), [])]
        if given:
            raise ValueError(f"{', '.join(given)}: for decoders of tokens, and this one predicts frames")
        if head.target_size != start.shape[-1]:
            raise ValueError(
                f"{article(type(head).__name__)} with targets of {head.target_size} entries can't continue frames of "
                f"{start.shape[-1]} features"
            )
        self.head, self.temperature, self.generator = head, temperature, generator

    def __call__(self, parameters: Tensor, place: _Place) -> tuple[Tensor, Tensor]:
        """Return frames (rows, features) and minus their losses."""
        broken = ~parameters.isfinite().all(-1) & ~place.finished
        if bool(broken.any()):
            raise undefined_row(int(place.rows[broken][0]))
        if self.temperature == 0.0:
            drawn = self.head.predict(parameters)
        else:
            try:
                sharpened = parameters if self.temperature == 1.0 else self.head.sharpen(parameters, self.temperature)
                drawn = self.head.sample(sharpened, self.generator)
            except NotImplementedError:  # what a head without `sample` or `sharpen` raises
                raise ValueError(
                    f"{article(type(self.head).__name__)} can't be sampled; temperature=0 feeds back its predictions"
                ) from None
        drawn = drawn.to(place.written.dtype)
        return drawn, -self.head.losses(parameters, drawn).float()


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
    inputs: Tensor,
    state: DecoderState,
    memory: Any = None,
    *,
    probability: float,
    conditions: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Replace some inputs of teacher forcing by samples of the head (scheduled sampling, Bengio et al. 2015).

    The decoder runs step by step, without gradients. From the second step on, each input is replaced, with the given
    probability, by a sample from the decoder's distribution. Train on the result with `forward`.

    Args:
        decoder: the decoder, in the mode in which it is trained.
        inputs: the inputs of teacher forcing: (batch, time) tokens, or (batch, time, features) frames.
        state: the decoder's state before them.
        memory: the memory that `Decoder.start` returned.
        conditions: (batch, time, condition_size), what is known of each step beside its input.
        probability: from 0, which returns `inputs`, to 1.
        generator: the random number generator, on the decoder's device; None for torch's global generator.

    Raises:
        ShapeError: a state or a memory of another batch than the inputs.
        ValueError: a probability outside [0, 1], unknown tokens, parameters that are NaN or infinite, a head that can't
            be sampled.
    """
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability is {probability}, expected 0 to 1")
    if probability == 0.0 or inputs.shape[1] == 0:
        return inputs
    check_beginning(decoder, state, memory, inputs[:, 0], None, ())
    replaced = torch.rand(inputs.shape[:2], device=inputs.device, generator=generator) < probability
    draw: _TokenDraw | _FrameDraw = (
        _TokenDraw(None, 1.0, None, None, 0, (), generator)
        if decoder.input_axes == ""
        else _FrameDraw(decoder.head, inputs[:, 0], 1.0, generator, {})
    )
    rows = torch.arange(len(inputs), device=inputs.device)
    none = torch.zeros_like(replaced[:, 0])
    place = _Place(0, rows, none, inputs[:, :0], torch.zeros_like(rows))
    fed = list(inputs.unbind(1))
    with torch.no_grad():
        for step in range(len(fed) - 1):
            decoded = _step(decoder, fed[step], state, memory, None if conditions is None else conditions[:, step])
            state = decoded.state
            own, _ = draw(decoded.parameters, place)
            fed[step + 1] = torch.where(replaced[:, step + 1].view(-1, *[1] * (own.dim() - 1)), own, fed[step + 1])
    return torch.stack(fed, dim=1)


def _step(decoder: Decoder, latest: Tensor, state: DecoderState, memory: Any, conditions: Tensor | None) -> Decoded:
    if conditions is None:
        return decoder.step(latest, state, memory)
    return decoder.step(latest, state, memory, conditions=conditions)


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


def token_probabilities(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    forbidden: Sequence[int] = (),
) -> Tensor:
    """Return the probabilities (rows, vocabulary) that `sample` draws the next token with.

    Args:
        logits: (rows, vocabulary), the parameters of a step.
        temperature: see `sample` for this and the other options.
        top_k: see `sample`.
        top_p: see `sample`.
        forbidden: see `sample`.

    Raises:
        ValueError: an invalid option, logits that are NaN or infinite, a row for which the options allow no token.
    """
    _check(temperature, top_k, top_p, 0)
    rows = torch.arange(len(logits), device=logits.device)
    allowed = forbid(logits.clone(), forbidden)
    allowed = _some_allowed(allowed, torch.zeros_like(rows, dtype=torch.bool), logits.float().log_softmax(-1), rows)
    return _probabilities(allowed, temperature, top_k, top_p)


def _probabilities(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    if temperature == 0.0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
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
    return logits.softmax(-1)


def _draw(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> Tensor:
    if temperature == 0.0:  # draws no random number
        return logits.argmax(dim=-1)
    return torch.multinomial(_probabilities(logits, temperature, top_k, top_p), 1, generator=generator)[:, 0]


def _check(temperature: float, top_k: int | None, top_p: float | None, no_repeat_ngram_size: int) -> None:
    whole(0, no_repeat_ngram_size=no_repeat_ngram_size)
    check_temperature(temperature)
    if top_k is not None:
        whole(1, top_k=top_k)
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p={top_p}: expected a probability above 0 and at most 1")
