"""Language modeling over characters, bytes or words: prediction of the next symbol of a continuous text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import Tensor

from unrolled import Decoder, Loss, Processor, Tokenizer
from unrolled.deployment.sampling import continue_text
from unrolled.generation.limits import whole
from unrolled.heads.temperature import check_temperature
from unrolled.training.configuration.flat import flat_options
from unrolled.training.data.streams import Window
from unrolled.training.tasks.autoregressive import AutoregressiveTask
from unrolled.training.tasks.dynamic_evaluation import DynamicEvaluation
from unrolled.training.tasks.evaluation import Scored, perplexity
from unrolled.training.tasks.optimization import Optimization


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The texts shown during training.

    Attributes:
        prompt: their beginning.
        sample_length: number of symbols.
        temperature: temperature of the samples; 0 for the most probable symbols.

    Raises:
        ValueError: a negative length or temperature.
    """

    prompt: str = ""
    sample_length: int = 400
    temperature: float = 0.8

    def __post_init__(self) -> None:
        whole(0, sample_length=self.sample_length)
        check_temperature(self.temperature)


class CharLM(AutoregressiveTask):
    """Trains a decoder as a language model; see `AutoregressiveTask`.

    Args:
        network: description of a `Decoder`.
        processor: the tokenizer of the text, as the source.
        optimization: see `SequenceTask`; its fields and those of `samples` can be arguments, too.
        samples: the texts shown during training.
        dynamic: arguments of a `DynamicEvaluation`, {rate, segment, decay, norm}, to score the test text a third time
            with a copy of the network that learns from it; None for no dynamic evaluation.

    Raises:
        ValueError: arguments out of range; at the start of the test: a dynamic evaluation with several processes.
    """

    test_loaders: ClassVar[Sequence[str]] = ("continuous", "random_windows")

    @flat_options
    def __init__(
        self,
        network: Mapping[str, Any],
        processor: Processor,
        optimization: Optimization = Optimization(),
        samples: SampleOptions = SampleOptions(),
        dynamic: Annotated[Mapping[str, Any], DynamicEvaluation] | None = None,
    ) -> None:
        super().__init__(network=network, processor=processor, optimization=optimization)
        self.samples = samples
        self.dynamic = DynamicEvaluation.from_options(dynamic)
        self.progress_metrics = (self.measure,)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the text."""
        return cast("Tokenizer", self.processor.source)

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns a command that samples text."""
        prompt = '--prompt "ROMEO:" ' if self.tokenizer.unknown not in self.tokenizer.encode("ROMEO:") else ""
        return (f"python -m unrolled sample {checkpoint} {prompt}--length 400",)

    def log_training(self, mean: Tensor) -> None:
        """Logs the mean loss of a training window, and `measure`."""
        super().log_training(mean)
        self.log_step(f"train/{self.measure}", mean.exp() if self.measure == "perplexity" else mean / math.log(2))

    def score(self, batch: Window, loader: str) -> Scored:
        """Returns the loss, named by protocol: the continuous text, random windows, and dynamic evaluation."""
        loss = self.loss(batch, loader)
        if loader == "random_windows":
            return Scored({"random_windows_loss": loss})
        if self.dynamic is None or loader != "continuous":
            return Scored({"loss": loss})
        return Scored({"loss": loss, "dynamic_loss": self._dynamic_loss(self.dynamic, batch)})

    def scores(self, means: Mapping[str, float], rows: Sequence[Any]) -> dict[str, float]:
        """Returns the loss and `measure` of each protocol."""
        found: dict[str, float] = {}
        for protocol in ("", "random_windows_", "dynamic_"):
            if f"{protocol}loss" in means:
                nats = means[f"{protocol}loss"]
                found[f"{protocol}loss"], found[f"{protocol}{self.measure}"] = nats, self._convert(nats)
        return found

    def on_test_epoch_start(self) -> None:
        self.state_store.drop("dynamic")
        if self.dynamic is not None:
            if self.trainer.world_size > 1:
                raise ValueError(
                    f"a dynamic evaluation needs one process, which reads the text in order; got "
                    f"{self.trainer.world_size}"
                )
            self.dynamic.begin(self.network)

    def _dynamic_loss(self, dynamic: DynamicEvaluation, batch: Window) -> Loss:
        initial, memory = self.network.start(len(batch.inputs))
        state = self.state_store.take("dynamic", initial, batch.reset)
        done = 0

        def of_segment(network: Decoder, inputs: Tensor, targets: Tensor, loss_mask: Tensor, state: Any) -> Any:
            nonlocal done
            begin, end = done, done + inputs.shape[1]
            lengths = (batch.lengths - begin).clamp(0, inputs.shape[1])
            resets = None if batch.resets is None else batch.resets[:, begin:end]
            done = end
            decoded = network(inputs, state, memory, lengths, resets=resets)
            return network.head.loss(decoded.parameters, targets, loss_mask), decoded.state

        loss, state = dynamic.score(batch.inputs, batch.targets, batch.loss_mask, state, of_segment)
        self.state_store.put("dynamic", state)
        return loss

    def on_test_epoch_end(self) -> None:
        """Deletes the network that learned from the text."""
        super().on_test_epoch_end()
        if self.dynamic is not None:
            self.dynamic.end()

    @property
    def measure(self) -> str:
        """The usual metric of the unit: bits per character or byte, perplexity per word."""
        return "perplexity" if self.tokenizer.unit == "word" else f"bits_per_{self.tokenizer.unit}"

    def _convert(self, nats: float) -> float:
        return perplexity(nats) if self.measure == "perplexity" else nats / math.log(2)

    def sample(self, generator: torch.Generator) -> str:
        """Returns a text sampled from the network."""
        return continue_text(
            self.network,
            self.tokenizer,
            self.samples.prompt,
            length=self.samples.sample_length,
            temperature=self.samples.temperature,
            generator=generator,
        )
