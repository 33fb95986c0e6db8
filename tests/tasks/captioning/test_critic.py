"""Self-critical training against the gradient of the expected reward, written out over all captions."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.generation.sampling import Generated
from unrolled.generation.search import Search
from unrolled.models.decoders.base import Decoded, Decoder, DecoderState
from unrolled_tasks.captioning.critic import SelfCritic

STOP, UNKNOWN, LONGEST = 0, 1, 2
WORDS = ["", "?", "red", "blue"]
REFERENCES = ["red blue", "red"]


class Names:
    """What self-critical training asks of a tokenizer."""

    start, unknown = STOP, UNKNOWN

    def decode(self, tokens: list[int]) -> str:
        return " ".join(WORDS[token] for token in tokens)


class Policy(Decoder):
    """Logits of each step, whatever was read before."""

    vocabulary_size = len(WORDS)

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([[0.1, 2.0, 0.5, -0.3], [0.4, 1.0, -0.2, 0.3], [0.0, 0.0, 0.0, 0.0]]))

    def start(self, batch: int, encoded: Any = None) -> tuple[DecoderState, Any]:
        return DecoderState(torch.zeros(batch, dtype=torch.long)), None

    def forward(self, tokens: Tensor, state: DecoderState, memory: Any = None, lengths: Any = None) -> Decoded:
        return Decoded(self.logits[: tokens.shape[1]].expand(len(tokens), -1, -1), None, state)

    def step(self, tokens: Tensor, state: DecoderState, memory: Any = None) -> Decoded:
        return Decoded(self.logits[state.core], None, DecoderState(state.core + 1))


def captions() -> list[list[int]]:
    """All that can be written: up to two words, without the unknown one."""
    words = (2, 3)
    return [[], *([word] for word in words), *(list(pair) for pair in product(words, words))]


def probability(policy: Policy, caption: list[int]) -> Tensor:
    allowed = policy.logits.index_fill(1, torch.tensor([UNKNOWN]), -torch.inf).log_softmax(-1)
    steps = [*caption, STOP][:LONGEST]
    return torch.stack([allowed[step, token] for step, token in enumerate(steps)]).sum().exp()


def drawn(caption: list[int]) -> Generated:
    tokens = [*caption, *[STOP] * (LONGEST - len(caption))]
    return Generated(torch.tensor([tokens]), torch.tensor([len(caption)]), torch.zeros(1))


@pytest.mark.parametrize(("baseline", "bleu"), [("greedy", 0.0), ("samples", 0.0), ("samples", 0.7)])
def test_the_mean_gradient_over_all_samples_is_that_of_the_expected_reward(
    baseline: str, bleu: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, words, options = Policy(), Names(), Search(max_extra=LONGEST)
    critic: Any = SelfCritic(
        [REFERENCES, ["blue"]], samples=1 if baseline == "greedy" else 2, baseline=baseline, bleu=bleu
    )
    plain = SelfCritic._draw

    def rewarded(caption: list[int]) -> float:
        return float(critic._rewards(drawn(caption), words, [REFERENCES]))

    total = sum(float(probability(policy, caption).detach()) for caption in captions())
    assert total == pytest.approx(1.0)  # the written-out policy is complete
    expected = sum(probability(policy, caption) * rewarded(caption) for caption in captions())
    (exact,) = torch.autograd.grad(expected, [policy.logits])  # pyright: ignore[reportArgumentType]

    mean = torch.zeros_like(policy.logits)
    for chosen in product(captions(), repeat=critic.samples):

        def draw(*arguments: Any, temperature: float, chosen: Any = chosen) -> Generated:
            if temperature == 0.0:
                return plain(critic, *arguments, temperature=0.0)
            each = [drawn(caption) for caption in chosen]
            return Generated(*(torch.cat(column) for column in zip(*each, strict=True)))

        monkeypatch.setattr(critic, "_draw", draw)
        outcome = critic.learn(policy, *policy.start(1), [REFERENCES], words, options)
        count = sum(min(len(caption) + 1, LONGEST) for caption in chosen)  # the loss is a mean over tokens
        (gradient,) = torch.autograd.grad(-outcome.loss * count / critic.samples, [policy.logits])
        chance = torch.stack([probability(policy, caption) for caption in chosen]).prod()
        mean += float(chance.detach()) * gradient

    assert exact.abs().max() > 0.01
    torch.testing.assert_close(mean, exact, rtol=0, atol=1e-5)


def test_bleu_is_paid_beside_cider_d() -> None:
    words: Any = Names()
    texts = [drawn(caption) for caption in captions()]
    plain, paid = (SelfCritic([REFERENCES, ["blue"]], bleu=bleu) for bleu in (0.0, 0.7))
    more = [
        float(paid._rewards(text, words, [REFERENCES]) - plain._rewards(text, words, [REFERENCES])) for text in texts
    ]

    assert more[captions().index([2, 3])] == pytest.approx(0.7)
    assert more[captions().index([2])] == pytest.approx(0.7)
    assert more[captions().index([])] == 0.0
    assert 0 < more[captions().index([3, 2])] < 0.7  # both words, in the wrong order


def test_impossible_critics_are_refused() -> None:
    with pytest.raises(ValueError, match="samples=1"):
        SelfCritic([], samples=1)
    with pytest.raises(ValueError, match="baseline='best': samples or greedy"):
        SelfCritic([], baseline="best")
    with pytest.raises(ValueError, match="bleu=-1"):
        SelfCritic([], bleu=-1)
