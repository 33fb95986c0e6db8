"""Connectionist temporal classification: transcripts without an alignment to the frames."""

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

from unrolled.heads.base import Head, summed
from unrolled.heads.checks import check_mask
from unrolled.heads.temperature import sharpened, widened
from unrolled.losses import Loss
from unrolled.sequences import lengths_from_mask
from unrolled.shapes import expect

BLANK = 0


class CTCHead(Head):
    """Predicts a label or a blank at each frame, and learns from transcripts alone (Graves et al. 2006,
    "Connectionist Temporal Classification").

    Parameters are logits (batch, time, num_classes). Class 0 is the blank; labels are 1 to num_classes − 1. A
    prediction is a whole sequence: its probability is the sum over all alignments of the transcript to the frames.
    `sample` and `distribution` are not supported.

    Args:
        input_size: number of features of a frame.
        num_classes: number of labels plus one for the blank.
        bias: whether logits have a bias.

    Raises:
        ValueError: an input size below one, or no label besides the blank.
    """

    def __init__(self, input_size: int, num_classes: int, *, bias: bool = True) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}, expected 2 or more: the blank, class 0, and labels")
        super().__init__(input_size, num_classes, bias=bias)
        self.num_classes = num_classes

    def losses(
        self, parameters: Tensor, targets: Tensor, mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> Tensor:
        """Compute the negative log probability of each transcript, (batch,) in nats; 0 for an empty one without frames.

        Args:
            parameters: (batch, time, classes).
            targets: (batch, labels) int64.
            mask: (batch, time) bool, true for the frames of each sequence, its first ones; all of them by default.
            target_mask: (batch, labels) bool, true for the labels of each transcript; all of them by default.

        torch's algorithm needs lengths on the host, so unlike other heads this one synchronizes with a GPU. torch has
        no such loss on the meta device.

        Raises:
            ShapeError: tensors whose shapes don't match.
            ValueError: an unknown label; a transcript too long for its frames; a mask with a gap.
        """
        expect(parameters, "batch time outputs", outputs=self.output_size, name="parameters")
        batch, time, _ = parameters.shape
        expect(targets, "batch labels", batch=batch, name="targets")
        frames, labels = _lengths(mask, parameters.shape[:2], parameters), _lengths(target_mask, targets.shape, targets)
        if mask is not None:
            parameters = parameters.masked_fill(~mask.unsqueeze(-1), 0.0)
        if target_mask is not None:
            targets = targets.masked_fill(~target_mask, BLANK)
        self._check_transcripts(targets.cpu(), frames.cpu(), labels.cpu())
        if batch == 0 or time == 0:  # torch refuses them
            return widened(parameters).flatten(1).sum(1)
        log_probabilities = widened(parameters).log_softmax(-1).transpose(0, 1)
        return ctc_loss(log_probabilities, targets, frames.cpu(), labels.cpu(), blank=BLANK, reduction="none")

    def loss(
        self, parameters: Tensor, targets: Tensor, mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> Loss:
        """Compute the sum of the losses of non-empty sequences, and their number; see `losses`."""
        losses = self.losses(parameters, targets, mask, target_mask)
        return summed(losses, None if mask is None else mask.any(-1))

    def predict(self, parameters: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the most probable class of each frame without repeats and blanks, (batch, time) int64, padded with −1.

        Raises:
            ShapeError: tensors whose shapes don't match.
        """
        started = self.started(parameters, mask)
        kept = started != BLANK
        # Repeats and blanks are written to an additional column, which is removed.
        places = torch.where(kept, kept.cumsum(1) - 1, started.shape[1])
        padded = started.new_full((started.shape[0], started.shape[1] + 1), -1)
        return padded.scatter(1, places, started)[:, :-1]

    def started(self, parameters: Tensor, mask: Tensor | None = None, previous: Tensor | None = None) -> Tensor:
        """Return the label that begins at each frame of the most probable alignment, (batch, time) int64; 0 for none.

        Args:
            parameters: (batch, time, classes).
            mask: (batch, time) bool, true for the frames of each sequence.
            previous: (batch,) int64, the most probable class of the frame before, in a stream; the blank by default.

        Raises:
            ShapeError: tensors whose shapes don't match.
        """
        expect(parameters, "batch time outputs", outputs=self.output_size, name="parameters")
        best = parameters.argmax(-1)
        if mask is not None:
            check_mask(mask, best.shape)
            best = best.masked_fill(~mask, BLANK)
        if previous is None:
            previous = best.new_full((len(best),), BLANK)
        expect(previous, "batch", batch=len(best), name="previous")
        before = torch.cat([previous.unsqueeze(1), best], 1)[:, :-1]
        return best.masked_fill(best == before, BLANK)

    def sharpen(self, parameters: Tensor, temperature: float) -> Tensor:
        """Divide logits by the temperature, for a search; with 0, the most probable classes get probability 1."""
        return sharpened(parameters, temperature)

    def _check_transcripts(self, targets: Tensor, frames: Tensor, labels: Tensor) -> None:
        """Check for impossible transcripts, and for labels with which torch would read outside of its memory."""
        there = torch.arange(targets.shape[1]) < labels.unsqueeze(1)
        unknown = there & ((targets <= BLANK) | (targets >= self.num_classes))
        if unknown.any():
            row, place = unknown.nonzero()[0].tolist()
            raise ValueError(
                f"targets[{row}, {place}] is {int(targets[row, place])}, expected a label from 1 to "
                f"{self.num_classes - 1} (0 is the blank)"
            )
        repeats = (there[:, 1:] & (targets[:, 1:] == targets[:, :-1])).sum(1)
        short = frames < labels + repeats
        if short.any():
            row = int(short.int().argmax())
            raise ValueError(
                f"row {row} has {int(frames[row])} frames for a transcript of {int(labels[row])} labels, "
                f"{int(repeats[row])} of them repeats that need a blank before them: {int(labels[row] + repeats[row])} "
                "frames or more; leave such examples out, or let the encoder keep more frames"
            )


def _lengths(mask: Tensor | None, shape: torch.Size, like: Tensor) -> Tensor:
    if mask is None:
        return torch.full((shape[0],), shape[1], device=like.device)
    check_mask(mask, shape)
    return lengths_from_mask(mask)
