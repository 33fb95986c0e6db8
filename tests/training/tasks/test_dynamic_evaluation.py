"""Dynamic evaluation: against the same written out by hand, and it never looks ahead."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from unrolled import AutoregressiveDecoder, GRUCell, Loss, Recurrent, cross_entropy
from unrolled.training.run.runner import run, score
from unrolled.training.tasks.dynamic_evaluation import DynamicEvaluation

VOCABULARY = 7


@pytest.fixture
def network() -> AutoregressiveDecoder:
    torch.manual_seed(0)
    return AutoregressiveDecoder.of_tokens(VOCABULARY, 4, partial(Recurrent, GRUCell, hidden_size=5)).double().eval()


@pytest.fixture
def text() -> Tensor:
    return torch.randint(0, VOCABULARY, (1, 23), generator=torch.Generator().manual_seed(1))


def of_segment(network: AutoregressiveDecoder, inputs: Tensor, targets: Tensor, loss_mask: Tensor, state: Any) -> Any:
    decoded = network(inputs, state)
    return cross_entropy(decoded.parameters, targets, loss_mask), decoded.state


def scores(network: AutoregressiveDecoder, text: Tensor, **options: Any) -> Loss:
    dynamic = DynamicEvaluation(**options)
    dynamic.begin(network)
    with torch.inference_mode():
        inputs, targets = text[:, :-1].clone(), text[:, 1:].clone()
        state, _ = network.start(1)
        return dynamic.score(inputs, targets, torch.ones_like(inputs, dtype=torch.bool), state, of_segment)[0]


def test_it_is_gradient_descent_behind_each_segment(network: AutoregressiveDecoder, text: Tensor) -> None:
    found = scores(network, text, rate=0.3, segment=5, decay=0.01, norm=0.5)

    trained = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer, total, (state, _) = torch.optim.SGD(network.parameters(), lr=0.3), 0.0, network.start(1)
    for begin in range(0, 22, 5):
        piece = text[:, begin : begin + 6]
        decoded = network(piece[:, :-1], state)
        loss = nn.functional.cross_entropy(decoded.parameters[0], piece[0, 1:], reduction="sum")
        total += loss.item()
        optimizer.zero_grad()
        (loss / (piece.shape[1] - 1)).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        with torch.no_grad():
            for parameter, before in zip(network.parameters(), trained, strict=True):
                parameter += 0.01 * (before - parameter)
        state = decoded.state._replace(core=tuple(type(s)(*(leaf.detach() for leaf in s)) for s in decoded.state.core))
    assert float(found.total) == pytest.approx(total, rel=1e-5)
    assert int(found.count) == 22


def test_a_symbol_is_predicted_before_anything_is_learnt_from_it(network: AutoregressiveDecoder, text: Tensor) -> None:
    whole = scores(network, text, rate=5.0, segment=6)
    head = scores(network, text[:, :7], rate=5.0, segment=6)
    still = scores(network, text[:, :7], rate=1e-12, segment=6)

    # The first segment is scored as by the network that doesn't learn; what follows is not.
    torch.testing.assert_close(head.total, still.total, rtol=0, atol=1e-9)
    assert abs(float(whole.total) - float(scores(network, text, rate=1e-12, segment=6).total)) > 1e-2


def test_the_network_itself_stays(network: AutoregressiveDecoder, text: Tensor) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}

    scores(network, text, rate=1.0, segment=3)

    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_run_scores_a_text_that_repeats_itself_better(folder: Path, configure: Callable[..., DictConfig]) -> None:
    numbers = run(configure("run", "trainer.max_steps=2", "task.dynamic={rate:0.5,segment:8}"))
    assert numbers["test/dynamic_loss"] < numbers["test/loss"] - 0.01

    checkpoint = f"checkpoint={folder}/run/checkpoints/last.ckpt"
    data = ["data=text", "data.files=rhyme.txt", "trainer=cpu", "data.random_windows=null", "data.window=16"]
    again = score(
        configure("again", checkpoint, *data, "task.dynamic={rate:0.5,segment:8}", name="evaluate", small=False)
    )
    assert again["test/dynamic_loss"] == pytest.approx(numbers["test/dynamic_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "dynamic.rate is 0.0"),
        ({"decay": 1.0}, "dynamic.decay is 1.0"),
        ("rate:0.1", "dynamic is 'rate:0.1', expected rate, segment, decay, norm by name"),
        ({"speed": 2}, "dynamic has no 'speed'; it takes rate, segment, decay, norm"),
    ],
)
def test_what_cannot_be_is_named(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicEvaluation.from_options(options)
