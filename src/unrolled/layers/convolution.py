"""A small causal convolution over frames and their features, which can process a stream."""

import torch
from torch import Tensor, nn


class CausalConvolution(nn.Module):
    """Two convolutions over the features and over past frames, with widths 5 and 3, stride 2 and ReLU.

    They are causal: the output of a frame doesn't depend on later frames.

    Args:
        input_size: number of features of a frame, in a meaningful order such as that of frequency.
        num_filters: number of filters of each layer.
        frames: number of frames that a filter covers: 1 for the current frame alone, 3 to include the last two.
        norm: whether each filter has batch normalization (Ioffe & Szegedy 2015) over all valid frames and positions.
            Each process computes its own statistics, unless Lightning's `sync_batchnorm` is set.
    """

    def __init__(self, input_size: int, num_filters: int, frames: int = 1, *, norm: bool = False) -> None:
        super().__init__()
        self.input_size, self.num_filters, self.seen = input_size, num_filters, frames - 1
        self.first = nn.Conv2d(1, num_filters, (frames, 5), stride=(1, 2), padding=(0, 2))
        self.second = nn.Conv2d(num_filters, num_filters, (frames, 3), stride=(1, 2), padding=(0, 1))
        self.norms = nn.ModuleList(nn.BatchNorm1d(num_filters) for _ in range(2)) if norm else None
        self.output_size = num_filters * ((input_size + 3) // 4)

    def initial_state(self, batch: int, *, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the past frames of each layer before the first frame: zeros."""
        halved = like.new_zeros(batch, self.num_filters, self.seen, (self.input_size + 1) // 2)
        return like.new_zeros(batch, 1, self.seen, self.input_size), halved

    def forward(
        self, frames: Tensor, state: tuple[Tensor, Tensor] | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Process frames, given the state after the previous frames.

        Args:
            frames: (batch, time, features).
            state: the state that was returned for the previous frames.
            valid: (batch, time) bool: frames that the normalization's statistics include. None for all.

        Returns:
            The outputs (batch, time, output_size), and the next state.
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
        """Apply ReLU, and the normalization if there is one, to (batch, filters, time, positions)."""
        if self.norms is None:
            return torch.relu(values)
        norm = self.norms[layer]
        if valid is None or not self.training:  # padding doesn't affect valid frames
            return torch.relu(norm(values.flatten(2)).view_as(values))
        by_frame = values.transpose(1, 2)
        normalized = torch.zeros_like(by_frame)
        if bool(valid.any()):
            normalized[valid] = norm(by_frame[valid])
        return torch.relu(normalized).transpose(1, 2)
