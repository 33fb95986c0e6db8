"""A recurrent network and a head, in plain torch: each head learns a toy to its end."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    CategoricalHead,
    CTCHead,
    GRUCell,
    Head,
    LabelsHead,
    MixtureHead,
    NumbersHead,
    QuantileHead,
    Recurrent,
)

HIDDEN = 24


def fitted(head: Head, inputs: Tensor, targets: Tensor, steps: int, **masks: Any) -> tuple[float, Tensor]:
    """The mean loss after some steps, and the parameters of the last."""
    core = Recurrent(GRUCell, inputs.shape[-1], HIDDEN, backend="loop")
    optimizer = torch.optim.Adam(nn.ModuleList([core, head]).parameters(), lr=0.04)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        parameters = head(core(inputs)[0])
        loss = head.loss(parameters, targets, **masks)
        loss.mean.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        parameters = head(core(inputs)[0])
        return float(head.loss(parameters, targets, **masks).mean), parameters


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def bits(generator: torch.Generator) -> Tensor:
    return torch.randint(2, (8, 6, 1), generator=generator).float()


def running(bits: Tensor) -> Tensor:
    """How many ones there were so far: 0 to 6."""
    return bits.cumsum(1)


def test_categorical(bits: Tensor) -> None:
    head, targets = CategoricalHead(HIDDEN, 3), (running(bits)[..., 0] % 3).long()

    loss, parameters = fitted(head, bits, targets, 150)

    assert loss < 0.05
    assert torch.equal(head.predict(parameters), targets)


def test_labels(bits: Tensor) -> None:
    head, count = LabelsHead(HIDDEN, 2), running(bits)
    targets = torch.cat([count % 2, (count > 3).float()], -1)

    loss, parameters = fitted(head, bits, targets, 200)

    assert loss < 0.05
    assert torch.equal(head.predict(parameters), targets)


@pytest.mark.parametrize("bounded", [False, True])
def test_numbers(bits: Tensor, bounded: bool) -> None:
    head, targets = NumbersHead(HIDDEN, 1, bounded=bounded), running(bits) / 8

    _, parameters = fitted(head, bits, targets, 150)

    assert (head.predict(parameters) - targets).abs().max() < 0.1


def test_quantiles(generator: torch.Generator) -> None:
    # Alike inputs with unlike targets: what is learned is how they are spread.
    targets = torch.randn(400, 1, 1, generator=generator) + 2
    head = QuantileHead(HIDDEN, 1)

    _, parameters = fitted(head, torch.ones(400, 1, 1), targets, 200)

    for place, q in enumerate(head.quantiles):
        below = (targets <= head.values(parameters)[..., place]).double().mean().item()
        assert below == pytest.approx(q, abs=0.02)


def test_strokes(bits: Tensor) -> None:
    head, angle = MixtureHead(HIDDEN, 2), running(bits) * 0.4
    targets = torch.cat([angle.sin(), angle.cos(), bits], -1)

    loss, parameters = fitted(head, bits, targets, 200)

    assert loss < -2  # nats of a density: standard deviations of 0.09 without correlation would give it
    found = head.predict(parameters)
    assert (found[..., :2] - targets[..., :2]).abs().mean() < 0.1
    assert torch.equal(found[..., 2], targets[..., 2])


def test_a_mixture_keeps_two_answers_apart(generator: torch.Generator) -> None:
    targets = torch.randint(2, (400, 1, 1), generator=generator) * 4.0 - 2
    targets = targets + 0.1 * torch.randn(targets.shape, generator=generator)
    head = MixtureHead(HIDDEN, 2, num_coordinates=1, end_of_stroke=False)

    _, parameters = fitted(head, torch.ones(400, 1, 1), targets, 200)

    drawn = head.sample(parameters, generator)
    assert ((drawn.abs() - 2).abs() < 0.5).double().mean() > 0.99
    assert 0.4 < (drawn > 0).double().mean() < 0.6


def test_ctc(generator: torch.Generator) -> None:
    targets = torch.randint(1, 4, (6, 3), generator=generator)
    lengths = torch.tensor([3, 2, 3, 1, 3, 2])
    labels = torch.arange(3) < lengths.unsqueeze(1)
    spoken = nn.functional.one_hot(targets.masked_fill(~labels, 0), 4).float()
    inputs = torch.stack([torch.zeros_like(spoken), spoken, torch.zeros_like(spoken)], 2).flatten(1, 2)
    head = CTCHead(HIDDEN, 4)

    loss, parameters = fitted(head, inputs, targets, 120, target_mask=labels)

    assert loss < 0.1
    assert torch.equal(head.predict(parameters)[:, :3], targets.masked_fill(~labels, -1))
