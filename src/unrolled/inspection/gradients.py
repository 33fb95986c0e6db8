"""How far a loss reaches back in time: gradients with respect to states and inputs."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from unrolled.inspection.recorder import CellRecord
from unrolled.shapes import expect


def state_gradients(record: CellRecord, loss: Tensor, name: str = "h") -> Tensor:
    """Compute ∂L/∂s_t, the gradient of a loss with respect to a recorded value, for each step.

    For the state h this is the product of the Jacobians between step t and the loss, applied to the loss's gradient:
    ∂L/∂h_t = Σ_k ∂L/∂o_k ∂o_k/∂h_k Π_{j=t+1..k} ∂h_j/∂h_{j-1} (Bengio, Simard & Frasconi 1994, "Learning Long-Term
    Dependencies with Gradient Descent is Difficult"; Hochreiter 1991). The graph is kept, for further calls.

    Args:
        record: a record made with graph=True.
        loss: one number, computed from the recorded pass.
        name: the recorded value, such as "h", "c", or a gate.

    Returns:
        (batch, time, units), with NaN in the padding, and 0 where the loss doesn't depend on the value.

    Raises:
        ValueError: a record without a graph, a loss that isn't one number, or that doesn't depend on the record at all;
            an unknown name.
    """
    steps = record.steps(name)
    known = [step for step in steps if step is not None]
    gradients = iter(_gradients(loss, known, f"{name!r} of {record.cell}"))
    return record.arrange([None if step is None else next(gradients) for step in steps])


def final_state(record: CellRecord, name: str = "h") -> Tensor:
    """Return a recorded value after the last valid step of each sequence, (batch, …), with its graph.

    A cell that runs backwards ends at the first step. Sequences without a step have zeros.

    Args:
        record: a record made with graph=True.
        name: the recorded value, such as "h".

    Raises:
        ValueError: an unknown name.
    """
    values = record.arrange(record.steps(name))
    lengths = record.mask.sum(1)
    steps = torch.zeros_like(lengths) if record.reverse else (lengths - 1).clamp(min=0)
    last = values[torch.arange(len(values), device=values.device), steps]
    return last.masked_fill((lengths == 0).view(-1, *[1] * (last.dim() - 1)), 0.0)


def input_gradients(record: CellRecord, loss: Tensor) -> Tensor:
    """Compute ∂L/∂x_t, the gradient of a loss with respect to a cell's inputs, for each step.

    Args:
        record: a record made with graph=True.
        loss: one number, computed from the recorded pass.

    Returns:
        (batch, time, input), with NaN in the padding.

    Raises:
        ValueError: see `state_gradients`; a cell that was stepped, so that its inputs weren't recorded.
    """
    if record.inputs is None:
        raise ValueError(f"{record.cell} was run step by step, so its inputs weren't recorded")
    (gradient,) = _gradients(loss, [record.inputs], f"the inputs of {record.cell}")
    return gradient.masked_fill(~record.mask.unsqueeze(-1), torch.nan)


def saliency(output: Tensor, inputs: Tensor, *, method: str = "gradient_x_input") -> Tensor:
    """Compute how much each step of an input contributes to an output, (batch, time).

    "gradient_x_input" is Σ_i x_ti ∂y/∂x_ti, the first-order change of y if the step's vector were zero, with its sign
    (Denil, Demiraj & de Freitas 2014, "Extraction of Salient Sentences from Labelled Documents"). "norm" is ‖∂y/∂x_t‖,
    its greatest change under a small change of the vector (Simonyan, Vedaldi & Zisserman 2014, "Deep Inside
    Convolutional Networks"). The graph is kept, for further calls.

    Args:
        output: what to explain, such as the logit of a class: one number, or one for each row, (batch,).
        inputs: (batch, time, features), such as `CellRecord.inputs` of the first layer, from which `output` was
            computed.
        method: "gradient_x_input" or "norm".

    Raises:
        ShapeError: inputs of another shape.
        ValueError: an unknown method, an output that doesn't depend on the inputs, inputs that require no gradient.
    """
    if method not in ("gradient_x_input", "norm"):
        raise ValueError(f"method is {method!r}, expected 'gradient_x_input' or 'norm'")
    expect(inputs, "batch time features", name="inputs")
    (gradient,) = _gradients(output.sum(), [inputs], "the inputs")
    return gradient.norm(dim=-1) if method == "norm" else (gradient * inputs.detach()).sum(-1)


def by_lag(values: Tensor, steps: Tensor, *, reverse: bool = False) -> Tensor:
    """Align each row of values at a step, and average over the rows.

    Args:
        values: (batch, time), such as norms of gradients; NaN for no value.
        steps: (batch,) the step at which each row's loss is, where the lag is 0.
        reverse: whether lags count to later steps, for a cell that runs backwards.

    Returns:
        (time,): the mean over all rows that have a value `lag` steps before (with `reverse`, after) their step; NaN for
        lags that no row has.

    Raises:
        ShapeError: values or steps of another shape.
    """
    expect(values, "batch time", name="values")
    batch, time = values.shape
    expect(steps, "batch", batch=batch, name="steps")
    lags = torch.arange(time, device=values.device)
    places = steps.to(values.device).unsqueeze(1) + (lags if reverse else -lags)
    inside = (places >= 0) & (places < time)
    found = values.gather(1, places.clamp(0, max(time - 1, 0)))
    return found.masked_fill(~inside, torch.nan).nanmean(0)


def _gradients(loss: Tensor, tensors: Sequence[Tensor], what: str) -> list[Tensor]:
    if loss.numel() != 1:
        raise ValueError(f"the loss has the shape {tuple(loss.shape)}, expected one number; use loss.sum()")
    if not tensors or not all(tensor.requires_grad for tensor in tensors):
        raise ValueError(f"{what} have no graph; record with graph=True, and inputs that require gradients")
    found = torch.autograd.grad(loss.sum(), list(tensors), retain_graph=True, allow_unused=True)
    found = cast("Sequence[Tensor | None]", found)
    if all(gradient is None for gradient in found):
        raise ValueError(f"the loss doesn't depend on {what}; compute it from the recorded pass")
    pairs = zip(found, tensors, strict=True)
    return [torch.zeros_like(tensor) if gradient is None else gradient for gradient, tensor in pairs]
