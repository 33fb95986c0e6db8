"""The base class of tasks with a decoder that generates text: translation and captioning."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from unrolled.deployment.decoding import candidates, search
from unrolled.generation.beam import Hypotheses
from unrolled.generation.sampling import scheduled_sampling
from unrolled.heads.categorical import CategoricalHead
from unrolled.layers.hard_attention import HardAttention
from unrolled.losses import Loss, coverage_loss
from unrolled.models.decoders.base import Decoded, Decoder, DecoderState
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Processor
from unrolled.sequences import mask_from_lengths
from unrolled.training.callbacks.alignments import Alignment, Drawable
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.outputs import write_text
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.evaluation import Scored, perplexity
from unrolled.training.tasks.optimization import Optimization
from unrolled.training.tasks.reinforcement import Reinforcement
from unrolled.training.tasks.seq2seq_options import GenerationOptions, TeacherForcingOptions
from unrolled.wording import article

_MAX_ALIGNMENTS = 16  # the number of first examples of a split whose alignments are kept


class TeacherForcing(Protocol):
    """The fields that batches of all sequence-to-sequence tasks have."""

    @property
    def inputs(self) -> Tensor: ...  # (batch, target) int64: the start symbol, then the text
    @property
    def targets(self) -> Tensor: ...  # (batch, target) int64: the text, then the stop symbol
    @property
    def lengths(self) -> Tensor: ...  # (batch,): tokens of the text and its stop symbol
    @property
    def examples(self) -> Tensor: ...  # (sources,): numbers of the examples within their split
    @property
    def scale(self) -> float: ...  # turns the summed loss into this batch's share of the step's mean


class GeneratedText(NamedTuple):
    """A generated text and its references."""

    example: int
    source: str
    text: str
    references: tuple[str, ...]
    kind: str  # a class of examples with separate scores; empty for none


class Seq2SeqTask(SequenceTask):
    """Trains a decoder conditioned on a source to predict reference texts.

    Training inputs are the references (teacher forcing) or, with probability `scheduled_sampling`, the network's own
    predictions (Bengio et al. 2015). Validation computes loss, perplexity and token accuracy on the references, and
    scores the texts found by a search.

    Args:
        network: description of a network with a `decoder`.
        processor: the transform of sources, and the tokenizer of the generated texts.
        optimization: see `SequenceTask`; fields of this and of the next two can be arguments, too.
        teacher_forcing: the loss of reference texts.
        generation: the generation of texts in evaluations.

    Raises:
        ValueError: a decoder of something else than tokens, options of attention without attention.
    """

    files: ClassVar[Mapping[str, str]] = {"written.txt": "the generated text for each test example"}
    progress_metrics = ("perplexity",)

    @flat_options
    def __init__(
        self,
        network: Mapping[str, Any],
        processor: Processor,
        optimization: Optimization = Optimization(),
        teacher_forcing: TeacherForcingOptions = TeacherForcingOptions(),
        generation: GenerationOptions = GenerationOptions(),
    ) -> None:
        super().__init__(network=network, processor=processor, optimization=optimization)
        head = self.decoder.head
        if not isinstance(head, CategoricalHead):
            raise ValueError(f"a decoder of texts needs a CategoricalHead, and has {article(type(head).__name__)}")
        head.label_smoothing = teacher_forcing.label_smoothing
        self.teacher_forcing, self.generation = teacher_forcing, generation
        chooses = isinstance(getattr(self.decoder, "attention", None), HardAttention)
        self.reinforcement = Reinforcement(**teacher_forcing.hard or {}) if chooses else None
        penalty = generation.test_search.coverage_penalty
        if (teacher_forcing.coverage > 0 or penalty > 0) and not self.decoder.attends:
            raise ValueError(
                f"coverage={teacher_forcing.coverage} and search.coverage_penalty={penalty} need attention, and "
                "this network has none; leave them at 0, or choose decoder=attentive attention=additive"
            )
        self._alignments: dict[int, Drawable] = {}  # by example

    @abstractmethod
    def start(self, batch: Any) -> tuple[DecoderState, Any]:
        """Encodes the sources of a batch. Returns the decoder's initial state and memory."""

    def for_texts(self, batch: Any, state: DecoderState, memory: Any) -> tuple[DecoderState, Any]:
        """Returns state and memory for each text, given those for each source, which may have several texts."""
        return state, memory

    @abstractmethod
    def source_lengths(self, batch: Any) -> Tensor:
        """Returns (sources,) lengths, on which the maximum lengths of generated texts depend."""

    @abstractmethod
    def describe(self, batch: Any, row: int) -> tuple[str, tuple[str, ...], str]:
        """Returns a printable source, its references, and its kind."""

    @property
    def decoder(self) -> Decoder:
        """The network's decoder."""
        decoder: Any = self.network.decoder
        return decoder

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the generated texts."""
        return cast("Tokenizer", self.processor.target)

    def loss(self, batch: TeacherForcing, loader: str) -> Loss:
        """Returns the summed cross-entropy (nats) of the references' tokens, without coverage."""
        state, memory = self.for_texts(batch, *self.start(batch))
        return self._loss(batch, self._decode(batch, batch.inputs, state, memory))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Returns the batch's share of the optimizer step's mean loss."""
        state, memory = self.for_texts(batch, *self.start(batch))
        inputs, probability = batch.inputs, self.teacher_forcing.scheduled_sampling * self._progress()
        if probability > 0:
            inputs = scheduled_sampling(self.decoder, inputs, state, memory, probability=probability)
        decoded = self._decode(batch, inputs, state, memory)
        loss = self._loss(batch, decoded)
        total = loss.total
        if decoded.weights is not None:
            mask = mask_from_lengths(batch.lengths, inputs.shape[1])
            total = total + self.attention_loss(decoded.weights, mask)
            if self.reinforcement is not None:
                total = total + self.reinforcement(decoded, batch.targets, mask)
        self.log_step("train/loss", loss.mean.detach(), prog_bar=True, batch_size=len(batch.lengths))
        return total * batch.scale + self.penalty()

    def stepped_parts(self) -> tuple[nn.Module, ...]:
        """Returns the decoder if it predicts its own inputs in training."""
        return (self.decoder,) if self.teacher_forcing.scheduled_sampling > 0 else ()

    def attention_loss(self, weights: Tensor, mask: Tensor) -> Tensor | float:
        """Returns the attention regularization added to the summed loss.

        Args:
            weights: (batch, time, source) attention weights.
            mask: (batch, time) bool, True for valid steps.
        """
        coverage = self.teacher_forcing.coverage
        return coverage * coverage_loss(weights, mask).total if coverage > 0 else 0.0

    def begin_evaluation(self, loaders: Sequence[str]) -> None:
        """Drops the alignments of the last evaluation too."""
        super().begin_evaluation(loaders)
        self._alignments = {}

    def score(self, batch: Any, loader: str) -> Scored:
        """Returns loss and accuracy of the references' tokens, and a `GeneratedText` of each source."""
        options = self.generation.validation_search if loader == "validation" else self.generation.test_search
        state, memory = self.start(batch)
        decoded = self._decode(batch, batch.inputs, *self.for_texts(batch, state, memory))
        loss = self._loss(batch, decoded)
        mask = mask_from_lengths(batch.lengths, batch.targets.shape[1])
        right = ((decoded.parameters.argmax(-1) == batch.targets) & mask).sum()
        found = search(self.decoder, state, memory, self.tokenizer, self.source_lengths(batch), options)
        self._keep_alignments(batch, found)
        rows: list[GeneratedText] = []
        for row, texts in enumerate(candidates(found, self.tokenizer)):
            source, references, kind = self.describe(batch, row)
            text = texts[0].text if texts else ""
            rows.append(GeneratedText(int(batch.examples[row]), source, text, references, kind))
        return Scored({"loss": loss, "accuracy": (right, loss.count)}, rows)

    def scores(self, means: Mapping[str, float], rows: Sequence[GeneratedText]) -> dict[str, float]:
        """Returns loss, perplexity, accuracy and the `corpus_scores` of the generated texts."""
        loss, accuracy = means["loss"], means["accuracy"]
        return {"loss": loss, "perplexity": perplexity(loss), "accuracy": accuracy, **self.corpus_scores(rows)}

    @abstractmethod
    def corpus_scores(self, generated: Sequence[GeneratedText]) -> dict[str, float]:
        """Computes corpus metrics of the generated texts, by name; higher is better."""

    def report(self, rows: Sequence[GeneratedText], folder: Path) -> None:
        """Writes the generated texts to written.txt, one line for each example, in order."""
        lines = (" ".join(item.text.splitlines()) for item in rows)
        write_text(folder / "written.txt", "".join(f"{line}\n" for line in lines))

    def sample(self, generator: torch.Generator) -> str:
        """Returns the texts that the validation's search generated for the first examples."""
        first = cast("list[GeneratedText]", self.evaluation.rows[: self.generation.num_samples])
        return "\n\n".join("\n".join(_sample_lines(item)) for item in first)

    def alignments(self, count: int) -> list[Drawable]:
        """Returns the attention weights over the sources of the first examples; empty without attention."""
        return [self._alignments[example] for example in sorted(self._alignments)[:count]]

    def _decode(self, batch: TeacherForcing, inputs: Tensor, state: DecoderState, memory: Any) -> Decoded:
        return self.decoder(inputs, state, memory, batch.lengths)

    def _loss(self, batch: TeacherForcing, decoded: Decoded) -> Loss:
        """Returns the summed cross-entropy, which the head smoothes in training mode."""
        mask = mask_from_lengths(batch.lengths, batch.targets.shape[1])
        return self.decoder.head.loss(decoded.parameters, batch.targets, mask)

    def _progress(self) -> float:
        """Returns the completed fraction of the run; 1 if the run has no end."""
        steps = self._num_steps()
        return 1.0 if math.isinf(steps) else min(self.trainer.global_step / max(steps, 1), 1.0)

    def alignment(self, batch: Any, row: int, text: list[str], weights: Tensor) -> Drawable | None:
        """Returns the figure of a generated text's attention weights, or None.

        Args:
            batch: the batch.
            row: the source's row of the batch.
            text: the generated symbols.
            weights: (text, source) attention weights.
        """
        symbols = self.source_symbols(batch, row)
        return None if symbols is None else Alignment(symbols, text, weights[:, : len(symbols)].clone())

    def source_symbols(self, batch: Any, row: int) -> list[str] | None:
        """Returns the labels of the source axis of an alignment, or None for no alignment."""
        return None

    def _keep_alignments(self, batch: Any, found: Hypotheses) -> None:
        if found.weights is None:
            return
        for row, example in enumerate(batch.examples.tolist()):
            if example >= _MAX_ALIGNMENTS:
                continue
            length = int(found.lengths[row, 0])
            text = [*self.tokenizer.symbols(found.tokens[row, 0, :length].tolist()), "■"]
            weights = found.weights[row, 0, : length + 1]
            drawn = self.alignment(batch, row, text[: len(weights)], weights)
            if drawn is not None:
                self._alignments[example] = drawn


def _sample_lines(item: GeneratedText) -> list[str]:
    references = [f"  reference  {text}" for text in item.references]
    return [f"  source     {item.source}", *references, f"  generated  {item.text}"]
