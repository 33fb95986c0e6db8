"""Sampling of text from a trained language model."""

import torch

from unrolled.checkpoint import Bundle
from unrolled.generation.sampling import sample
from unrolled.models.decoders.base import Decoder
from unrolled.processing.text.base import Tokenizer
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
    tokenizer, target = bundle.processor
    if not isinstance(bundle.network, Decoder) or not isinstance(tokenizer, Tokenizer) or target is not None:
        raise ValueError(f"sampling needs a decoder; this checkpoint contains {article(type(bundle.network).__name__)}")
    return continue_text(
        bundle.network,
        tokenizer,
        prompt,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generator=generator,
    )


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
