"""Captioning with an image encoder and a text decoder."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unrolled import DecoderState, EncoderDecoder, ImageEncoder, Processor, doubly_stochastic_loss
from unrolled.state import select
from unrolled.training.callbacks.alignments import RegionAlignment
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.markdown import table
from unrolled.training.console.outputs import write_text
from unrolled.training.data.base import DataError, SequenceData
from unrolled.training.tasks.optimization import Optimization
from unrolled.training.tasks.seq2seq import GeneratedText, Seq2SeqTask
from unrolled.training.tasks.seq2seq_options import GenerationOptions, TeacherForcingOptions
from unrolled_tasks.captioning.critic import SelfCritic
from unrolled_tasks.captioning.data import CaptionBatch, CaptionData
from unrolled_tasks.captioning.gallery import write_gallery
from unrolled_tasks.captioning.options import CaptionOptions, TrunkOptions
from unrolled_tasks.captioning.pretrained import load_trunk
from unrolled_tasks.captioning.scores import TOKENIZATION, by_word, corpus_scores

_log = logging.getLogger(__name__)


class Captioning(Seq2SeqTask):
    """Trains an encoder-decoder network to caption images (Vinyals et al. 2015; Xu et al. 2015).

    See `Seq2SeqTask` for all arguments that are not listed.

    Args:
        network: description of an `EncoderDecoder` with an `ImageEncoder`.
        processor: the transform of images, and the tokenizer of captions.
        optimization: see `SequenceTask`; fields of all these options can be arguments, too.
        teacher_forcing: see `Seq2SeqTask`.
        generation: see `Seq2SeqTask`.
        trunk: how the trunk of the image encoder is trained.
        captions: what only captions have.

    Raises:
        ValueError: a step below 0, a learning rate without effect, a negative weight, a network without an
            `ImageEncoder`, or invalid arguments of `Seq2SeqTask`.
    """

    network: EncoderDecoder  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, never assigned another

    files: ClassVar[Mapping[str, str]] = {
        **Seq2SeqTask.files,
        "captions.md": "recall and precision of frequent words",
        "gallery.html": "images, captions and scores, the worst first",
        "alignments": "attention weights of each token",
    }

    @flat_options
    def __init__(
        self,
        network: Mapping[str, Any],
        processor: Processor,
        optimization: Optimization = Optimization(),
        teacher_forcing: TeacherForcingOptions = TeacherForcingOptions(),
        generation: GenerationOptions = GenerationOptions(),
        trunk: TrunkOptions = TrunkOptions(),
        captions: CaptionOptions = CaptionOptions(),
    ) -> None:
        super().__init__(
            network=network,
            processor=processor,
            optimization=optimization,
            teacher_forcing=teacher_forcing,
            generation=generation,
        )
        if not isinstance(getattr(self.network, "encoder", None), ImageEncoder):
            raise ValueError("captioning needs an EncoderDecoder whose encoder is an ImageEncoder")
        if captions.doubly_stochastic > 0 and not self.decoder.attends:
            raise ValueError(
                f"doubly_stochastic={captions.doubly_stochastic} needs attention, and this network has none"
            )
        self.trunk_options, self.captions = trunk, captions
        self.critic: SelfCritic | None = None
        self.notes["tokens"] = TOKENIZATION
        self._let_trunk_learn(trunk.unfreeze_at_step == 0)

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns commands that caption images."""
        return (
            f"python -m unrolled caption {checkpoint} {self.example()}",
            f"# your own images: python -m unrolled caption {checkpoint} IMAGE …",
        )

    def attach(self, data: SequenceData) -> None:
        """See `SequenceTask.attach`."""
        if (
            isinstance(data, CaptionData)
            and data.features == "cached"
            and self.trunk_options.unfreeze_at_step is not None
        ):
            raise DataError(
                f"data.features=cached needs a frozen trunk, and this one is trained from "
                f"task.unfreeze_at_step={self.trunk_options.unfreeze_at_step}; remove one of the two options"
            )
        super().attach(data)

    @property
    def trunk(self) -> nn.Module:
        """The encoder's trunk."""
        encoder: Any = self.network.encoder
        return encoder.trunk

    def load_pretrained(self) -> None:
        """Loads the trunk's pretrained weights in a new run."""
        if self.trunk_options.pretrained is not None:
            load_trunk(self.trunk, self.trunk_options.pretrained)
        elif self.trunk_options.unfreeze_at_step is None:
            _log.warning(
                "task.unfreeze_at_step=null and task.pretrained=null: the trunk keeps its random weights; set "
                "task.pretrained to own or a file"
            )

    def learning_rates(self) -> Sequence[tuple[Iterable[nn.Parameter], dict[str, Any]]]:
        """Returns the parameters of the trunk as a group with its own learning rate."""
        trunk = list(self.trunk.parameters()) if self.trunk_options.unfreeze_at_step is not None else []
        those = set(map(id, self.trunk.parameters()))
        rest = [p for p in self.network.parameters() if p.requires_grad and id(p) not in those]
        return [(rest, {}), (trunk, {} if self.trunk_options.trunk_lr is None else {"lr": self.trunk_options.trunk_lr})]

    def on_fit_start(self) -> None:
        """Checks conflicting options and builds the critic before training."""
        if self.captions.self_critical:
            if self._data is None:
                raise ValueError("task.self_critical=true scores samples by the references of CaptionData")
            self.critic = SelfCritic(self._data.references("train"), **self.captions.critic or {})
        step = self.trunk_options.unfreeze_at_step
        if step and self.trainer.world_size > 1:
            raise ValueError(
                f"task.unfreeze_at_step={step}: with several processes, the trained parameters are "
                "fixed at the start; set 0, or start a second run from this one's weights with init_from"
            )
        super().on_fit_start()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Unfreezes the trunk at its step. Until then its batch norms are in evaluation mode."""
        super().on_train_batch_start(batch, batch_idx)
        learns = (
            self.trunk_options.unfreeze_at_step is not None
            and self.trainer.global_step >= self.trunk_options.unfreeze_at_step
        )
        if learns:
            self._let_trunk_learn(True)
        self.trunk.train(learns)

    def _let_trunk_learn(self, learns: bool) -> None:
        for parameter in self.trunk.parameters():
            parameter.requires_grad_(learns)

    def start(self, batch: CaptionBatch) -> tuple[DecoderState, Any]:
        """Encodes the images."""
        return self.network.start(batch.images)

    def for_texts(self, batch: CaptionBatch, state: DecoderState, memory: Any) -> tuple[DecoderState, Any]:
        """Returns the state and memory of each caption's image."""
        return select(state, batch.rows), select(memory, batch.rows)

    def source_lengths(self, batch: CaptionBatch) -> Tensor:
        """Returns zeros, so that max_extra alone limits the length of captions."""
        return torch.zeros(len(batch.examples), dtype=torch.long, device=batch.inputs.device)

    def describe(self, batch: CaptionBatch, row: int) -> tuple[str, tuple[str, ...], str]:
        """Returns the image's place and its reference captions."""
        return batch.places[row], batch.references[row], ""

    def attention_loss(self, weights: Tensor, mask: Tensor) -> Tensor | float:
        """Adds Xu et al.'s regularizer to the coverage loss."""
        own = (
            self.captions.doubly_stochastic * doubly_stochastic_loss(weights, mask).total
            if self.captions.doubly_stochastic
            else 0.0
        )
        return own + super().attention_loss(weights, mask)

    def training_step(self, batch: CaptionBatch, batch_idx: int) -> Tensor:
        """Returns the batch's share of the optimizer step's mean loss, or the self-critical loss."""
        if self.critic is None:
            return super().training_step(batch, batch_idx)
        state, memory = self.start(batch)
        learned = self.critic.learn(
            self.decoder, state, memory, batch.references, self.tokenizer, self.generation.test_search
        )
        self.log_step("train/loss", learned.loss.detach(), prog_bar=True, batch_size=len(batch.examples))
        self.log_step("train/reward", learned.reward, prog_bar=True, batch_size=len(batch.examples))
        return learned.loss + self.penalty()

    def stepped_parts(self) -> tuple[nn.Module, ...]:
        """Returns the decoder if it samples captions in training, too."""
        return (self.decoder,) if self.captions.self_critical else super().stepped_parts()

    def alignment(self, batch: CaptionBatch, row: int, text: list[str], weights: Tensor) -> RegionAlignment | None:
        """Returns the image with the attention weights of each token over its regions."""
        regions = weights.shape[1]
        if int(regions**0.5) ** 2 != regions or regions == 1 or self._data is None:
            return None
        picture = self._data.picture(self._scored_split, int(batch.examples[row]))
        pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
        return RegionAlignment(pixels.view(picture.height, picture.width, 3), text, weights.clone())

    def corpus_scores(self, generated: Sequence[GeneratedText]) -> dict[str, float]:
        """Computes BLEU-1 to 4 with and without the brevity penalty, ROUGE-L, CIDEr-D and exact matches."""
        return corpus_scores(generated)

    def report(self, rows: Sequence[GeneratedText], folder: Path) -> None:
        """Writes written.txt, captions.md and gallery.html."""
        super().report(rows, folder)
        words = [(word, count, f"{found:.1f}", f"{right:.1f}") for word, count, found, right in by_word(rows)]
        lines = ["# Test captions", "", f"Tokens: {TOKENIZATION}.", ""]
        lines += table(("word", "images", "recall %", "precision %"), words)
        write_text(folder / "captions.md", "\n".join(lines))
        if self._data is not None and self.captions.gallery:
            write_gallery(folder / "gallery.html", rows, self._data, self._scored_split, self.captions.gallery)

    @property
    def _data(self) -> CaptionData | None:
        return self.data if isinstance(self.data, CaptionData) else None

    @property
    def _scored_split(self) -> str:
        """The split that is being scored."""
        testing = self.trainer.testing and self._data is not None
        return self._data.evaluated_split if testing and self._data is not None else "validation"
