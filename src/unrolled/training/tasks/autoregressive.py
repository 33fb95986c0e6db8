"""The base class of tasks whose network predicts the next token or frame of a sequence, window by window."""

from typing import Any

import torch
from torch import Tensor

from unrolled.losses import Loss
from unrolled.models.decoders.base import Decoder, DecoderState
from unrolled.training.data.streams import Window
from unrolled.training.tasks.base import SequenceTask


class AutoregressiveTask(SequenceTask):
    """Trains a decoder without a source to predict the next step; see `SequenceTask` for the arguments.

    A batch is the next window of parallel streams. The detached state at its end is the initial state of the next
    window: truncated backpropagation through time (Williams & Peng 1990). Or it has whole sequences (`carry` of 0).
    """

    network: Decoder  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, and never assigned another

    def predict(self, batch: Window, loader: str) -> Tensor:
        """Returns the parameters of a window's predictions, and carries the state to the loader's next window."""
        initial, memory = self.network.start(len(batch.inputs))
        if batch.carry == 0:
            return self.network(batch.inputs, initial, memory, batch.lengths, resets=batch.resets).parameters
        state: DecoderState = self.state_store.take(loader, initial, batch.reset)
        if batch.carry < batch.inputs.shape[1]:
            return self._two_parts(batch, state, memory, loader)
        decoded = self.network(batch.inputs, state, memory, batch.lengths, resets=batch.resets)
        self.state_store.put(loader, decoded.state)
        return decoded.parameters

    def loss(self, batch: Window, loader: str) -> Loss:
        """Returns the summed loss (nats) of a window, and carries the state to the loader's next window."""
        return self.network.head.loss(self.predict(batch, loader), batch.targets, batch.loss_mask)

    def _two_parts(self, batch: Window, state: DecoderState, memory: Any, loader: str) -> Tensor:
        """Computes a window in two parts, since the next window begins with the state after `carry` steps."""
        cut = batch.carry
        first, second = (None, None) if batch.resets is None else (batch.resets[:, :cut], batch.resets[:, cut:])
        begin, rest = batch.lengths.clamp(max=cut), (batch.lengths - cut).clamp(min=0)
        head = self.network(batch.inputs[:, :cut], state, memory, begin, resets=first)
        self.state_store.put(loader, head.state)
        tail = self.network(batch.inputs[:, cut:], head.state, memory, rest, resets=second)
        return torch.cat([head.parameters, tail.parameters], dim=1)

    def training_step(self, batch: Window, batch_idx: int) -> Tensor:
        """Returns the window's share of the optimizer step's mean loss."""
        loss = self.loss(batch, "train")
        self.log_training(loss.mean.detach())
        return loss.total * batch.scale + self.penalty()

    def log_training(self, mean: Tensor) -> None:
        """Logs the mean loss (nats) of a training window."""
        self.log_step("train/loss", mean, prog_bar=True)
