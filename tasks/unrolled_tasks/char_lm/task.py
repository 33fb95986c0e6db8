"""Language modeling over characters, bytes or words: prediction of the next symbol of a continuous text."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from unrolled import Decoder, DecoderState, Loss, Processor, Tokenizer, cross_entropy
from unrolled.deployment.sampling import continue_text
from unrolled.training.data.streams import Window
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.dynamic_evaluation import DynamicEvaluation
from unrolled.training.tasks.schedules import Schedule


class CharLM(SequenceTask):
    """Trains a decoder as a language model.

    Each batch is the next window of parallel streams. The detached state at its end is the initial state of the next
    window: truncated backpropagation through time (Williams & Peng 1990).

    Args:
        network: description of a `Decoder`; see `SequenceTask` for this and the next five.
        processor: the tokenizer of the text, as the source.
        optimizer: a partial that is called with parameter groups.
        schedule: learning rate schedule.
        l1: weight of the L1 penalty.
        l2: weight of the L2 penalty.
        prompt: beginning of the samples shown during training.
        sample_length: number of symbols of a sample.
        temperature: temperature of the samples.
        dynamic: arguments of a `DynamicEvaluation`, {rate, segment, decay, norm}, to score the test text a third time
            with a copy of the network that learns from it; None for no dynamic evaluation.

    Raises:
        ValueError: arguments out of range; at the start of the test: a dynamic evaluation with several processes.
    """

    network: Decoder  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, and never assigned another

    def __init__(
        self,
        network: Mapping[str, Any],
        processor: Processor,
        optimizer: Callable[[Iterable[Any]], Optimizer] | None,
        schedule: Schedule | None = None,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
        prompt: str = "",
        sample_length: int = 400,
        temperature: float = 0.8,
        dynamic: Annotated[Mapping[str, Any], DynamicEvaluation] | None = None,
    ) -> None:
        super().__init__(network, processor, optimizer, schedule, l1=l1, l2=l2)
        self.prompt = prompt
        self.sample_length = sample_length
        self.temperature = temperature
        self.validation_loss = MeanMetric()
        self.dynamic = DynamicEvaluation.from_options(dynamic)
        self.test_continuous, self.test_random_windows, self.test_dynamic = MeanMetric(), MeanMetric(), MeanMetric()
        self.test_losses = {
            "continuous": self.test_continuous,
            "random_windows": self.test_random_windows,
            "dynamic": self.test_dynamic,
        }
        # Sums over a whole test set: in float32 the last digits of the mean would depend on the batch size.
        if not torch.backends.mps.is_available():
            for metric in (self.validation_loss, *self.test_losses.values()):
                metric.set_dtype(torch.float64)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the text."""
        return cast("Tokenizer", self.processor.source)

    def loss(self, batch: Window, loader: str) -> Loss:
        """Returns the summed cross-entropy (nats) of a window, and carries the state to the loader's next window."""
        initial, memory = self.network.start(len(batch.inputs))
        state: DecoderState = self.state_store.take(loader, initial, batch.reset)
        if batch.carry < batch.inputs.shape[1]:
            logits = self._two_parts(batch, state, memory, loader)
        else:
            decoded = self.network(batch.inputs, state, memory, batch.lengths)
            self.state_store.put(loader, decoded.state)
            logits = decoded.logits
        return cross_entropy(logits, batch.targets, batch.loss_mask)

    def _two_parts(self, batch: Window, state: DecoderState, memory: Any, loader: str) -> torch.Tensor:
        """Computes a window in two parts, since the next window begins with the state after `carry` steps."""
        cut = batch.carry
        head = self.network(batch.inputs[:, :cut], state, memory, batch.lengths.clamp(max=cut))
        self.state_store.put(loader, head.state)
        tail = self.network(batch.inputs[:, cut:], head.state, memory, (batch.lengths - cut).clamp(min=0))
        return torch.cat([head.logits, tail.logits], dim=1)

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns a command that samples text."""
        prompt = '--prompt "ROMEO:" ' if self.tokenizer.unknown not in self.tokenizer.encode("ROMEO:") else ""
        return (f"python -m unrolled sample {checkpoint} {prompt}--length 400",)

    def training_step(self, batch: Window, batch_idx: int) -> torch.Tensor:
        """Returns the window's share of the optimizer step's mean loss."""
        loss = self.loss(batch, "train")
        mean = loss.mean.detach()
        self.log_step("train/loss", mean, prog_bar=True)
        self.log_step(f"train/{self.measure}", self._convert(mean))
        return loss.total * batch.scale + self.penalty()

    def on_validation_epoch_start(self) -> None:
        """Drops the carried state, since validation reads its text from the beginning."""
        self.state_store.drop("validation")

    def validation_step(self, batch: Window, batch_idx: int) -> None:
        loss = self.loss(batch, "validation")
        self.validation_loss.update(loss.mean, loss.count)

    def on_validation_epoch_end(self) -> None:
        mean = self.validation_loss.compute().float()
        self.validation_loss.reset()
        self.log("validation/loss", mean)
        self.log(f"validation/{self.measure}", self._convert(mean), prog_bar=True)

    def on_test_epoch_start(self) -> None:
        for name in self.test_losses:
            self.state_store.drop(name)
        if self.dynamic is not None:
            if self.trainer.world_size > 1:
                raise ValueError(
                    f"a dynamic evaluation needs one process, which reads the text in order; got "
                    f"{self.trainer.world_size}"
                )
            self.dynamic.begin(self.network)

    def test_step(self, batch: Window, batch_idx: int, dataloader_idx: int = 0) -> None:
        name = list(self.test_losses)[dataloader_idx]
        loss = self.loss(batch, name)
        self.test_losses[name].update(loss.mean, loss.count)
        if self.dynamic is not None and name == "continuous":
            loss = self._dynamic_loss(self.dynamic, batch)
            if loss.count > 0:
                self.test_dynamic.update(loss.mean, loss.count)

    def _dynamic_loss(self, dynamic: DynamicEvaluation, batch: Window) -> Loss:
        initial, memory = self.network.start(len(batch.inputs))
        state = self.state_store.take("dynamic", initial, batch.reset)
        done = 0

        def of_segment(network: Decoder, inputs: Tensor, targets: Tensor, loss_mask: Tensor, state: Any) -> Any:
            nonlocal done
            lengths = (batch.lengths - done).clamp(0, inputs.shape[1])
            done += inputs.shape[1]
            decoded = network(inputs, state, memory, lengths)
            return cross_entropy(decoded.logits, targets, loss_mask), decoded.state

        loss, state = dynamic.score(batch.inputs, batch.targets, batch.loss_mask, state, of_segment)
        self.state_store.put("dynamic", state)
        return loss

    def on_test_epoch_end(self) -> None:
        """Logs the scores of the continuous text, of random windows, and of dynamic evaluation."""
        if self.dynamic is not None:
            self.dynamic.end()
        for name, metric in self.test_losses.items():
            if not metric.update_called:
                continue
            mean = metric.compute().float()
            metric.reset()
            prefix = "test/" if name == "continuous" else f"test/{name}_"
            self.log(f"{prefix}loss", mean)
            self.log(f"{prefix}{self.measure}", self._convert(mean))

    @property
    def measure(self) -> str:
        """The usual metric of the unit: bits per character or byte, perplexity per word."""
        return "perplexity" if self.tokenizer.unit == "word" else f"bits_per_{self.tokenizer.unit}"

    def _convert(self, nats: torch.Tensor) -> torch.Tensor:
        return nats.exp() if self.measure == "perplexity" else nats / math.log(2)

    def sample(self, generator: torch.Generator) -> str:
        """Returns a text sampled from the network."""
        return continue_text(
            self.network,
            self.tokenizer,
            self.prompt,
            length=self.sample_length,
            temperature=self.temperature,
            generator=generator,
        )
