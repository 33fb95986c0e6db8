"""Self-critical sequence training: REINFORCE on sampled captions, with other captions of the network as baseline."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.generation.limits import forbid
from unrolled.generation.sampling import Generated, sample
from unrolled.generation.search import Search
from unrolled.models.decoders.base import Decoder, DecoderState
from unrolled.processing.text.base import Tokenizer
from unrolled.sequences import mask_from_lengths
from unrolled.state import leaves, select
from unrolled_tasks.captioning.scores import CiderD, sentence_bleu, tokens

_END = "<end>"  # counts as a word, so that an unfinished caption has a lower reward
_CHUNKS = 4


class CriticResult(NamedTuple):
    """Result of a step of self-critical training."""

    loss: Tensor  # its gradient is the policy gradient per sampled token
    reward: float  # mean over the samples


class SelfCritic:
    """Self-critical sequence training on CIDEr-D.

        ∇ = −(r(sampled) − b) ∇ log p(sampled)                      eq. 8

    Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning". The reward is CIDEr-D with the document
    frequencies of the training references, where the end of a text counts as a word, plus `bleu` times the caption's
    smoothed BLEU-4 (from 0 to 1), which also rewards length and frequent words. The baseline b is the reward of the
    greedy caption, as in that paper, or the mean reward of the image's other samples (Luo 2020, "A Better Variant of
    Self-Critical Sequence Training"), which has less variance and needs no further caption. Samples, baseline and
    gradient use the decoder without dropout and without the unknown word, so that all belong to the same policy.

    Args:
        references: the captions of each training image.
        samples: number of samples for each image.
        baseline: "samples" or "greedy".
        bleu: weight of BLEU-4 in the reward.

    Raises:
        ValueError: an unknown baseline, too few samples, or a weight below 0.
    """

    def __init__(
        self,
        references: Iterable[Sequence[str]],
        *,
        samples: int = 5,
        baseline: str = "samples",
        bleu: float = 0.0,
    ) -> None:
        if baseline not in ("samples", "greedy"):
            raise ValueError(f"baseline={baseline!r}: samples or greedy")
        if samples < (2 if baseline == "samples" else 1):
            raise ValueError(f"samples={samples}: must be 2 or more, or 1 or more with baseline=greedy")
        if not 0 <= bleu < float("inf"):
            raise ValueError(f"bleu={bleu}: the weight of BLEU-4 in the reward must be 0 or more")
        self.samples, self.baseline, self.bleu = samples, baseline, bleu
        self._scorer = CiderD([_words(text) for text in several] for several in references)

    def learn(
        self,
        decoder: Decoder,
        state: DecoderState,
        memory: Any,
        references: Sequence[Sequence[str]],
        tokenizer: Tokenizer,
        options: Search,
    ) -> CriticResult:
        """Samples captions and computes the loss of a step.

        Args:
            decoder: the decoder to train.
            state: its state before the first token, a row for each image, with the graph.
            memory: its memory, likewise.
            references: the captions of each image.
            tokenizer: the tokenizer of the captions.
            options: its max_extra is the maximum length of captions.
        """
        several = torch.arange(len(references), device=_device(state)).repeat_interleave(self.samples)
        states, memories = select(state, several), select(memory, several)
        mode = decoder.training
        decoder.eval()
        drawn = self._draw(decoder, states, memories, tokenizer, options, temperature=1.0)
        rewards = self._rewards(drawn, tokenizer, [one for one in references for _ in range(self.samples)])
        if self.baseline == "greedy":
            greedy = self._draw(decoder, state, memory, tokenizer, options, temperature=0.0)
            baseline = self._rewards(greedy, tokenizer, references).repeat_interleave(self.samples)
        else:
            of_image = rewards.view(-1, self.samples)
            baseline = ((of_image.sum(1, keepdim=True) - of_image) / (self.samples - 1)).flatten()
        # A truncated caption has no stop symbol.
        lengths = (drawn.lengths + 1).clamp(max=drawn.values.shape[1])
        advantage = (rewards - baseline).to(drawn.log_probability)
        loss = drawn.log_probability.new_zeros(())
        # A few captions are much longer than most: captions of similar length are computed together.
        for rows in lengths.argsort().chunk(_CHUNKS):
            tokens = drawn.values[rows, : int(lengths[rows].max())]
            of_rows = (select(state, several[rows]), select(memory, several[rows]))
            log_probabilities = self._log_probabilities(decoder, tokens, *of_rows, tokenizer)
            mask = mask_from_lengths(lengths[rows], tokens.shape[1])
            loss = loss - (advantage[rows].unsqueeze(1) * log_probabilities).masked_fill(~mask, 0.0).sum()
        decoder.train(mode)
        loss = loss / lengths.sum().clamp(min=1)
        return CriticResult(loss, float(rewards.mean()))

    def _log_probabilities(
        self, decoder: Decoder, tokens: Tensor, state: DecoderState, memory: Any, tokenizer: Tokenizer
    ) -> Tensor:
        """Returns the log probabilities of tokens (batch, time), with the graph."""
        start = torch.full_like(tokens[:, :1], tokenizer.start)
        decoded = decoder(torch.cat([start, tokens[:, :-1]], dim=1), state, memory)
        # Words that are never sampled are not part of the policy: otherwise they would gain probability.
        logits = forbid(decoded.parameters.float().flatten(0, 1), _forbidden(tokenizer)).view_as(decoded.parameters)
        return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    def _draw(
        self,
        decoder: Decoder,
        state: DecoderState,
        memory: Any,
        tokenizer: Tokenizer,
        options: Search,
        *,
        temperature: float,
    ) -> Generated:
        rows = torch.arange(len(_leaf(state)), device=_device(state))
        return sample(
            decoder,
            state,
            memory,
            start=torch.full_like(rows, tokenizer.start),
            stop=tokenizer.start,
            max_length=options.max_extra,
            temperature=temperature,
            forbidden=_forbidden(tokenizer),
        )

    def _rewards(self, generated: Generated, tokenizer: Tokenizer, references: Sequence[Sequence[str]]) -> Tensor:
        rows = zip(generated.values.tolist(), generated.lengths.tolist(), references, strict=True)
        scores = [
            self._reward(tokenizer.decode(ids[:length]), length < len(ids), several) for ids, length, several in rows
        ]
        return torch.tensor(scores, device=generated.values.device)

    def _reward(self, text: str, ended: bool, references: Sequence[str]) -> float:
        reward = self._scorer.score(_words(text, ended=ended), [_words(reference) for reference in references])
        if self.bleu > 0:
            reward += self.bleu * sentence_bleu(tokens(text), [tokens(reference) for reference in references])
        return reward


def _words(text: str, *, ended: bool = True) -> list[str]:
    return [*tokens(text), _END] if ended else tokens(text)


def _forbidden(tokenizer: Tokenizer) -> list[int]:
    return [] if tokenizer.unknown is None else [tokenizer.unknown]


def _leaf(state: DecoderState) -> Tensor:
    return leaves(state)[0]


def _device(state: DecoderState) -> torch.device:
    return _leaf(state).device
