"""Sampling of text from a trained language model."""

from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.generation.limits import check_time, whole
from unrolled.generation.sampling import sample, token_probabilities
from unrolled.inspection.recorder import Recording, record
from unrolled.models.decoders.base import Decoder
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.tokenizers import ByteTokenizer
from unrolled.wording import article


def sample_text(
    bundle: Bundle,
    prompt: str = "",
    *,
    length: int = 400,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> str:
    """Return a prompt followed by generated text.

    Args:
        bundle: a language model from `load_bundle`.
        prompt: the start of the text; may be empty.
        length: number of symbols to generate: characters, bytes, words or subwords, depending on the tokenizer.
        temperature: divisor of the logits: 1 for the model's distribution, less for more probable symbols, 0 for the
            most probable symbol.
        top_k: sample from the k most probable symbols only.
        top_p: sample from the smallest set of symbols with at least this probability.
        generator: random number generator on the network's device; None for torch's global generator.

    Raises:
        ValueError: a network of another kind, a prompt with unknown symbols, an invalid option.
    """
    decoder, tokenizer = language_model_of(bundle)
    return continue_text(
        decoder,
        tokenizer,
        prompt,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generator=generator,
    )


def language_model_of(bundle: Bundle) -> tuple[Decoder, Tokenizer]:
    """Return the network of a language model and its tokenizer.

    Raises:
        ValueError: the bundle contains another network.
    """
    tokenizer, target = bundle.processor
    if not isinstance(bundle.network, Decoder) or not isinstance(tokenizer, Tokenizer) or target is not None:
        raise ValueError(f"sampling needs a decoder; this checkpoint contains {article(type(bundle.network).__name__)}")
    return bundle.network, tokenizer


def continue_text(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    length: int,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> str:
    """Sample text as `sample_text` does, with a decoder and a tokenizer, such as those in training."""
    written = encode_prompt(tokenizer, prompt)
    device = next(decoder.parameters()).device
    read = torch.tensor([[tokenizer.start, *written]], device=device)
    state, memory = decoder.start(1)
    training = decoder.training
    decoder.eval()
    try:
        with torch.no_grad():
            if read.shape[1] > 1:
                state = decoder(read[:, :-1], state, memory).state
            generated = sample(
                decoder,
                state,
                memory,
                start=read[:, -1],
                max_length=length,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                forbidden=[i for i in (tokenizer.start, tokenizer.unknown) if i is not None],
                generator=generator,
            )
    finally:
        decoder.train(training)
    return tokenizer.decode([*written, *generated.values[0].tolist()])


class ReadSymbol(NamedTuple):
    """A symbol that a language model has read, its own or one of the prompt.

    Attributes:
        text: what the symbol adds to the text; nothing before the first symbol, and within a character of several
            bytes.
        given: whether it is part of the prompt.
        probability: the probability with which it would be, or was, drawn; 1 before the first symbol.
        odds: the most probable next symbols with their probabilities, the most probable first.
        recording: what the cells computed when they read it, a single step; None unless recorded.
    """

    text: str
    given: bool
    probability: float
    odds: list[tuple[str, float]]
    recording: Recording | None


def stream_text(
    bundle: Bundle,
    prompt: str = "",
    *,
    length: int = 400,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    num_odds: int = 8,
    recorded: bool = False,
    generator: torch.Generator | None = None,
) -> Iterator[ReadSymbol]:
    """Yield the symbols of a prompt and then those of generated text, each as soon as the network has read it.

    The text is that of `sample_text`. The first result stands for the beginning of the text.

    Args:
        bundle: see `sample_text` for this and the options of sampling.
        prompt: see `sample_text`.
        length: see `sample_text`; 0 reads the prompt alone.
        temperature: see `sample_text`.
        top_k: see `sample_text`.
        top_p: see `sample_text`.
        num_odds: number of next symbols in `ReadSymbol.odds`.
        recorded: whether each step is recorded; see `unrolled.inspection.record`.
        generator: see `sample_text`.

    Raises:
        ValueError: see `sample_text`.
    """
    decoder, tokenizer = language_model_of(bundle)
    whole(0, length=length, num_odds=num_odds)
    given = encode_prompt(tokenizer, prompt)
    forbidden = [i for i in (tokenizer.start, tokenizer.unknown) if i is not None]
    odds_of = partial(token_probabilities, temperature=temperature, top_k=top_k, top_p=top_p, forbidden=forbidden)
    return _read_along(decoder, tokenizer, given, length, odds_of, num_odds, recorded, generator, temperature == 0.0)


def _read_along(
    decoder: Decoder,
    tokenizer: Tokenizer,
    given: Sequence[int],
    length: int,
    odds_of: Callable[[Tensor], Tensor],
    num_odds: int,
    recorded: bool,
    generator: torch.Generator | None,
    greedy: bool,
) -> Iterator[ReadSymbol]:
    pieces = _Pieces(tokenizer)
    state, memory = decoder.start(1)
    latest, probability = tokenizer.start, 1.0
    device = next(decoder.parameters()).device
    for place in range(len(given) + length + 1):
        check_time()
        # No context lasts until the next result: the caller may ask for it in another thread.
        with torch.no_grad(), record(decoder) if recorded else nullcontext() as recording:
            decoded = decoder.step(torch.tensor([latest], device=device), state, memory)
        state, chances = decoded.state, odds_of(decoded.parameters)
        odds = _most_probable(chances[0], tokenizer, num_odds)
        yield ReadSymbol(pieces.add(latest), place <= len(given), probability, odds, recording)
        if place < len(given):
            latest = given[place]
        else:
            latest = int(chances.argmax() if greedy else torch.multinomial(chances, 1, generator=generator))
        probability = float(chances[0, latest])


def _most_probable(chances: Tensor, tokenizer: Tokenizer, number: int) -> list[tuple[str, float]]:
    best = chances.topk(min(number, len(chances)))
    pairs = zip(tokenizer.symbols(best.indices.tolist()), best.values.tolist(), strict=True)
    return [(symbol, chance) for symbol, chance in pairs if chance > 0.0]


class _Pieces:
    """The text that each token adds to the text of those before it.

    A token is decoded together with the one before, since white space may depend on it. A byte may be a part of a
    character, which is shown when it is complete.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._before = tokenizer, tokenizer.start
        self._bytes = getincrementaldecoder("utf-8")("replace") if isinstance(tokenizer, ByteTokenizer) else None

    def add(self, token: int) -> str:
        if self._bytes is not None:
            return "" if token == self._tokenizer.start else self._bytes.decode(bytes([token]))
        both, self._before = [self._before, token], token
        return self._tokenizer.decode(both)[len(self._tokenizer.decode(both[:1])) :]


def encode_prompt(tokenizer: Tokenizer, prompt: str, what: str = "the prompt") -> list[int]:
    """Return the ids of a prompt; unknown symbols are an error, since the network would continue another text.

    Args:
        tokenizer: the tokenizer.
        prompt: the text.
        what: the subject of the message.

    Raises:
        ValueError: unknown symbols.
    """
    ids = tokenizer.encode(prompt)
    if tokenizer.unknown is not None and tokenizer.unknown in ids:
        pieces = prompt.split() if tokenizer.unit == "word" else list(prompt)
        strange = sorted({piece for piece in pieces if tokenizer.unknown in tokenizer.encode(piece)})
        raise ValueError(
            f"{what} has symbols that training data did not contain: {', '.join(map(repr, strange[:5]))}; "
            f"the vocabulary has {tokenizer.size} {tokenizer.unit}s"
        )
    return ids
