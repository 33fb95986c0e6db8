"""A small convolution over frames and their features, which answers frame by frame."""

import torch
from torch import Tensor, nn


class CausalConvolution(nn.Module):
    """Filters over the features of a frame and of those before it, of widths 5 and 3 and stride 2, with ReLU.

    They never look ahead, so that each frame can be answered as it comes.

    Args:
        input_size: features of a frame, in an order such as that of frequency.
        num_filters: of each of the two layers.
        frames: how many a filter sees: 1 for each frame by itself, 3 for two more that came before it.
        norm: batch normalization (Ioffe & Szegedy 2015) of each filter, over all valid frames and their places. Each
            process has its own numbers for it, unless Lightning's `sync_batchnorm` joins them.
    """

    def __init__(self, input_size: int, num_filters: int, frames: int = 1, *, norm: bool = False) -> None:
        super().__init__()
        self.input_size, self.num_filters, self.seen = input_size, num_filters, frames - 1
        self.first = nn.Conv2d(1, num_filters, (frames, 5), stride=(1, 2), padding=(0, 2))
        self.second = nn.Conv2d(num_filters, num_filters, (frames, 3), stride=(1, 2), padding=(0, 1))
        self.norms = nn.ModuleList(nn.BatchNorm1d(num_filters) for _ in range(2)) if norm else None
        self.output_size = num_filters * ((input_size + 3) // 4)

    def initial_state(self, batch: int, *, like: Tensor) -> tuple[Tensor, Tensor]:
        """What was seen before the first frame, which is nothing, by each layer."""
        halved = like.new_zeros(batch, self.num_filters, self.seen, (self.input_size + 1) // 2)
        return like.new_zeros(batch, 1, self.seen, self.input_size), halved

    def forward(
        self, frames: Tensor, state: tuple[Tensor, Tensor] | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Frames and what was seen before them -> what is found in each, and what is seen now.

        Args:
            frames: (batch, time, features).
            state: as it was given back for the frames before.
            valid: (batch, time) bool: frames from which the normalization learns. None for all.

        Returns:
            (batch, time, output_size), and the state.
        """
        batch, time, _ = frames.shape
        before = self.initial_state(batch, like=frames) if state is None else state
        if time == 0:
            return frames.new_zeros(batch, 0, self.output_size), before
        read = torch.cat([before[0], frames.unsqueeze(1)], dim=2)
        halved = torch.cat([before[1], self._rectified(self.first(read), 0, valid)], dim=2)
        found = self._rectified(self.second(halved), 1, valid).transpose(1, 2)
        return found.reshape(batch, time, self.output_size), (read[:, :, time:], halved[:, :, time:])

    def _rectified(self, values: Tensor, layer: int, valid: Tensor | None) -> Tensor:
        """ReLU of (batch, filters, time, places), normalized if need be."""
        if self.norms is None:
            return torch.relu(values)
        norm = self.norms[layer]
        if valid is None or not self.training:  # what stands in the padding is seen by no valid frame
            return torch.relu(norm(values.flatten(2)).view_as(values))
        by_frame = values.transpose(1, 2)
        normalized = torch.zeros_like(by_frame)
        if bool(valid.any()):
            normalized[valid] = norm(by_frame[valid])
        return torch.relu(normalized).transpose(1, 2)
