"""Direct multi-step forecasts: one network reads the past, and another predicts each step of the horizon from it.

Wen et al. 2017, "A Multi-Horizon Quantile Recurrent Forecaster", with a position embedding of each step in place of
their two decoders:

    h = core(x_1 … x_T)
    y_{T+k} ~ head(relu(W [h; p_k; z_{T+k}]))

where p_k is learned and z_{T+k} is known of the future.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unrolled.heads.base import VectorHead
from unrolled.models.encoders import Core, FeatureEncoder
from unrolled.models.forecasters.base import Forecaster


class DirectForecaster(Forecaster):
    """Reads the past with any recurrent network, and predicts all steps of the horizon from its last output.

    Args:
        past_covariates: see `Forecaster` for this and the next four.
        future_size: number of features of the future.
        num_targets: number of targets.
        horizon: number of steps to predict.
        head: a partial `VectorHead`.
        core: a partial `Recurrent`, called with its input size.
        hidden_size: overrides the core's hidden_size.
        num_layers: overrides the core's num_layers.
        bidirectional: whether the core reads the past in both directions.
        decoder_size: number of units of the layer before the head.
        position_size: number of features of a step's position.
        input_dropout: dropout probability of the past.
        output_dropout: dropout probability of the core's last output and of the layer before the head.
        normalization: see `Forecaster`.

    Raises:
        ValueError: a size below one, a probability outside [0, 1), or an unknown normalization.
    """

    def __init__(
        self,
        past_covariates: int,
        future_size: int,
        num_targets: int,
        horizon: int,
        head: Callable[..., VectorHead],
        core: Callable[..., Core],
        *,
        hidden_size: int | None = None,
        num_layers: int | None = None,
        bidirectional: bool = False,
        decoder_size: int = 64,
        position_size: int = 16,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        normalization: str = "none",
    ) -> None:
        super().__init__(
            past_covariates,
            future_size,
            num_targets,
            horizon,
            head,
            head_size=decoder_size,
            head_width=num_targets,
            normalization=normalization,
        )
        self.encoder = FeatureEncoder(
            self.past_size,
            core,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            input_dropout=input_dropout,
        )
        self.positions = nn.Embedding(horizon, position_size)
        self.dropout = nn.Dropout(output_dropout)
        self.hidden = nn.Linear(self.encoder.output_size + position_size + future_size, decoder_size)

    def decode(self, past: Tensor, future: Tensor, lengths: Tensor | None, targets: Tensor | None) -> Tensor:
        """See `Forecaster.decode`."""
        summary = self.dropout(self.encoder(past, lengths).summary)
        steps = torch.cat(
            [
                summary.unsqueeze(1).expand(-1, self.horizon, -1),
                self.positions.weight.expand(past.shape[0], -1, -1),
                future.to(summary.dtype),
            ],
            -1,
        )
        outputs = self.head(self.dropout(torch.relu(self.hidden(steps))))
        return outputs.unflatten(-1, (self.num_targets, -1))
