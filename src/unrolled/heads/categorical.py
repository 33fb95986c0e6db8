"""Classification with exclusive classes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from unrolled.heads.base import Head
from unrolled.heads.checks import check_sizes, checked_smoothing, checked_weights
from unrolled.heads.temperature import sharpened, widened
from unrolled.losses import NO_TARGET


class CategoricalHead(Head):
    """Predicts one of several classes. Parameters are logits (..., num_classes), and a target is the index of a class.

    Losses are in nats. Label smoothing and class weights are used in training mode only.

    Args:
        input_size: number of input features.
        num_classes: number of classes.
        bias: whether logits have a bias.
        label_smoothing: fraction of the target that is spread evenly over the classes (Szegedy et al. 2016, section 7).
        class_weights: weight of each class in the sum; the count is not weighted. The buffer with this name can be set
            later, when the data are known; it is not stored in checkpoints.

    Raises:
        ValueError: a size below one; a share outside [0, 1); weights that are negative, infinite or not one per class.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        *,
        bias: bool = True,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        check_sizes(num_classes=num_classes)
        super().__init__(input_size, num_classes, bias=bias)
        self.num_classes = num_classes
        self.label_smoothing = checked_smoothing(label_smoothing)
        weights = checked_weights(class_weights, num_classes)
        self.register_buffer("class_weights", weights, persistent=False)

    def losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropy (...) in nats of logits (..., classes) and int64 targets (...)."""
        self.check(parameters, targets)
        logits = widened(parameters)
        weights = self.class_weights if self.training else None
        losses = nn.functional.cross_entropy(
            logits.reshape(-1, self.num_classes),
            targets.reshape(-1),
            weight=None if weights is None else weights.to(logits.dtype),
            ignore_index=NO_TARGET,
            reduction="none",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        return losses.reshape(targets.shape)

    def probabilities(self, parameters: Tensor) -> Tensor:
        """Return the probability of each class, (..., classes)."""
        return widened(parameters).softmax(-1)

    def predict(self, parameters: Tensor) -> Tensor:
        """Return the most probable class, (...) int64."""
        return parameters.argmax(-1)

    def sharpen(self, parameters: Tensor, temperature: float) -> Tensor:
        """Divide logits by the temperature; with 0, the most probable class gets probability 1."""
        return sharpened(parameters, temperature)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample a class for each prediction, (...) int64."""
        shares = self.probabilities(parameters.detach()).reshape(-1, self.num_classes)
        return torch.multinomial(shares, 1, generator=generator).reshape(parameters.shape[:-1])

    def distribution(self, parameters: Tensor) -> Categorical:
        return Categorical(logits=widened(parameters), validate_args=False)

    def tie(self, embedding: nn.Embedding) -> None:
        """Share an embedding's weights (Press & Wolf 2017), and initialize them again as an output layer.

        With an embedding's N(0, 1), logits would have a standard deviation of √input_size. The embedded inputs can be
        multiplied by this factor (Vaswani et al. 2017, section 3.4).

        Raises:
            ValueError: an embedding of another shape than (num_classes, input_size).
        """
        shape = (embedding.num_embeddings, embedding.embedding_dim)
        if shape != (self.num_classes, self.input_size):
            raise ValueError(
                f"tied weights need an embedding of {self.num_classes} classes by {self.input_size} features, the "
                f"head's input; this one is {shape[0]} by {shape[1]}"
            )
        self.linear.weight = embedding.weight
        nn.init.uniform_(embedding.weight, -(self.input_size**-0.5), self.input_size**-0.5)
