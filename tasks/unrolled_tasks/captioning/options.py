"""Options of captioning, as dataclasses, one a concern."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from unrolled.training.configuration.flat import check_names
from unrolled_tasks.captioning.critic import SelfCritic


@dataclass(frozen=True, kw_only=True)
class TrunkOptions:
    """How the convolutional trunk of the image encoder is trained.

    Attributes:
        pretrained: weights of the trunk: "own" for the trunk's own pretrained weights, or the path of a file with a
            state dict; None for random weights.
        unfreeze_at_step: step from which the trunk is trained; None: never.
        trunk_lr: learning rate of the trunk; None for that of the other parameters.

    Raises:
        ValueError: a step below 0, a learning rate that isn't above 0 or without effect.
    """

    pretrained: str | None = None
    unfreeze_at_step: int | None = None
    trunk_lr: float | None = None

    def __post_init__(self) -> None:
        step, rate = self.unfreeze_at_step, self.trunk_lr
        if step is not None and step < 0:
            raise ValueError(f"unfreeze_at_step={step}: must be a step of 0 or more, or null to keep the trunk frozen")
        if rate is not None and (step is None or not 0 < rate < float("inf")):
            raise ValueError(
                f"trunk_lr={rate}: must be above 0, and needs unfreeze_at_step, the step from which the trunk is "
                "trained"
            )


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    """What only captions have.

    Attributes:
        doubly_stochastic: weight of Xu et al.'s regularizer, eq. 14; it needs attention.
        self_critical: train on CIDEr-D of sampled captions instead of on the references (Rennie et al. 2017).
        critic: options of `SelfCritic`: samples, baseline, bleu.
        gallery: maximum number of images in gallery.html.

    Raises:
        ValueError: a negative weight or number, an unknown or invalid option of the critic.
    """

    doubly_stochastic: float = 0.0
    self_critical: bool = False
    critic: Annotated[Mapping[str, Any], SelfCritic] | None = None
    gallery: int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.doubly_stochastic < float("inf") or self.gallery < 0:
            raise ValueError(f"doubly_stochastic={self.doubly_stochastic} and gallery={self.gallery} must be 0 or more")
        if self.critic is not None:
            check_names("critic", self.critic, SelfCritic)
            SelfCritic((), **self.critic)  # checks the values before the data are prepared
