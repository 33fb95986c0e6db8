r"""Cells that need no more than pointwise maths around the two products: what most gated cells are.

    p_t = W x_t + b                   all steps in one product, one block of rows per gate
    q_t = U s_{t-1} + d               one product per step
    y_t, s_t = f(p_t, q_t, s_{t-1})   element by element

Whoever writes f as `PointwiseCell.pointwise` has a cell for every backend that takes such cells. A cell after Ravanelli
et al. 2018, "Light Gated Recurrent Units for Speech Recognition", eq. 5, without its batch normalization:

    class LightGRUCell(PointwiseCell[HiddenState]):
        gates = 2

        def pointwise(self, projected, recurrent, state):
            z = torch.sigmoid(projected[0] + recurrent[0])
            h = z * state.h + (1 - z) * torch.relu(projected[1] + recurrent[1])
            return h, HiddenState(h)

What multiplies again on the way, as a gate in front of a product does, is a `ChainedCell`.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from unrolled.cells.base import AffineCell, RecurrentNoise, S
from unrolled.state import HiddenState


class PointwiseCell(AffineCell[S]):
    """A cell whose step is one recurrent product and pointwise maths.

    A new one sets `gates`, sets `state_type` unless it carries h alone, and writes `pointwise`. Parameters of its own
    are (hidden,) or (blocks × hidden,) each, used in `pointwise` as `self.name`, and so are constants, which are
    buffers; a cell that has some creates them behind `super().__init__(...)`, with their first values.

    Attributes, of the class or set before `super().__init__(...)`:
        gates: blocks of `hidden_size` rows in weight_ih and bias_ih.
        recurrent_gates: the same of weight_hh and bias_hh; None for as many as gates.
        state_type: a named tuple of tensors (batch, hidden).

    Args:
        input_size: features of an input.
        hidden_size: features of each tensor of the state, and of the output.
        output_size: features of the output, and of what enters the recurrent product, where they are others; such a
            cell makes its own initial state, and is not compiled.
        recurrent_dropout: probability of a unit to be dropped for a whole unroll where it enters the recurrent product.
        weight_drop: probability of an element of weight_hh to be dropped for a whole unroll.

    Raises:
        ValueError: a size below one, a probability outside [0, 1), recurrent noise without a recurrent product.
    """

    gates: int
    recurrent_gates: int | None = None
    state_type: ClassVar[type[Any]] = HiddenState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        output_size: int | None = None,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        probe = cast(S, self.state_type(*(torch.empty(0) for _ in self.state_type._fields)))
        super().__init__(
            input_size,
            hidden_size,
            gates=self.gates,
            recurrent_gates=self.recurrent_gates,
            recurrent_blocks=len(self.recurrent_inputs(probe)),
            output_size=output_size,
            recurrent_dropout=recurrent_dropout,
            weight_drop=weight_drop,
        )

    @abstractmethod
    def pointwise(self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: S) -> tuple[Tensor, S]:
        """One step behind the products: the output (batch, hidden) and the next state.

        Operations on single elements, and sums, means and layer_norm over a row's units (dim=-1, keepdim=True): no
        products of matrices, no look at other rows or single other units, and no random numbers but those handed in.
        Every tensor is (batch, hidden), or several of them joined along the last axis.

        Args:
            projected: what each gate takes from the input, biases included; behind it what `step_masks` drew.
            recurrent: what each gate takes from the state, biases included; behind it the masks of `noise`.
            state: before the step.
        """

    def recurrent_inputs(self, state: S) -> tuple[Tensor, ...]:
        """The tensors of the state that enter the recurrent product, side by side; with none there is no product."""
        return (cast(HiddenState, state).h,)

    def step_masks(self, shape: tuple[int, ...], *, like: Tensor) -> tuple[Tensor, ...]:
        """Noise that is new at each step, (*shape, hidden) each; `project` draws it for all the steps that it gets.

        None by default. As with `noise`, there must be none in evaluation mode. What lasts for a whole unroll goes
        into `RecurrentNoise.masks` instead.
        """
        return ()

    def initial_state(self, batch: int, *, like: Tensor) -> S:
        """Zeros (batch, hidden) on the device and in the dtype of `like`."""
        return self.state_type(*(like.new_zeros(batch, self.hidden_size) for _ in self.state_type._fields))

    def project(self, inputs: Tensor) -> Tensor:
        """(..., input) -> (..., gates × hidden), with masks × hidden behind it where the steps have noise."""
        projected = super().project(inputs)
        masks = self.step_masks(tuple(inputs.shape[:-1]), like=projected)
        return torch.cat([projected, *masks], dim=-1) if masks else projected

    def products(self, weight_hh: Tensor) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """A step's products, each a weight and a bias or None: of `recurrent_inputs`, then those of a `ChainedCell`.

        Args:
            weight_hh: `recurrent_weight()`, with some of it dropped where the unroll's noise says so.
        """
        return ((weight_hh, self.bias_hh),)

    def recur(self, h: Tensor, noise: RecurrentNoise | None) -> Tensor:
        """(batch, blocks × hidden) -> (batch, gates × hidden): the first of the products."""
        seen, weight = self.recurrent_factors(h, noise)
        return nn.functional.linear(seen, *self.products(weight)[0])

    def step(self, projected: Tensor, state: S, noise: RecurrentNoise | None = None) -> tuple[Tensor, S]:
        """(batch, gates × hidden), with masks behind it, and a state -> the output (batch, hidden), the next state."""
        return self.pointwise(*self._blocks(projected, state, noise), state)

    def _blocks(
        self, projected: Tensor, state: S, noise: RecurrentNoise | None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What `pointwise` gets beside the state."""
        recurrent: tuple[Tensor, ...] = () if noise is None else noise.masks
        fed = self.recurrent_inputs(state)
        if self.has_recurrent_product:
            product = self.recur(fed[0] if len(fed) == 1 else torch.cat(fed, dim=-1), noise)
            recurrent = (*product.split(self.hidden_size, dim=-1), *recurrent)
        return projected.split(self.hidden_size, dim=-1), recurrent


# The number of a product in `products`, from 1 on, and the blocks (batch, hidden) that it takes -> those that it gives.
Product = Callable[..., tuple[Tensor, ...]]


class ChainedCell(PointwiseCell[S]):
    """A pointwise cell with further products within a step, of what it has computed by then.

    It gives their weights in `products`, each (blocks × hidden, blocks × hidden), and writes `chain` instead of
    `pointwise`.
    """

    @abstractmethod
    def chain(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: S, product: Product
    ) -> tuple[Tensor, S]:
        """`pointwise`, with `product(number, *blocks)` for each further product, each called once and in turn."""

    def pointwise(self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: S) -> tuple[Tensor, S]:
        """`chain` without noise."""
        return self.chain(projected, recurrent, state, self._product(self.recurrent_weight()))

    def step(self, projected: Tensor, state: S, noise: RecurrentNoise | None = None) -> tuple[Tensor, S]:
        """(batch, gates × hidden), with masks behind it, and a state -> the output (batch, hidden), the next state."""
        dropped = None if noise is None else noise.weight_hh
        product = self._product(self.recurrent_weight() if dropped is None else dropped)
        return self.chain(*self._blocks(projected, state, noise), state, product)

    def _product(self, weight_hh: Tensor) -> Product:
        products = self.products(weight_hh)

        def product(number: int, *blocks: Tensor) -> tuple[Tensor, ...]:
            joined = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-1)
            return nn.functional.linear(joined, *products[number]).split(self.hidden_size, dim=-1)

        return product
