r"""Cells whose step consists of matrix products and elementwise operations, as in most gated cells.

    p_t = W x_t + b                   all steps in one product, one block of rows per gate
    q_t = U s_{t-1} + d               one product per step
    y_t, s_t = f(p_t, q_t, s_{t-1})   element by element

A subclass implements f as `PointwiseCell.pointwise`, and runs on every backend that supports such cells. For example,
the cell of Ravanelli et al. 2018, "Light Gated Recurrent Units for Speech Recognition", eq. 5, without its batch
normalization:

    class LightGRUCell(PointwiseCell[HiddenState]):
        gates = 2

        def pointwise(self, projected, recurrent, state):
            z = torch.sigmoid(projected[0] + recurrent[0])
            h = z * state.h + (1 - z) * torch.relu(projected[1] + recurrent[1])
            return h, HiddenState(h)

A cell with a further matrix product within the step, such as one of a gated state, is a `ChainedCell`.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from unrolled.cells.base import AffineCell, RecurrentNoise, S
from unrolled.state import HiddenState


class PointwiseCell(AffineCell[S]):
    """A cell whose step is one recurrent product followed by elementwise operations.

    A subclass sets `gates`, sets `state_type` unless its state is h alone, and implements `pointwise`. It may have
    further parameters, and constants as buffers, of shape (hidden,) or (blocks × hidden,), which `pointwise` uses as
    `self.name`. It creates them, with their initial values, after `super().__init__(...)`.

    Attributes, of the class or set before `super().__init__(...)`:
        gates: number of blocks of `hidden_size` rows in weight_ih and bias_ih.
        recurrent_gates: number of such blocks in weight_hh and bias_hh; None for `gates`.
        state_type: a named tuple of tensors (batch, hidden).

    Args:
        input_size: number of input features.
        hidden_size: number of features of each tensor of the state and of the output.
        output_size: number of features of the output and of the tensors in the recurrent product; `hidden_size` by
            default. A cell with another size overrides `initial_state`, and the compiled backend doesn't support it.
        recurrent_dropout: probability that a unit is dropped in the recurrent product for a whole unroll.
        weight_drop: probability that an element of weight_hh is dropped for a whole unroll.

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
        """Compute the output (batch, hidden) and the next state from the results of the products.

        Allowed are elementwise operations, and sums, means and layer_norm over the units of a row (dim=-1,
        keepdim=True). Matrix products, access to other rows or to single other units, and random numbers are not
        allowed. Every tensor is (batch, hidden), or a concatenation of such tensors along the last axis.

        Args:
            projected: the input's contribution to each gate, with biases, followed by the masks of `step_masks`.
            recurrent: the state's contribution to each gate, with biases, followed by the masks of `noise`.
            state: the state before the step.
        """

    def recurrent_inputs(self, state: S) -> tuple[Tensor, ...]:
        """Return the tensors of the state that enter the recurrent product; an empty tuple for no product."""
        return (cast(HiddenState, state).h,)

    def step_masks(self, shape: tuple[int, ...], *, like: Tensor) -> tuple[Tensor, ...]:
        """Draw the masks that change at each step, (*shape, hidden) each. `project` calls it once for all its steps.

        The default is no masks. As with `noise`, there must be none in evaluation mode. Masks that stay the same for a
        whole unroll belong in `RecurrentNoise.masks`.
        """
        return ()

    def initial_state(self, batch: int, *, like: Tensor) -> S:
        """Return zeros (batch, hidden) with the device and the dtype of `like`."""
        return self.state_type(*(like.new_zeros(batch, self.hidden_size) for _ in self.state_type._fields))

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the input's contribution to the gates, (..., gates × hidden), followed by the masks of the steps."""
        projected = super().project(inputs)
        masks = self.step_masks(tuple(inputs.shape[:-1]), like=projected)
        return torch.cat([projected, *masks], dim=-1) if masks else projected

    def products(self, weight_hh: Tensor) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """Return the products of a step, each a weight and a bias or None: first that of `recurrent_inputs`.

        Those of a `ChainedCell` follow.

        Args:
            weight_hh: `recurrent_weight()` after weight drop.
        """
        return ((weight_hh, self.bias_hh),)

    def recur(self, h: Tensor, noise: RecurrentNoise | None) -> Tensor:
        """Compute the first of the products: (batch, blocks × hidden) -> (batch, gates × hidden)."""
        masked, weight = self.recurrent_factors(h, noise)
        return self.tap("recurrent", nn.functional.linear(masked, *self.products(weight)[0]))

    def step(self, projected: Tensor, state: S, noise: RecurrentNoise | None = None) -> tuple[Tensor, S]:
        """Compute the output (batch, hidden) and the next state from (batch, gates × hidden), followed by masks."""
        return self.pointwise(*self._blocks(projected, state, noise), state)

    def _blocks(
        self, projected: Tensor, state: S, noise: RecurrentNoise | None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the arguments `projected` and `recurrent` of `pointwise`."""
        recurrent: tuple[Tensor, ...] = () if noise is None else noise.masks
        inputs = self.recurrent_inputs(state)
        if self.has_recurrent_product:
            product = self.recur(inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=-1), noise)
            recurrent = (*product.split(self.hidden_size, dim=-1), *recurrent)
        return projected.split(self.hidden_size, dim=-1), recurrent


# (index of a product in `products`, from 1, and its input blocks (batch, hidden)) -> its output blocks.
Product = Callable[..., tuple[Tensor, ...]]


class ChainedCell(PointwiseCell[S]):
    """A pointwise cell with further matrix products of intermediate results within a step.

    A subclass returns their weights from `products`, each (blocks × hidden, blocks × hidden), and implements `chain`
    instead of `pointwise`.
    """

    @abstractmethod
    def chain(
        self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: S, product: Product
    ) -> tuple[Tensor, S]:
        """Compute a step as `pointwise`, with one call `product(number, *blocks)` per further product, in order."""

    def pointwise(self, projected: tuple[Tensor, ...], recurrent: tuple[Tensor, ...], state: S) -> tuple[Tensor, S]:
        """Compute `chain` without noise."""
        return self.chain(projected, recurrent, state, self._product(self.recurrent_weight()))

    def step(self, projected: Tensor, state: S, noise: RecurrentNoise | None = None) -> tuple[Tensor, S]:
        """Compute the output (batch, hidden) and the next state from (batch, gates × hidden), followed by masks."""
        dropped = None if noise is None else noise.weight_hh
        product = self._product(self.recurrent_weight() if dropped is None else dropped)
        return self.chain(*self._blocks(projected, state, noise), state, product)

    def _product(self, weight_hh: Tensor) -> Product:
        products = self.products(weight_hh)

        def product(number: int, *blocks: Tensor) -> tuple[Tensor, ...]:
            joined = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-1)
            result = self.tap(f"product_{number}", nn.functional.linear(joined, *products[number]))
            return result.split(self.hidden_size, dim=-1)

        return product
