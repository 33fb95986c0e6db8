"""Reset marks: sequences side by side in one row, such as packed documents, or the episodes of an environment.

A mark at a step says that a new sequence begins there. The steps between two marks are a stretch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.sequences import mask_from_lengths, reverse_valid
from unrolled.shapes import expect


class Stretches(NamedTuple):
    """The stretches of a batch, row by row, in the order of their steps. A row without a step has one empty stretch.

    A loader can compute them on the CPU and pass them to `Recurrent` instead of marks. `to` moves them.
    """

    row: Tensor  # (stretches,) int64: the row of the batch
    begin: Tensor  # (stretches,) int64: the first step
    lengths: Tensor  # (stretches,) int64
    fresh: Tensor  # (stretches,) bool: it begins with a mark, not with the row's state
    last: Tensor  # (stretches,) bool: the row's last stretch
    of_step: Tensor  # (batch, time) int64: the stretch of each step; in the padding the row's last
    marks: tuple[int, ...]  # the steps, from 1 on, at which any row has a mark
    longest: int  # number of steps of the longest stretch

    @classmethod
    def of(cls, resets: Tensor, lengths: Tensor | None = None) -> "Stretches":
        """Compute the stretches of marks.

        Reading the marks synchronizes with CUDA.

        Args:
            resets: (batch, time) bool, true where a sequence begins. Marks in the padding have no effect.
            lengths: (batch,) int64 from 0 to time; the full time by default.

        Raises:
            ShapeError: tensors whose shapes don't match.
            ValueError: marks that are not bool; an export with torch.export.
        """
        expect(resets, "batch time", name="resets")
        if resets.dtype != torch.bool:
            raise ValueError(f"resets are {resets.dtype}, expected bool: (numbers != 0) makes marks of numbers")
        if torch.compiler.is_exporting():
            raise ValueError("the values of resets determine what runs, so a program with them can't be exported")
        batch, time = resets.shape
        if lengths is None:
            lengths = torch.full((batch,), time, device=resets.device)
        expect(lengths, "batch", batch=batch, name="lengths")
        marks = resets & mask_from_lengths(lengths.to(resets.device), time)
        starts = marks.clone()
        starts[:, :1] = True
        if time == 0:
            starts = marks.new_ones(batch, 1)
        row, begin = starts.nonzero(as_tuple=True)
        last = torch.cat([row[1:] != row[:-1], row.new_ones(min(batch, 1), dtype=torch.bool)])
        following = torch.cat([begin[1:], begin[:1]])
        length = torch.where(last, lengths.to(resets.device)[row], following) - begin
        fresh = marks[row, begin] if time else torch.zeros_like(last)
        first = starts.sum(1).cumsum(0) - starts.sum(1)
        of_step = (starts.cumsum(1) - 1 + first.unsqueeze(1))[:, :time]
        steps = tuple(marks.any(0).nonzero().flatten().tolist())
        longest = int(length.max()) if len(length) else 0
        return cls(row, begin, length, fresh, last, of_step, tuple(s for s in steps if s > 0), longest)

    @property
    def split_rows(self) -> bool:
        """Whether any row has more than one stretch."""
        return len(self.marks) > 0

    @property
    def first(self) -> Tensor:
        """(stretches,) bool: the row's first stretch."""
        return torch.cat([self.last.new_ones(min(len(self.last), 1)), self.last[:-1]])

    def to(self, device: torch.device) -> "Stretches":
        """Return the stretches on a device."""
        moved = (each.to(device) if isinstance(each, Tensor) else each for each in self)
        return Stretches(*moved)  # pyright: ignore[reportArgumentType] - the fields in their order

    def check(self, batch: int, time: int) -> None:
        """Check that the stretches are those of a batch with this shape.

        Raises:
            ShapeError: another shape.
        """
        expect(self.of_step, "batch time", batch=batch, time=time, name="resets")

    def split(self, values: Tensor) -> Tensor:
        """Return each stretch of (batch, time, …) as a row, (stretches, longest, …), with zeros after its end."""
        steps = torch.arange(self.longest, device=values.device)
        places = (self.begin.unsqueeze(1) + steps).clamp(max=max(values.shape[1] - 1, 0))
        padding = steps >= self.lengths.unsqueeze(1)
        taken = values[self.row.unsqueeze(1), places]
        return taken.masked_fill(padding.view(*padding.shape, *[1] * (taken.dim() - 2)), 0.0)

    def join(self, values: Tensor) -> Tensor:
        """Return rows (stretches, longest, features) as (batch, time, features); the padding holds any values."""
        time = self.of_step.shape[1]
        if values.shape[1] == 0:
            return values.new_zeros(len(self.of_step), time, values.shape[2])
        steps = torch.arange(time, device=values.device) - self.begin[self.of_step]
        return values[self.of_step, steps.clamp(max=values.shape[1] - 1)]

    def starts(self, lengths: Tensor | None, *, reverse: bool) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Return for each step whether a new sequence begins, (batch, time) bool, its stretch, and the steps of marks.

        Args:
            lengths: (batch,) numbers of valid steps; None without padding.
            reverse: for sequences whose valid steps are reversed. A row then begins with its last stretch, which has
                the row's state, and each stretch before it begins anew.
        """
        batch, time = self.of_step.shape
        begins = torch.zeros(batch, time, dtype=torch.bool, device=self.row.device)
        if time:
            begins[self.row, self.begin] = self.fresh
        if not reverse:
            return begins, self.of_step, self.marks
        after = torch.cat([begins[:, 1:], begins.new_zeros(batch, 1)], dim=1)[:, :time]
        turned = reverse_valid(after, lengths)
        steps = tuple(step for step in turned.any(0).nonzero().flatten().tolist() if step > 0)
        return turned, reverse_valid(self.of_step, lengths), steps
