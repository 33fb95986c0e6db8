"""A language model in plain PyTorch, to compare the recipe of conf/experiment/char_lm/tiny_shakespeare.yaml with.

    python benchmarks/plain_char_lm.py input.txt --epochs 12 --threads 1

Two layers of nn.LSTM, dropout on the outputs of both, the first layer's output added to the second's, AdamW, a cosine
schedule, clipping. The first 90 % of the file is for training. Each epoch rotates the training text by a random number
of characters and reads it as parallel streams. After each epoch, the last 10 % is scored as one continuous stream, in
nats per character.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Embedding, two LSTM layers whose outputs are dropped and added, and a linear layer."""

    def __init__(self, vocabulary: int, hidden: int, embedding: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.first = nn.LSTM(embedding, hidden, batch_first=True)
        self.second = nn.LSTM(hidden, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, vocabulary)
        for layer in (self.first, self.second, self.output):
            for name, parameter in layer.named_parameters():
                if parameter.dim() == 1:
                    nn.init.zeros_(parameter)
                elif name.startswith("weight_hh"):
                    nn.init.orthogonal_(parameter)
                else:
                    nn.init.xavier_uniform_(parameter)

    def forward(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Compute logits (batch, time, vocabulary) of ids (batch, time), and the detached state after them."""
        before = (None, None) if state is None else state
        outputs, first = self.first(self.embedding(ids), before[0])
        lower = self.dropout(outputs)
        outputs, second = self.second(lower, before[1])
        after = tuple(tuple(part.detach() for part in layer) for layer in (first, second))
        return self.output(lower + self.dropout(outputs)), after


def windows(rows: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """Cut rows (batch, time) to inputs and targets of at most `length` steps."""
    last = rows.shape[1] - 1
    starts = range(0, last, length)
    return [(rows[:, t : min(t + length, last)], rows[:, t + 1 : min(t + length, last) + 1]) for t in starts]


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def train_epoch(network: Network, text: Tensor, optimizer: Any, schedule: Any, options: argparse.Namespace) -> float:
    """Train on the text once, and return the mean loss."""
    network.train()
    length = len(text) // options.streams
    rotated = text.roll(-int(torch.randint(len(text), ())))[: length * options.streams]
    state, total, count = None, 0.0, 0
    for inputs, targets in windows(rotated.view(options.streams, length), options.window):
        logits, state = network(inputs, state)
        loss = loss_of(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item() * targets.numel()
        count += targets.numel()
    return total / count


@torch.no_grad()
def score(network: Network, text: Tensor) -> float:
    """Return the mean loss of a text as one continuous stream."""
    network.eval()
    state, total = None, 0.0
    for inputs, targets in windows(text[None], 4096):
        logits, state = network(inputs, state)
        total += loss_of(logits, targets).item() * targets.numel()
    return total / (len(text) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--schedule", type=int, default=40, help="epochs of the cosine, of which --epochs are run")
    parser.add_argument("--share", type=float, default=1.0, help="of the training text, from its beginning")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    characters = options.file.read_text(encoding="utf-8")
    places = {character: place for place, character in enumerate(sorted(set(characters)))}
    text = torch.tensor([places[character] for character in characters])
    cut = int(0.9 * len(text))
    training, validation = text[: int(cut * options.share)], text[cut:]

    network = Network(len(places), options.hidden)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    steps = options.schedule * len(windows(training[None, : len(training) // options.streams], options.window))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    print(f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters")
    print("| epoch | training | validation |\n|---|---|---|")
    for epoch in range(options.epochs):
        loss = train_epoch(network, training, optimizer, schedule, options)
        print(f"| {epoch + 1} | {loss:.4f} | {score(network, validation):.4f} |", flush=True)


if __name__ == "__main__":
    main()
