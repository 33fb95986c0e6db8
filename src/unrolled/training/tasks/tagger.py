"""The base class of tasks whose network predicts at each step of a sequence, or at some of its steps."""

from typing import Protocol

from torch import Tensor

from unrolled.losses import Loss
from unrolled.models.tagger import SequenceTagger
from unrolled.sequences import mask_from_lengths
from unrolled.training.tasks.base import SequenceTask


class TaggerBatch(Protocol):
    """What the batches of these tasks have in common."""

    @property
    def source(self) -> Tensor:
        """(batch, time, …), what the network reads."""
        ...

    @property
    def lengths(self) -> Tensor:
        """(batch,) number of steps."""
        ...

    @property
    def positions(self) -> Tensor | None:
        """(batch, predictions) the steps to predict at; None for all of them."""
        ...

    @property
    def predictions(self) -> Tensor:
        """(batch,) number of predictions."""
        ...

    @property
    def targets(self) -> Tensor:
        """(batch, predictions, …), anything in the padding."""
        ...

    @property
    def scale(self) -> float:
        """Turns the summed loss into the batch's share of the step's mean."""
        ...


class TaggerTask(SequenceTask):
    """Trains a `SequenceTagger`; see `SequenceTask` for the arguments. A subclass defines `score`."""

    network: SequenceTagger  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, never another

    def predict(self, batch: TaggerBatch) -> tuple[Tensor, Tensor]:
        """Returns the parameters of the predictions (batch, predictions, …) and the mask of those that are valid."""
        mask = mask_from_lengths(batch.predictions, batch.targets.shape[1])
        return self.network(batch.source, batch.lengths, batch.positions), mask

    def loss(self, batch: TaggerBatch, loader: str) -> Loss:
        """Returns the summed loss of the predictions."""
        parameters, mask = self.predict(batch)
        return self.network.head.loss(parameters, batch.targets, mask)

    def training_step(self, batch: TaggerBatch, batch_idx: int) -> Tensor:
        """Returns the batch's share of the optimizer step's mean loss."""
        loss = self.loss(batch, "train")
        self.log_step("train/loss", loss.mean.detach(), prog_bar=True, batch_size=len(batch.lengths))
        return loss.total * batch.scale + self.penalty()
