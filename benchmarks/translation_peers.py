"""Translation beside attentive LSTMs of other packages, each of which lives in an environment of its own.

    python -m venv yoyodyne && yoyodyne/bin/pip install yoyodyne
    python benchmarks/translation_peers.py yoyodyne --python yoyodyne/bin/python
    python -m venv joeynmt && joeynmt/bin/pip install joeynmt importlib_metadata 'setuptools<80'
    python benchmarks/translation_peers.py joeynmt --python joeynmt/bin/python

Sizes, batches, optimizer and clipping are the same, the networks not quite: Yoyodyne's feeds the context to its
decoder, has no readout, and computes attention over the source anew at each step; both leave embeddings untied from the
output (JoeyNMT ties the source's with the target's, as here). The number of parameters stands in the table. Each side
has its process, and they take turns; figures are medians over rounds. Training: target tokens per second. Search: a
beam over random networks and sentences of one length, until texts have as many tokens as their sources.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

LENGTH, LEAST = 14, 6  # of the sentences to search for; the first ids are kept for what peers keep for themselves
Side = tuple[torch.nn.Module, Callable[[Any, Any], Tensor], Callable[[Any], None]]  # network, loss, search


def yoyodyne(asked: Any) -> Side:
    from yoyodyne.data.batches import Batch, PaddedTensor
    from yoyodyne.models import SoftAttentionLSTMModel, modules

    vocabulary, embedding, hidden, _ = asked["sizes"]
    encoder = modules.LSTMEncoder(bidirectional=True, embedding_size=embedding, hidden_size=hidden, dropout=0.0)
    model = SoftAttentionLSTMModel(
        source_encoder=encoder,
        embedding_size=embedding,
        decoder_hidden_size=hidden,
        decoder_dropout=0.0,
        label_smoothing=0.1,
        max_target_length=LENGTH,
        vocab_size=vocabulary,
        target_vocab_size=vocabulary,
        compute_accuracy=False,
    )

    def padded(rows: list[list[int]]) -> PaddedTensor:
        return PaddedTensor([torch.tensor(row) for row in rows])

    def loss(source: Any, target: Any) -> Tensor:
        model.beam_width = 1
        batch = Batch(padded(source), target=padded(target))
        return model.loss_func(model(batch), batch.target.tensor)

    def search(source: Any) -> None:
        model.beam_width = asked["num_beams"]
        model(Batch(padded(source)))

    return model, loss, search


def joeynmt(asked: Any) -> Side:
    from joeynmt.model import build_model
    from joeynmt.search import beam_search
    from joeynmt.vocabulary import Vocabulary

    size, embedding, hidden, _ = asked["sizes"]
    names = {"unk": 0, "pad": 1, "bos": 2, "eos": 3}
    special = {f"{name}_token": f"<{name}>" for name in names} | {f"{name}_id": at for name, at in names.items()}
    special |= {"sep_token": None, "lang_tags": []}
    vocabulary = Vocabulary([f"w{number}" for number in range(size - len(names))], SimpleNamespace(**special))
    part = {"type": "recurrent", "rnn_type": "lstm", "hidden_size": hidden, "embeddings": {"embedding_dim": embedding}}
    config = {"encoder": {**part, "bidirectional": True}, "decoder": {**part, "attention": "bahdanau"}}
    model = build_model({**config, "tied_embeddings": True}, vocabulary, vocabulary)
    model.loss_function = ("crossentropy", 0.1)
    pad = names["pad"]

    def read(source: Any) -> dict[str, Any]:
        ids = pad_sequence([torch.tensor(row) for row in source], batch_first=True, padding_value=pad)
        lengths = torch.tensor([len(row) for row in source])
        return {"src": ids, "src_length": lengths, "src_mask": (ids != pad).unsqueeze(1)}

    def loss(source: Any, target: Any) -> Tensor:
        order = sorted(range(len(source)), key=lambda row: -len(source[row]))  # its packing wants the longest first
        written = [torch.tensor(target[row]) for row in order]
        ids = pad_sequence(written, batch_first=True, padding_value=pad)
        start = torch.full_like(ids[:, :1], names["bos"])
        sides = {"trg": ids, "trg_input": torch.cat([start, ids[:, :-1]], 1), "trg_mask": (ids != pad).unsqueeze(1)}
        total, *_ = model(return_type="loss", **read([source[row] for row in order]), **sides)
        return total / sum(map(len, written))

    def search(source: Any) -> None:
        asking = read(source)
        output, state, _, _ = model(return_type="encode", **asking)
        lengths = {"min_output_length": LENGTH, "max_output_length": LENGTH}
        beam_search(model, asked["num_beams"], output, state, asking["src_mask"], alpha=1.0, **lengths)

    return model, loss, search


PEERS: dict[str, Callable[[Any], Side]] = {"yoyodyne": yoyodyne, "joeynmt": joeynmt}


def worker(name: str, path: str) -> None:
    """A peer's side, in its own process: for each "train" or "search" on a line, the seconds it took."""
    from torch.nn.utils import clip_grad_norm_

    asked = json.loads(Path(path).read_text())
    torch.set_num_threads(asked["threads"])
    model, loss, find = PEERS[name](asked)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def train() -> None:
        model.train()
        for source, target in asked["batches"]:
            optimizer.zero_grad()
            loss(source, target).backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    def search() -> None:
        model.eval()
        with torch.no_grad():
            for begin in range(0, len(asked["sources"]), asked["rows"]):
                find(asked["sources"][begin : begin + asked["rows"]])

    print(json.dumps(sum(parameter.numel() for parameter in model.parameters())), flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        {"train": train, "search": search}[line.strip()]()
        print(json.dumps(time.perf_counter() - begun), flush=True)


def main() -> None:
    import translation as bench  # beside this file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--python", required=True, help="the Python in whose environment the peer is installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sentences", type=int, default=16)
    parser.add_argument("--rows", type=int, default=16, help="sentences that are searched for at once")
    parser.add_argument("--num-beams", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--sizes", type=int, nargs=4, default=[5000, 256, 320, 256])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench.keep_freed_memory()
    torch.manual_seed(0)
    steps = bench.batches(options.steps, options.sizes[0], options.batch_tokens)
    generator = random.Random(1)
    sources = [bench.random_sentence(generator, LENGTH, options.sizes[0]) for _ in range(options.sentences)]
    ours = bench.network(*options.sizes)
    alike = bench.Search(num_beams=options.num_beams, min_ratio=1.0, max_ratio=1.0, max_extra=0)
    find = partial(bench.our_search, ours, bench.Ids(), alike)

    def search() -> float:
        with torch.no_grad():
            begun = time.perf_counter()
            for begin in range(0, len(sources), options.rows):
                rows = torch.stack(sources[begin : begin + options.rows])
                find(rows, torch.full((len(rows),), LENGTH))
            return len(sources) / (time.perf_counter() - begun)

    asked = {
        **{name: getattr(options, name) for name in ("threads", "sizes", "num_beams", "rows")},
        "batches": [(_rows(b.source, b.source_lengths), _rows(b.targets, b.lengths)) for b in steps],
        "sources": [[max(index, LEAST) for index in source.tolist()] for source in sources],
    }
    tokens = sum(int(batch.lengths.sum()) for batch in steps)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "asked.json"
        path.write_text(json.dumps(asked))
        command = [options.python, __file__, "--worker", options.peer, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
            parameters = [int(json.loads(_answer(peer))), sum(p.numel() for p in ours.parameters())]
            print(f"parameters: {options.peer} {parameters[0]:,}, unrolled {parameters[1]:,}")

            def asked_peer(what: str, count: int) -> float:
                return count / float(json.loads(_answer(peer, what)))

            def train() -> float:
                return bench.trained(ours.train(), bench.our_loss, steps, torch.float32)

            asked_peer("train", tokens)  # both once, unmeasured
            train()
            rates = {options.peer: partial(asked_peer, "train", tokens), "unrolled": train}
            bench.report("training", "target tokens per second", bench.alternating(options.rounds, rates))
            ours.eval()
            rates = {options.peer: partial(asked_peer, "search", len(sources)), "unrolled": search}
            title = f"beam search, width {options.num_beams}"
            bench.report(title, "sentences per second", bench.alternating(options.rounds, rates))
            if peer.stdin:
                peer.stdin.close()


def _rows(ids: Tensor, lengths: Tensor) -> list[list[int]]:
    """Ragged ids without those that the peer keeps for itself, but for its own end symbol."""
    return [[max(index, LEAST) for index in row[:n].tolist()] for row, n in zip(ids, lengths.tolist(), strict=True)]


def _answer(peer: Any, question: str | None = None) -> str:
    if question is not None:
        peer.stdin.write(f"{question}\n")
        peer.stdin.flush()
    line = peer.stdout.readline()
    if not line:
        raise SystemExit(f"the peer's process ended with status {peer.wait()}")
    return line


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:4])
    else:
        main()
