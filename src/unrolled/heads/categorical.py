"""One class of several."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from unrolled.heads.base import Head
from unrolled.heads.checks import check_sizes, checked_smoothing, checked_weights
from unrolled.heads.temperature import sharpened, widened
from unrolled.losses import NO_TARGET


class CategoricalHead(Head):
    """Predicts one class of several: parameters are logits (..., num_classes), a target is the number of a class.

    Losses are in nats. Label smoothing and class weights act in training mode alone.

    Args:
        input_size: features of an input.
        num_classes: classes, numbered from 0.
        bias: whether logits have a bias.
        label_smoothing: share of the target that is spread evenly over the classes (Szegedy et al. 2016, section 7).
        class_weights: what a prediction of each class weighs in the sum; it counts as one all the same. The buffer of
            this name may also be set later, when the data are known; no checkpoint holds it.

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
        """Logits (..., classes) and int64 targets (...) -> (...), the cross-entropy of each in nats."""
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
        """Logits (..., classes) -> the probability of each class."""
        return widened(parameters).softmax(-1)

    def predict(self, parameters: Tensor) -> Tensor:
        """The likeliest class, (...) int64."""
        return parameters.argmax(-1)

    def sharpen(self, parameters: Tensor, temperature: float) -> Tensor:
        """Logits divided by the temperature; at 0 the likeliest class has all the probability."""
        return sharpened(parameters, temperature)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A class for each prediction, (...) int64."""
        shares = self.probabilities(parameters.detach()).reshape(-1, self.num_classes)
        return torch.multinomial(shares, 1, generator=generator).reshape(parameters.shape[:-1])

    def distribution(self, parameters: Tensor) -> Categorical:
        return Categorical(logits=widened(parameters), validate_args=False)

    def tie(self, embedding: nn.Embedding) -> None:
        """Share an embedding's weights (Press & Wolf 2017), drawn anew at the scale of an output layer.

        An embedding's unit normal would give logits of the size of √input_size. Whoever reads the embedding may
        multiply by that (Vaswani et al. 2017, section 3.4).

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
