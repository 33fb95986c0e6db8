"""What all heads keep: masks hide everything, sums add up, draws follow the parameters, axes are checked."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import unrolled
from unrolled import Head, LabelsHead, NumbersHead, ShapeError, build

LEADING = [(), (4,), (2, 5), (2, 3, 2)]


def parameters_of(head: Head, *shape: int, generator: torch.Generator, **options: Any) -> Tensor:
    return torch.randn(*shape, head.output_size, generator=generator, **options)


@pytest.mark.parametrize("leading", LEADING, ids=str)
def test_the_loss_is_the_sum_of_the_losses_and_counts_predictions(
    case: Any, leading: tuple[int, ...], generator: torch.Generator
) -> None:
    head = case.make(4)
    parameters = head(torch.randn(*leading, 4, generator=generator))
    targets = case.targets(*leading, generator=generator)

    losses, loss = head.losses(parameters, targets), head.loss(parameters, targets)

    assert parameters.shape == (*leading, head.output_size)
    assert losses.shape == leading
    torch.testing.assert_close(loss.total, losses.sum(), rtol=1e-6, atol=1e-6)
    assert loss.count == losses.numel()
    assert loss.count.dtype == torch.int64


@pytest.mark.parametrize("leading", LEADING, ids=str)
def test_what_is_masked_may_be_nan_and_reaches_nothing(
    case: Any, leading: tuple[int, ...], generator: torch.Generator
) -> None:
    head = case.make(4).double()
    mask = torch.rand(leading, generator=generator) < 0.6
    parameters = parameters_of(head, *leading, generator=generator, dtype=torch.float64)
    targets = case.targets(*leading, generator=generator)
    hidden = ~mask.unsqueeze(-1)
    poisoned = parameters.masked_fill(hidden, torch.nan).requires_grad_()
    spoilt = targets.masked_fill(hidden if targets.dim() > mask.dim() else ~mask, -7)
    if spoilt.is_floating_point():
        spoilt = spoilt.masked_fill(hidden, torch.nan)

    loss = head.loss(poisoned, spoilt, mask)
    loss.total.backward()

    expected = head.losses(parameters[mask], targets[mask]).sum()
    torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=1e-12)
    assert loss.count == mask.sum()
    assert poisoned.grad is not None
    assert poisoned.grad.isfinite().all()
    assert not poisoned.grad[~mask].any()
    assert mask.sum() == 0 or poisoned.grad[mask].any()


def test_single_entries_may_be_missing(entry_case: Any, generator: torch.Generator) -> None:
    head = entry_case.make(4).double()
    targets = entry_case.targets(3, 4, generator=generator).double()
    mask = torch.rand(targets.shape, generator=generator) < 0.5
    mask[0, 0] = False
    parameters = parameters_of(head, 3, 4, generator=generator, dtype=torch.float64)
    own = mask.repeat_interleave(head.output_size // head.target_size, -1)
    poisoned = parameters.masked_fill(~own, torch.nan).requires_grad_()

    loss = head.loss(poisoned, targets.masked_fill(~mask, torch.nan), mask)
    loss.total.backward()

    expected = head.entry_losses(parameters, targets)[mask].sum()
    torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=1e-12)
    assert loss.count == mask.any(-1).sum() < mask.sum()
    assert poisoned.grad is not None
    assert poisoned.grad.isfinite().all()
    assert not poisoned.grad[~own].any()
    whole = mask.any(-1)
    by_step = head.loss(parameters, targets, whole)
    by_entry = head.loss(parameters, targets, whole.unsqueeze(-1).expand_as(targets))
    torch.testing.assert_close(by_step.total, by_entry.total, rtol=0, atol=0)
    assert by_step.count == by_entry.count


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), steps=st.integers(0, 8))
def test_parts_sum_to_the_whole_in_any_order(case: Any, data: st.DataObject, steps: int) -> None:
    head = case.make(4).double()
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    parameters = parameters_of(head, 2, steps, generator=generator, dtype=torch.float64)
    targets = case.targets(2, steps, generator=generator)
    targets = targets.double() if targets.is_floating_point() else targets
    mask = torch.rand(2, steps, generator=generator) < data.draw(st.floats(0, 1))
    order = torch.randperm(steps, generator=generator)

    whole = head.loss(parameters, targets)
    parts = head.loss(parameters, targets, mask).merge(head.loss(parameters, targets, ~mask))
    moved = head.loss(parameters[:, order], targets[:, order])

    for other in (parts, moved):
        torch.testing.assert_close(other.total, whole.total, rtol=1e-12, atol=1e-12)
        assert other.count == whole.count
    losses = head.losses(parameters, targets)
    torch.testing.assert_close(head.losses(parameters[:, order], targets[:, order]), losses[:, order], rtol=0, atol=0)


def test_gradients_are_those_of_differences(case: Any, generator: torch.Generator) -> None:
    head = case.make(4).double()
    parameters = parameters_of(head, 3, generator=generator, dtype=torch.float64).requires_grad_()
    targets = case.targets(3, generator=generator)
    targets = targets.double() if targets.is_floating_point() else targets
    mask = torch.tensor([True, False, True])

    assert torch.autograd.gradcheck(lambda given: head.loss(given, targets, mask).total, parameters)


def test_at_temperature_zero_a_draw_is_the_prediction(case: Any, generator: torch.Generator) -> None:
    head = case.make(4)
    parameters = 2 * parameters_of(head, 50, generator=generator)
    expected = head.predict(parameters)

    for temperature in (0.0, 1e-300, 1e-7):
        drawn = head.sample(head.sharpen(parameters, temperature), generator)
        torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-5)  # a quantile moves by temperature × its distance
    assert expected.shape == case.targets(50, generator=generator).shape
    torch.testing.assert_close(head.sharpen(parameters, 1.0), parameters, rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [-1.0, float("inf"), float("nan")])
def test_a_temperature_below_zero_or_without_end_is_refused(case: Any, temperature: float) -> None:
    head = case.make(4)

    with pytest.raises(ValueError, match=r"temperature=.*: expected 0 \(deterministic\) or more"):
        head.sharpen(torch.zeros(head.output_size), temperature)


@pytest.mark.parametrize("leading", [*LEADING, (0,), (2, 0)], ids=str)
def test_draws_repeat_with_their_generator(case: Any, leading: tuple[int, ...], generator: torch.Generator) -> None:
    head = case.make(4)
    parameters = parameters_of(head, *leading, generator=generator).requires_grad_()

    first, second = (head.sample(parameters, torch.Generator().manual_seed(3)) for _ in range(2))

    assert torch.equal(first, second)
    assert first.shape == case.targets(*leading, generator=generator).shape
    assert not first.requires_grad
    assert head.loss(parameters, first if head.target_size is None else first.clamp(0, 1)).total.isfinite()


def test_nothing_is_read_on_the_host_and_meta_tensors_do(case: Any, generator: torch.Generator) -> None:
    # A meta tensor has no values: reading one on the host, as a device would have to wait for, is an error.
    with torch.device("meta"):
        head = case.make(4)
    features = torch.zeros(2, 5, 4, device="meta")
    targets = case.targets(2, 5, generator=generator).to("meta")
    for mask in (None, torch.ones(2, 5, dtype=torch.bool, device="meta")):
        loss = head.loss(head(features), targets, mask)
        loss.total.backward()
        assert loss.total.is_meta
        assert loss.count.is_meta
    assert head.predict(head(features)).shape == targets.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(case: Any, dtype: torch.dtype, generator: torch.Generator) -> None:
    head = case.make(4)
    parameters = parameters_of(head, 300, generator=generator).to(dtype)
    targets = case.targets(300, generator=generator)

    loss = head.loss(parameters, targets)

    assert loss.total.dtype == torch.float32
    exact = head.double().loss(parameters.double(), targets)
    torch.testing.assert_close(loss.total.double(), exact.total, rtol=2e-6, atol=0)
    half = case.make(4).to(dtype)
    half.loss(half(torch.randn(7, 4, generator=generator).to(dtype)), targets[:7]).total.backward()
    assert half.linear.weight.grad is not None
    assert half.linear.weight.grad.dtype == dtype
    assert head.sample(parameters, generator).shape == targets.shape


def test_under_autocast_losses_are_single(case: Any, generator: torch.Generator) -> None:
    head = case.make(4)
    features, targets = torch.randn(6, 4, generator=generator), case.targets(6, generator=generator)

    with torch.autocast("cpu", torch.bfloat16):
        parameters = head(features)
        loss = head.loss(parameters, targets)

    assert parameters.dtype == torch.bfloat16
    assert loss.total.dtype == torch.float32
    torch.testing.assert_close(loss.total, head.loss(parameters.float(), targets).total, rtol=1e-6, atol=1e-6)


def test_a_compiled_loss_is_one_graph_with_the_same_numbers(case: Any, generator: torch.Generator) -> None:
    head = case.make(4)
    features = torch.randn(3, 4, generator=generator)
    targets, mask = case.targets(3, generator=generator), torch.tensor([True, False, True])

    def total(features: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        return head.loss(head(features), targets, mask).total

    torch.compiler.reset()  # the heads share code, which is compiled a few times at most
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(total(features, targets, mask), tuple(head.parameters()))
    found = torch.autograd.grad(compiled(features, targets, mask), tuple(head.parameters()))

    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_losses_may_be_vmapped(case: Any, generator: torch.Generator) -> None:
    head = case.make(4)
    parameters, targets = parameters_of(head, 6, generator=generator), case.targets(6, generator=generator)

    gradients = torch.func.vmap(torch.func.grad(head.losses))(parameters, targets)

    parameters.requires_grad_()
    head.loss(parameters, targets).total.backward()
    torch.testing.assert_close(gradients, parameters.grad, rtol=1e-5, atol=1e-6)


def test_axes_that_do_not_belong_together_are_refused(case: Any, generator: torch.Generator) -> None:
    head = case.make(4)
    parameters, targets = parameters_of(head, 2, 5, generator=generator), case.targets(2, 5, generator=generator)

    with pytest.raises(ShapeError, match=r"features has the shape \(2, 3\), expected \(..., input=4\)"):
        head(torch.zeros(2, 3))
    for call in (head.loss, head.losses):
        with pytest.raises(ShapeError, match="parameters has the shape"):
            call(parameters[..., 1:], targets)
        with pytest.raises(ShapeError, match="targets has the shape"):
            call(parameters, targets[:, 1:])
        with pytest.raises(ShapeError, match="targets must be a tensor"):
            call(parameters, targets.tolist())
    with pytest.raises(ShapeError, match=r"mask has the shape \(5, 2\)"):
        head.loss(parameters, targets, torch.ones(5, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask is torch.int64, expected torch.bool"):
        head.loss(parameters, targets, torch.ones(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="input_size is 0, expected 1 or more"):
        case.make(0)


@pytest.mark.parametrize("make", [LabelsHead, partial(NumbersHead, bounded=True)])
def test_targets_outside_zero_to_one_are_refused(make: Any) -> None:
    head = make(4, 2)

    with pytest.raises(ValueError, match=r"targets go from 0 to 1.5, expected 0 to 1; mask missing targets"):
        head.loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.5]]))
    with pytest.raises(ValueError, match="targets go from nan to nan"):
        head.loss(torch.zeros(1, 2), torch.tensor([[0.0, torch.nan]]))


def test_a_head_of_your_own_needs_two_methods() -> None:
    class Laplace(Head):
        """Numbers by their absolute error."""

        target_size = 1

        def losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
            return (parameters - targets).abs().squeeze(-1)

        def predict(self, parameters: Tensor) -> Tensor:
            return parameters

    head = Laplace(4, 1)

    assert head.loss(torch.zeros(3, 1), torch.tensor([[1.0], [2.0], [torch.nan]]), torch.arange(3) < 2).total == 3
    for call in (head.sample, head.distribution, partial(head.sharpen, temperature=1.0)):
        with pytest.raises(NotImplementedError, match="Laplace"):
            call(torch.zeros(3, 1))


@pytest.mark.parametrize("name", [name for name in unrolled.__all__ if name.endswith("Head") and name != "Head"])
def test_a_description_builds_a_partial_that_its_user_completes(name: str) -> None:
    sizes = {"LabelsHead": "num_labels"}
    sizes |= dict.fromkeys(("QuantileHead", "NumbersHead", "NormalHead", "StudentTHead"), "num_outputs")
    size = sizes.get(name, "num_components" if name == "MixtureHead" else "num_classes")

    head = build({"_target_": f"unrolled.{name}", "_partial_": True, size: 3}, trusted=("unrolled.",))(input_size=6)

    assert isinstance(head, Head)
    assert head(torch.zeros(2, 6)).shape == (2, head.output_size)
    assert not [key for key in head.state_dict() if not key.startswith("linear.")]
