"""Beam search with the ONNX models of a sequence-to-sequence network. It needs numpy and onnxruntime alone.

The file stands beside the models. As a program, it reads a source from each line, and prints what it finds:

    python beam_search.py --beam 4 < sources.txt
    python beam_search.py --beam 4 --n-best 2 "a source" "another one"

Sources and results are texts where processor.json tells how a text is split, and ids such as "5 6 7" elsewhere.
From Python, sources are arrays of ids or numbers (batch, source, …) with lengths, or images without:

    from beam_search import Network, beam_search, padded

    network = Network("exported")
    for found in beam_search(network, *padded([[5, 6, 7], [8, 9]]), beam=4, n_best=2):
        print(found[0].score, found[0].tokens, network.text(found[0].tokens))
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

Tensors = dict[str, Any]  # name → array, with a row for each source or hypothesis


class Hypothesis(NamedTuple):
    """A sequence that was found."""

    tokens: list[int]  # without the one that ends the sequence
    score: float  # by which hypotheses are sorted
    log_probability: float  # of all tokens and of the end, in nats


class Network:
    """The models of a folder, and what its processor.json tells of them."""

    def __init__(self, folder: str | Path) -> None:
        described = json.loads((Path(folder) / "processor.json").read_text(encoding="utf-8"))
        self.graphs, self.sides, self.processor = described["graphs"], described["vocabulary"], described["processor"]
        self.models: dict[str, Any] = {
            name: onnxruntime.InferenceSession(Path(folder) / f"{name}.onnx", providers=["CPUExecutionProvider"])
            for name in self.graphs
        }
        self.carried = [port["name"] for port in self.graphs["step"]["inputs"] if port["name"] != "inputs"]

    def start(self, inputs: Any, lengths: Any = None) -> Tensors:
        """Return what the first step reads besides tokens: what is known of the sources, and the states."""
        given = {"inputs": inputs, "lengths": lengths}
        for name in self.graphs:
            if name != "step":  # encoder, then attention or start
                given |= self._run(name, given)
        return {name: given[name] for name in self.carried}

    def step(self, tokens: Any, carried: Tensors) -> tuple[Any, Any, Tensors]:
        """Return log probabilities (rows, vocabulary), attention (rows, source) or None, and what is carried on."""
        found = self._run("step", {"inputs": tokens, **carried})
        logits = found["logits"] - found["logits"].max(-1, keepdims=True)
        scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return scores, found.get("weights"), {name: found.get(f"next_{name}", carried[name]) for name in carried}

    def _run(self, name: str, given: Tensors) -> Tensors:
        model = self.models[name]
        read = {port.name: given[port.name] for port in model.get_inputs()}
        return dict(zip((port.name for port in model.get_outputs()), model.run(None, read), strict=True))

    def ids(self, text: str) -> list[int]:
        """Return the ids of a source: those of its tokens, or those that it names."""
        side = self.sides.get("source", {})
        if self.graphs["encoder"]["inputs"][0]["axes"] != ["batch", "source"]:
            raise ValueError("this network reads arrays of numbers, not lines: call beam_search from Python")
        if "pattern" in side:
            known, unknown = {symbol: index for index, symbol in enumerate(side["symbols"])}, int(side["unknown"])
            tokens = re.findall(side["pattern"], text.lower() if side["lowercase"] else text)
            return [known.get(token, unknown) for token in tokens[: side["max_length"]]]
        if not re.fullmatch(r"[\d\s]*", text):
            kind = self.processor["source"]["_target_"].rpartition(".")[2]
            raise ValueError(
                f"{text!r}: expected ids such as '5 6 7'; processor.json doesn't tell how {kind} splits text"
            )
        return [int(index) for index in text.split()]

    def text(self, tokens: Sequence[int]) -> str:
        """Return a result as text, or its ids."""
        side = self.sides["target"]
        if "pattern" not in side:
            return " ".join(map(str, tokens))
        return str(side["joined"].join(side["symbols"][token] for token in tokens))


def padded(sources: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Return ids (batch, source), padded with 0, and lengths (batch,)."""
    lengths = np.array([len(source) for source in sources], dtype=np.int64)
    inputs = np.zeros((len(sources), lengths.max(initial=0)), dtype=np.int64)
    for row, source in zip(inputs, sources, strict=True):
        row[: len(source)] = source
    return inputs, lengths


def beam_search(
    network: Network,
    inputs: Any,
    lengths: Any = None,
    *,
    beam: int = 5,
    n_best: int = 1,
    max_length: int | None = None,
    min_length: int = 0,
    length_penalty: float = 1.0,
    coverage_penalty: float = 0.0,
) -> list[list[Hypothesis]]:
    """Return the n_best sequences of each source with the highest score, the best first.

    The score is log P(Y|X) / ((5 + |Y|) / 6)^length_penalty, where |Y| counts the end, plus coverage_penalty times the
    sum over the source of log min(attention, 1) (Wu et al. 2016, eq. 14). A finished sequence keeps its place in the
    beam. A sequence of max_length tokens, by default twice those of the source and 10 more, or 30, ends without an end.
    """
    if not 1 <= n_best <= beam:
        raise ValueError(f"beam={beam} and n_best={n_best}: expected 1 or more, and n_best at most beam")
    if not (0.0 <= length_penalty < math.inf and 0.0 <= coverage_penalty < math.inf):
        raise ValueError(f"length_penalty={length_penalty}, coverage_penalty={coverage_penalty}: expected 0 or more")
    longest = [30] * len(inputs) if lengths is None else [2 * int(length) + 10 for length in lengths]
    longest = longest if max_length is None else [max_length] * len(inputs)
    if not 0 <= min_length <= min(longest, default=min_length):
        raise ValueError(f"min_length={min_length}: expected 0 to max_length, which is {min(longest, default=0)}")
    options = _Options(beam, n_best, length_penalty, coverage_penalty)
    end, unknown = network.sides["target"]["start"], network.sides["target"]["unknown"]
    sources = [_Source(options, end, most) for most in longest]
    rows = [row for row, source in enumerate(sources) for _ in source.opened]  # of the tensors, for each hypothesis
    carried = network.start(inputs, lengths) if rows else {}
    length = 0
    while rows:
        latest = [each.tokens[-1] if each.tokens else end for source in sources for each in source.opened]
        carried = {name: values[rows] for name, values in carried.items()}
        scores, weights, carried = network.step(np.array(latest, dtype=np.int64), carried)
        if weights is None and coverage_penalty:
            raise ValueError(f"coverage_penalty={coverage_penalty} needs attention, which this network doesn't have")
        scores[:, [*([] if unknown is None else [unknown]), *([end] if length < min_length else [])]] = -math.inf
        weights = np.zeros((len(rows), 0)) if weights is None else weights
        length += 1
        rows, first = [], 0
        for source in sources:
            own = slice(first, first + len(source.opened))
            rows += [first + origin for origin in source.advance(scores[own], weights[own], length)]
            first = own.stop
    return [sorted(source.finished, key=lambda found: -found.score)[:n_best] for source in sources]


class _Options(NamedTuple):
    beam: int
    n_best: int
    length_penalty: float
    coverage_penalty: float


class _Open(NamedTuple):
    """A sequence that goes on."""

    tokens: list[int]
    log_probability: float
    covered: Any  # (source,) how much attention each place of the source has had


class _Source:
    """The hypotheses of a source: open ones, and finished ones, which keep their places in the beam."""

    def __init__(self, options: _Options, end: int, longest: int) -> None:
        self.options, self.end, self.longest = options, end, longest
        self.opened = [_Open([], 0.0, 0.0)] if longest else []
        self.finished = [] if longest else [Hypothesis([], 0.0, 0.0)]

    def advance(self, scores: Any, weights: Any, length: int) -> list[int]:
        """Extend the open hypotheses by a token; return for each that is open then which one it goes on from."""
        if not self.opened:
            return []
        chosen = self._best(scores, weights)
        if not chosen and not self.finished:
            raise ValueError("no token is allowed; lower min_length")
        attended = sum(each.covered for _, each in chosen) > 0  # the padding is not
        going_on: list[tuple[int, _Open]] = []
        for origin, each in chosen:
            ended = each.tokens[-1] == self.end
            if ended or length == self.longest:
                score = each.log_probability / self._norm(length)
                if self.options.coverage_penalty:
                    covered = np.clip(each.covered[attended], np.finfo(np.float32).tiny, 1.0)
                    score += self.options.coverage_penalty * float(np.log(covered).sum())
                tokens = each.tokens[:-1] if ended else each.tokens
                self.finished.append(Hypothesis(tokens, score, each.log_probability))
            else:
                going_on.append((origin, each))
        if len(self.finished) >= self.options.n_best and going_on:
            worst = sorted((each.score for each in self.finished), reverse=True)[self.options.n_best - 1]
            highest = max(each.log_probability for _, each in going_on) / self._norm(self.longest)
            going_on = going_on if highest > worst else []  # none of them can become one of the n_best
        self.opened = [each for _, each in going_on]
        return [origin for origin, _ in going_on]

    def _best(self, scores: Any, weights: Any) -> list[tuple[int, _Open]]:
        """Return the best continuations by one token, each with the place of the hypothesis that it continues."""
        totals = np.array([each.log_probability for each in self.opened])[:, None] + scores
        if np.isnan(totals).any():
            raise ValueError("the network's logits are NaN or infinite; check its inputs")
        found: list[tuple[int, _Open]] = []
        for place in np.argsort(-totals, axis=None, kind="stable")[: self.options.beam - len(self.finished)]:
            origin, token = divmod(int(place), scores.shape[1])
            total, before = float(totals[origin, token]), self.opened[origin]
            if total > -math.inf:
                found.append((origin, _Open([*before.tokens, token], total, before.covered + weights[origin])))
        return found

    def _norm(self, length: int) -> float:
        return ((5 + length) / 6) ** self.options.length_penalty


def _searched(network: Network, lines: Iterator[str], options: Any) -> Iterator[tuple[int, float, str]]:
    """Yield the number of each line, and the score and the text of each sequence that is found for it."""
    number = 0
    while batch := [network.ids(line.rstrip("\r\n")) for line in islice(lines, 32)]:
        found = iter(beam_search(network, *padded([ids for ids in batch if ids]), **options))
        for ids in batch:
            number += 1
            for each in next(found) if ids else [Hypothesis([], 0.0, 0.0)]:  # nothing is found for nothing
                yield number, each.score, " ".join(network.text(each.tokens).splitlines())


def main(arguments: Sequence[str] | None = None) -> None:
    """Read sources, and print what is found for each."""
    parser = argparse.ArgumentParser(description="Search with the ONNX models of a sequence-to-sequence network.")
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="texts or ids (default: lines of standard input)")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="of the models (default: this one)")
    parser.add_argument("--beam", type=int, default=5, help="hypotheses kept at each step (default: %(default)s)")
    parser.add_argument("--n-best", type=int, metavar="N", help="print N for each: line number, score and text")
    parser.add_argument("--max-length", type=int, help="of a result, in tokens (default: twice its source's and 10)")
    parser.add_argument("--min-length", type=int, default=0, help="of a result, in tokens (default: %(default)s)")
    parser.add_argument("--length-penalty", type=float, default=1.0, help="0 favors short ones (default: %(default)s)")
    parser.add_argument("--coverage-penalty", type=float, default=0.0, help="of what has no attention (default: 0)")
    options = vars(parser.parse_args(arguments))
    folder, listed, n_best = options.pop("folder"), options.pop("sources"), options.pop("n_best")
    try:
        rows = _searched(Network(folder), iter(listed or sys.stdin), {**options, "n_best": n_best or 1})
        for number, score, text in rows:
            print(*(() if n_best is None else (number, f"{score:.4f}")), text, sep="\t", flush=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
