"""Translation beside a straightforward encoder-decoder over nn.LSTM with the same sizes, weights and batches.

    python benchmarks/translation.py --rounds 5
    python benchmarks/translation.py --checkpoint best.ckpt --lines in.txt     # searches with a trained network

The other side is what one would write from a tutorial: packed nn.LSTM reads, nn.LSTMCell writes in a loop with input
feeding and additive attention, a batched beam search goes on until every row of the batch is done. Weights are copied
over, so that losses agree to rounding. Both sides alternate in one process; each figure is the median over rounds.
Training: forward, label-smoothed loss, backward, clipping and AdamW, target tokens per second. Search: sentences per
second. Without a checkpoint the weights are random, and every text gets as many tokens as its source.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    EncoderDecoder,
    LSTMCell,
    Recurrent,
    RecurrentEncoder,
    load_bundle,
)
from unrolled.deployment.decoding import batched_by_length, search
from unrolled.generation.search import Search
from unrolled.losses import cross_entropy as masked_cross_entropy
from unrolled.sequences import mask_from_lengths
from unrolled.training.data.buckets import BucketPlan
from unrolled.training.run.allocator import keep_freed_memory

STOP, SMOOTHING = 0, 0.1


class Batch(NamedTuple):
    """Ids (batch, time) of a source, of what is read and of what is to be written, and lengths (batch,)."""

    source: Tensor
    source_lengths: Tensor
    inputs: Tensor
    targets: Tensor
    lengths: Tensor


class Plain(nn.Module):
    """An attentive encoder-decoder without any package."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, attention: int) -> None:
        super().__init__()
        self.scale = embedding**0.5
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.encoder = nn.LSTM(embedding, hidden, batch_first=True, bidirectional=True)
        self.bridge = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(2))
        self.cell = nn.LSTMCell(2 * embedding, hidden)
        self.key = nn.Linear(2 * hidden, attention, bias=False)
        self.query = nn.Linear(hidden, attention)
        self.energy = nn.Linear(attention, 1, bias=False)
        self.readout = nn.Linear(3 * hidden, embedding)
        self.output = nn.Linear(embedding, vocabulary)
        self.output.weight = self.embedding.weight

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        packed = pack_padded_sequence(
            self.scale * self.embedding(source), lengths, batch_first=True, enforce_sorted=False
        )
        outputs, (h, _) = self.encoder(packed)
        values, _ = pad_packed_sequence(outputs, batch_first=True)
        summary = torch.cat([h[0], h[1]], dim=-1)
        first, second = (torch.tanh(layer(summary)) for layer in self.bridge)
        padding = torch.arange(values.shape[1]) >= lengths[:, None]
        return (
            values,
            self.key(values),
            padding,
            (first, second, values.new_zeros(len(values), self.readout.out_features)),
        )

    def step(self, embedded: Tensor, state: Any, values: Tensor, keys: Tensor, padding: Tensor) -> tuple[Tensor, Any]:
        h, c, fed = state
        h, c = self.cell(torch.cat([embedded, fed], dim=-1), (h, c))
        scores = self.energy(torch.tanh(keys + self.query(h)[:, None])).squeeze(-1)
        weights = scores.masked_fill(padding, -torch.inf).softmax(-1)
        context = torch.bmm(weights[:, None], values).squeeze(1)
        readout = torch.tanh(self.readout(torch.cat([h, context], dim=-1)))
        return readout, (h, c, readout)

    def forward(self, batch: Batch) -> Tensor:
        values, keys, padding, state = self.encode(batch.source, batch.source_lengths)
        readouts: list[Tensor] = []
        for embedded in (self.scale * self.embedding(batch.inputs)).unbind(1):
            readout, state = self.step(embedded, state, values, keys, padding)
            readouts.append(readout)
        return self.output(torch.stack(readouts, 1))

    def search(self, source: Tensor, lengths: Tensor, options: Search) -> list[list[int]]:
        """Beam search with GNMT's length normalization (α = 1) until every row of the batch is done."""
        width, least = options.num_beams, (lengths * options.min_ratio).long()
        values, keys, padding, state = self.encode(source, lengths)
        batch, most = len(source), (lengths * options.max_ratio).ceil().long() + options.max_extra
        values, keys, padding = (tensor.repeat_interleave(width, 0) for tensor in (values, keys, padding))
        state = tuple(tensor.repeat_interleave(width, 0) for tensor in state)
        scores = torch.full((batch, width), -torch.inf)
        scores[:, 0] = 0.0
        latest = torch.full((batch * width,), STOP)
        written = torch.zeros(batch, width, 0, dtype=torch.long)
        done = torch.zeros(batch, width, dtype=torch.bool)
        counts = torch.zeros(batch, width)
        only_stop = torch.full((self.output.out_features,), -torch.inf)
        only_stop[STOP] = 0.0
        for step in range(int(most.max())):
            readout, state = self.step(self.scale * self.embedding(latest), state, values, keys, padding)
            logs = self.output(readout).log_softmax(-1).view(batch, width, -1)
            logs[:, :, STOP].masked_fill_(least[:, None] > step, -torch.inf)
            logs = torch.where(done[..., None], only_stop, logs)
            best = (scores[..., None] + logs).view(batch, -1).topk(width)
            origin, token = best.indices // logs.shape[-1], best.indices % logs.shape[-1]
            scores = best.values
            flat = (origin + torch.arange(batch)[:, None] * width).view(-1)
            state = tuple(tensor[flat] for tensor in state)
            written = torch.cat([written.gather(1, origin[..., None].expand_as(written)), token[..., None]], -1)
            counts = counts.gather(1, origin) + ~done.gather(1, origin)
            done = done.gather(1, origin) | (token == STOP) | (most[:, None] == step + 1)
            latest = token.view(-1)
            if bool(done.all()):
                break
        normed = scores / ((5 + counts) / 6)
        rows = written[torch.arange(batch), normed.argmax(1)].tolist()
        return [row[: row.index(STOP)] if STOP in row else row for row in rows]


def network(vocabulary: int, embedding: int, hidden: int, attention: int) -> EncoderDecoder:
    """The package's network of the same sizes, without dropout."""
    core = partial(Recurrent, LSTMCell, hidden_size=hidden, num_layers=1)
    attend = partial(AdditiveAttention, attention_size=attention)
    decoder = partial(AutoregressiveDecoder.of_tokens, vocabulary, embedding, core, attend, tied=True)
    return EncoderDecoder(RecurrentEncoder.of_tokens(vocabulary, embedding, core), decoder, shared_embedding=True)


def plain_like(ours: Any) -> Plain:
    """The plain network with the weights of ours.

    Raises:
        ValueError: ours is not of the kind that this script measures.
    """
    decoder, encoder = ours.decoder, ours.encoder
    cells = (encoder.core.cells[0], encoder.core.reverse_cells[0], decoder.core.cells[0])
    if not all(isinstance(cell, LSTMCell) for cell in cells) or not isinstance(decoder.attention, AdditiveAttention):
        raise ValueError(
            "only one-layer LSTMs with additive attention, shared embeddings and input feeding are compared"
        )
    size = decoder.embedding.embedding_dim
    made = Plain(decoder.vocabulary_size, size, cells[2].hidden_size, decoder.attention.attention_size)
    pairs: list[tuple[nn.Module, Any]] = [
        *((made.bridge[i], decoder.bridge[i]) for i in range(2)),
        *((getattr(made, name), getattr(decoder.attention, name)) for name in ("key", "query", "energy")),
        *(
            (made.readout, decoder.steps.readout),
            (made.output, decoder.head.linear),
            (made.embedding, decoder.embedding),
        ),
    ]
    for one, other in pairs:
        one.load_state_dict(other.state_dict())
    names = [f"{kind}_{part}" for kind in ("weight", "bias") for part in ("ih", "hh")]
    with torch.no_grad():
        for name in names:
            getattr(made.encoder, f"{name}_l0").copy_(getattr(cells[0], name))
            getattr(made.encoder, f"{name}_l0_reverse").copy_(getattr(cells[1], name))
            getattr(made.cell, name).copy_(getattr(cells[2], name))
    return made


def batches(count: int, vocabulary: int, batch_tokens: int) -> list[Batch]:
    """Random sentences with the lengths of captions, in batches of similar length."""
    generator = random.Random(0)
    lengths = [(generator.randint(6, 24),) * 2 for _ in range(40 * count * max(1, batch_tokens // 600))]
    lengths = [(source, max(3, source + generator.randint(-3, 4))) for source, _ in lengths]
    plan = BucketPlan(lengths, batch_tokens=batch_tokens)

    made: list[Batch] = []
    stop = torch.tensor([STOP])
    for rows in plan.batches(0)[:count]:
        sides = [tuple(random_sentence(generator, n, vocabulary) for n in lengths[row]) for row in rows.tolist()]
        made.append(
            Batch(
                pad_sequence([source for source, _ in sides], batch_first=True),
                torch.tensor([len(source) for source, _ in sides]),
                pad_sequence([torch.cat([stop, target]) for _, target in sides], batch_first=True),
                pad_sequence([torch.cat([target, stop]) for _, target in sides], batch_first=True, padding_value=STOP),
                torch.tensor([len(target) + 1 for _, target in sides]),
            )
        )
    return made


def random_sentence(generator: random.Random, length: int, vocabulary: int) -> Tensor:
    return torch.tensor([generator.randrange(2, vocabulary) for _ in range(length)])


def our_loss(ours: EncoderDecoder, batch: Batch) -> Tensor:
    decoded = ours(batch.source, batch.source_lengths, batch.inputs, batch.lengths)
    mask = mask_from_lengths(batch.lengths, batch.targets.shape[1])
    return masked_cross_entropy(decoded.parameters, batch.targets, mask, label_smoothing=SMOOTHING).mean


def plain_loss(plain: Plain, batch: Batch) -> Tensor:
    mask = torch.arange(batch.targets.shape[1]) < batch.lengths[:, None]
    targets = batch.targets.masked_fill(~mask, -100)
    return cross_entropy(plain(batch).flatten(0, 1), targets.flatten(), label_smoothing=SMOOTHING)


def trained(side: Any, loss: Callable[[Any, Batch], Tensor], steps: Sequence[Batch], precision: torch.dtype) -> float:
    """Target tokens per second."""
    optimizer = torch.optim.AdamW(side.parameters(), lr=1e-4)
    begun = time.perf_counter()
    for batch in steps:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=precision, enabled=precision is not torch.float32):
            value = loss(side, batch)
        value.backward()
        nn.utils.clip_grad_norm_(side.parameters(), 1.0)
        optimizer.step()
    return sum(int(batch.lengths.sum()) for batch in steps) / (time.perf_counter() - begun)


def searched(find: Callable[[Tensor, Tensor], list[list[int]]], sources: list[Tensor]) -> tuple[float, list[list[int]]]:
    """Sentences per second, and the texts in the order of the sources."""
    texts: list[list[int]] = [[]] * len(sources)
    begun = time.perf_counter()
    with torch.no_grad():
        for rows in batched_by_length([len(source) for source in sources], 1024):
            chosen = [sources[row] for row in rows]
            lengths = torch.tensor([len(source) for source in chosen])
            for row, text in zip(rows, find(pad_sequence(chosen, batch_first=True), lengths), strict=True):
                texts[row] = text
    return len(sources) / (time.perf_counter() - begun), texts


def our_search(
    ours: EncoderDecoder, tokenizer: Any, options: Search, source: Tensor, lengths: Tensor
) -> list[list[int]]:
    found = search(ours.decoder, *ours.start(source, lengths), tokenizer, lengths, options)
    rows = zip(found.tokens[:, 0].tolist(), found.lengths[:, 0].tolist(), strict=True)
    return [tokens[:length] for tokens, length in rows]


class Ids:
    """What a search asks of a tokenizer."""

    start, unknown = STOP, None


def alternating(rounds: int, measures: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            rates[name].append(measure())
    return rates


def report(title: str, unit: str, rates: dict[str, list[float]]) -> None:
    plain, ours = rates.values()
    ratios = [one / other for one, other in zip(ours, plain, strict=True)]
    print(f"\n| {title} | {unit} |\n|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):,.1f} |")
    print(f"| ratio, median | {statistics.median(ratios):.2f} |")
    print(f"| ratio, each round | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="training steps of each round")
    parser.add_argument("--sentences", type=int, default=128, help="sentences that each round searches for")
    parser.add_argument("--num-beams", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument(
        "--sizes", type=int, nargs=4, default=[5000, 256, 320, 256], help="vocabulary embedding hidden attention"
    )
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--lines", type=Path, help="sentences for the checkpoint, one a line")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    torch.manual_seed(0)

    ours, tokenizer = network(*options.sizes), Ids()
    plain = plain_like(ours)
    steps = batches(options.steps, options.sizes[0], options.batch_tokens)
    with torch.no_grad():
        losses = [float(our_loss(ours, steps[0])), float(plain_loss(plain, steps[0]))]
    print(f"losses before training: {losses[0]:.6f} and {losses[1]:.6f}")
    precision = getattr(torch, options.precision)
    for side, loss in ((plain, plain_loss), (ours, our_loss)):
        trained(side, loss, steps[:1], precision)
    train = {
        "nn.LSTM, by hand": lambda: trained(plain, plain_loss, steps, precision),
        "unrolled": lambda: trained(ours, our_loss, steps, precision),
    }
    report(f"training, {options.precision}", "target tokens per second", alternating(options.rounds, train))

    asked = Search(num_beams=options.num_beams)
    if options.checkpoint:
        bundle: Any = load_bundle(options.checkpoint)
        ours, tokenizer = bundle.network.eval(), bundle.processor.target
        lines = options.lines.read_text(encoding="utf-8").splitlines()[: options.sentences]
        sources = [torch.tensor(bundle.processor.source.encode(line)) for line in lines]
    else:
        torch.manual_seed(0)
        ours = network(*options.sizes).eval()
        asked = asked._replace(min_ratio=1.0, max_ratio=1.0, max_extra=0)
        drawn = random.Random(1)
        sources = [random_sentence(drawn, drawn.randint(6, 24), options.sizes[0]) for _ in range(options.sentences)]
    plain = plain_like(ours).eval()
    texts: dict[str, list[list[int]]] = {}

    def measure(name: str, find: Callable[[Tensor, Tensor], list[list[int]]]) -> float:
        rate, texts[name] = searched(find, sources)
        return rate

    found = {
        "nn.LSTM, by hand": lambda: measure("plain", lambda s, n: plain.search(s, n, asked)),
        "unrolled": lambda: measure("ours", partial(our_search, ours, tokenizer, asked)),
    }
    report(f"beam search, width {options.num_beams}", "sentences per second", alternating(options.rounds, found))
    same = sum(one == other for one, other in zip(texts["plain"], texts["ours"], strict=True))
    mean = statistics.mean(map(len, texts["ours"]))
    print(f"\n{same} of {len(sources)} texts are the same; ours have {mean:.1f} tokens on average")


if __name__ == "__main__":
    main()
