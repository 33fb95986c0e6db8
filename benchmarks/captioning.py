"""How many images a captioner takes a second, and how much of the time its trunk takes.

    python benchmarks/captioning.py
    python benchmarks/captioning.py --checkpoint best.ckpt     # captions with a trained network

EfficientNet-Lite0 on pictures of 224 × 224 and a soft-attention LSTM, the sizes of experiment=captioning/flickr8k.
Training takes five captions for each image, forward, backward, clipping and AdamW, on what the frozen trunk said before
(`data.features=cached`) or on pictures that it looks at each time. Captioning reads no files: it begins with the
pictures as a tensor. All sides alternate in one process; each figure is the median over rounds. Images and captions
are random, and without a checkpoint the weights are, too: every caption then has ten words.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    BahdanauWiring,
    EncoderDecoder,
    ImageEncoder,
    LSTMCell,
    Recurrent,
    cross_entropy,
    load_bundle,
)
from unrolled.deployment.decoding import search
from unrolled.generation.search import Search
from unrolled.models.images.trunks import EfficientNetLiteTrunk
from unrolled.sequences import mask_from_lengths
from unrolled.state import select
from unrolled.training.run.allocator import keep_freed_memory

VOCABULARY, WORDS, CAPTIONS, STOP = 2540, 12, 5, 0


class Ids:
    """What a search asks of a tokenizer."""

    start, unknown = STOP, None


def network() -> EncoderDecoder:
    core = partial(Recurrent, LSTMCell, hidden_size=256, num_layers=1)
    attention = partial(AdditiveAttention, attention_size=192)
    decoder = partial(
        AutoregressiveDecoder.of_tokens, VOCABULARY, 256, core, attention, tied=True, wiring=BahdanauWiring
    )
    return EncoderDecoder(ImageEncoder(EfficientNetLiteTrunk(), size=256, norm="layer"), decoder)


def timed(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def train_step(ours: EncoderDecoder, optimizer: torch.optim.Optimizer, see: Callable[[], Tensor], amp: bool) -> None:
    """One step on what `see` gives: pictures, or what the trunk said of them."""
    images = see()
    rows = torch.arange(len(images)).repeat_interleave(CAPTIONS)
    words = torch.randint(1, VOCABULARY, (len(rows), WORDS))
    lengths = torch.randint(WORDS - 4, WORDS + 1, (len(rows),))
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        state, memory = ours.start(images)
        decoded = ours.decoder(words, select(state, rows), select(memory, rows), lengths)
        loss = cross_entropy(decoded.parameters, words, mask_from_lengths(lengths, WORDS)).mean
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(ours.parameters(), 1.0)
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=24, help="images of a step, and of a search")
    parser.add_argument("--num-beams", type=int, default=5)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    torch.manual_seed(0)

    ours, asked = network(), Search(num_beams=options.num_beams)
    writer: Any = ours
    tokenizer: Any = Ids()
    if options.checkpoint:
        asked = asked._replace(max_ratio=0.0, max_extra=30)
        bundle: Any = load_bundle(options.checkpoint)
        writer, tokenizer = bundle.network, bundle.processor.target
    else:
        asked = asked._replace(min_ratio=1.0, max_ratio=1.0, max_extra=0)
    encoder: Any = ours.encoder
    for parameter in encoder.trunk.parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in ours.parameters() if p.requires_grad], lr=1e-4)
    images = torch.rand(options.images, 3, 224, 224)
    lengths = torch.full((len(images),), 10)

    def look() -> Tensor:
        with torch.no_grad():
            return encoder.extract_features(images)

    def write() -> None:
        with torch.no_grad():
            search(writer.decoder, *writer.start(images), tokenizer, lengths, asked)

    seen = look()
    amp = options.precision == "bfloat16"
    measures: dict[str, Callable[[], Any]] = {
        "training, cached": lambda: train_step(ours.train(), optimizer, lambda: seen, amp),
        "training, frozen trunk": lambda: train_step(ours.train(), optimizer, look, amp),
        "trunk alone": look,
        f"captioning, beam {options.num_beams}": lambda: (writer.eval(), write()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for measure in measures.values():
        measure()
    for _ in range(options.rounds):
        for name, measure in measures.items():
            seconds[name].append(timed(measure))
    trunk = statistics.median(seconds["trunk alone"])
    print("| | images a second | of which the trunk |\n|---|---|---|")
    for name, values in seconds.items():
        median = statistics.median(values)
        share = "" if "cached" in name or "alone" in name else f"{trunk / median:.0%}"
        print(f"| {name} | {len(images) / median:.1f} | {share} |")


if __name__ == "__main__":
    main()
