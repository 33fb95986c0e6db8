"""Text out of a trained language model."""

import torch

from unrolled.checkpoint import Bundle
from unrolled.generation.sampling import sample
from unrolled.models.decoders.base import Decoder
from unrolled.processing.text.base import Codec
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
    """The prompt and what the network writes after it.

    Args:
        bundle: a language model, from `load_bundle`.
        prompt: what the text begins with; empty: the model begins by itself.
        length: symbols to write after the prompt: characters, bytes or words, as the codec has them.
        temperature: 1 is the model's own distribution, below is bolder, 0 takes the likeliest symbol.
        top_k: draw among the k likeliest symbols only.
        top_p: draw among the likeliest symbols that together have this probability.
        generator: source of randomness on the network's device; None: torch's own.

    Raises:
        ValueError: a network that is no language model, a prompt with symbols that it has never seen, a bad option.
    """
    if not isinstance(bundle.network, Decoder):
        raise ValueError(f"only a decoder writes text; this checkpoint holds {article(type(bundle.network).__name__)}")
    return continue_text(
        bundle.network,
        bundle.codec,
        prompt,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generator=generator,
    )


def continue_text(
    decoder: Decoder,
    codec: Codec,
    prompt: str,
    *,
    length: int,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> str:
    """`sample_text` on a decoder and a codec that are not in a bundle yet, such as those in training."""
    written = encode_prompt(codec, prompt)
    device = next(decoder.parameters()).device
    read = torch.tensor([[codec.start, *written]], device=device)
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
                forbidden=[i for i in (codec.start, codec.unknown) if i is not None],
                generator=generator,
            )
    finally:
        decoder.train(training)
    return codec.decode([*written, *generated.tokens[0].tolist()])


def encode_prompt(codec: Codec, prompt: str) -> list[int]:
    """Ids of a prompt; unknown symbols are an error here, since the network would answer to something else."""
    ids = codec.encode(prompt)
    if codec.unknown is not None and codec.unknown in ids:
        pieces = prompt.split() if codec.unit == "word" else list(prompt)
        strange = sorted({piece for piece in pieces if codec.unknown in codec.encode(piece)})
        raise ValueError(
            f"the prompt has what the network never saw in training: {', '.join(map(repr, strange[:5]))}; "
            f"it knows {codec.size} {codec.unit}s"
        )
    return ids
