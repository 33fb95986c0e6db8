"""Captioning: the encoder sees an image, the decoder writes a sentence about it."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unrolled import CaptionCodec, DecoderState, EncoderDecoder, ImageEncoder, doubly_stochastic_loss
from unrolled.state import select
from unrolled.training.callbacks.alignments import RegionAlignment
from unrolled.training.console.markdown import table
from unrolled.training.console.outputs import write_text
from unrolled.training.data.base import DataError, SequenceData
from unrolled.training.tasks.schedules import Schedule
from unrolled.training.tasks.seq2seq import HardOptions, SearchOptions, Seq2SeqTask, Written
from unrolled_tasks.captioning.critic import SelfCritic
from unrolled_tasks.captioning.data import CaptionBatch, CaptionData
from unrolled_tasks.captioning.gallery import write_gallery
from unrolled_tasks.captioning.pretrained import load_trunk
from unrolled_tasks.captioning.scores import TOKENIZATION, by_word, corpus_scores

_log = logging.getLogger(__name__)


class Captioning(Seq2SeqTask):
    """An image in, a sentence out (Vinyals et al. 2015; Xu et al. 2015).

    Args:
        network: description of an `EncoderDecoder` with an `ImageEncoder`; see `Seq2SeqTask` for the next three.
        codec: writes captions, and carries the image's transform.
        optimizer: a partial that takes parameter groups.
        schedule: how the learning rate moves.
        pretrained: weights of the trunk: "own" asks the trunk for those that it brings along, a path names a file with
            a state dict; None draws them at random.
        unfreeze_at_step: the step from which the trunk learns too; None: never.
        trunk_lr: its own learning rate; None: that of the rest.
        doubly_stochastic: weight of Xu et al.'s regularizer, eq. 14.
        self_critical: train on CIDEr-D of sampled captions instead of on the references (Rennie et al. 2017).
        critic: options of `SelfCritic`: samples, baseline, bleu.
        gallery: images on the page gallery.html at most.
        options: those of `Seq2SeqTask`.

    Raises:
        ValueError: a step below 0, a learning rate that nothing uses, a negative weight, a network that sees no images;
            what `Seq2SeqTask` refuses.
    """

    codec: CaptionCodec  # pyright: ignore[reportIncompatibleVariableOverride]  # as the network
    network: EncoderDecoder  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, never assigned another

    files: ClassVar[Mapping[str, str]] = {
        **Seq2SeqTask.files,
        "captions.md": "scores, and what was found word by word",
        "gallery.html": "images, captions and scores, the worst first",
        "alignments": "what each word looked at",
    }

    def __init__(
        self,
        network: Mapping[str, Any],
        codec: CaptionCodec,
        optimizer: Callable[[Iterable[Any]], Optimizer] | None,
        schedule: Schedule | None = None,
        *,
        pretrained: str | None = None,
        unfreeze_at_step: int | None = None,
        trunk_lr: float | None = None,
        doubly_stochastic: float = 0.0,
        self_critical: bool = False,
        critic: Annotated[Mapping[str, Any], SelfCritic] | None = None,
        gallery: int = 200,
        l1: float = 0.0,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        scheduled_sampling: float = 0.0,
        hard: HardOptions | None = None,
        search: SearchOptions | None = None,
        validation_num_beams: int = 1,
        num_samples: int = 6,
    ) -> None:
        super().__init__(
            network,
            codec,
            optimizer,
            schedule,
            l1=l1,
            l2=l2,
            label_smoothing=label_smoothing,
            scheduled_sampling=scheduled_sampling,
            hard=hard,
            search=search,
            validation_num_beams=validation_num_beams,
            num_samples=num_samples,
        )
        if not isinstance(getattr(self.network, "encoder", None), ImageEncoder):
            raise ValueError("captioning wants an EncoderDecoder whose encoder is an ImageEncoder")
        if not 0 <= doubly_stochastic < float("inf") or gallery < 0:
            raise ValueError(f"doubly_stochastic={doubly_stochastic} and gallery={gallery} are 0 or more")
        if doubly_stochastic > 0 and not self.decoder.attends:
            raise ValueError(f"doubly_stochastic={doubly_stochastic} weighs attention, and this network has none")
        if unfreeze_at_step is not None and unfreeze_at_step < 0:
            raise ValueError(
                f"unfreeze_at_step={unfreeze_at_step}: a step, 0 or more, or null to leave the trunk as it is"
            )
        if trunk_lr is not None and (unfreeze_at_step is None or not 0 < trunk_lr < float("inf")):
            raise ValueError(
                f"trunk_lr={trunk_lr}: above 0, and with unfreeze_at_step, the step from which the trunk learns"
            )
        self.pretrained, self.unfreeze_at_step, self.trunk_lr = pretrained, unfreeze_at_step, trunk_lr
        self.doubly_stochastic, self.gallery = doubly_stochastic, gallery
        self.self_critical = self_critical
        self.critic: SelfCritic | None = None
        self._critic = dict(critic or {})
        if self_critical:
            SelfCritic((), **self._critic)  # refuses what makes no sense before anything is prepared
        self.notes["tokens"] = TOKENIZATION
        self._let_trunk_learn(unfreeze_at_step == 0)

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Write captions."""
        return (
            f"python -m unrolled caption {checkpoint} {self.example()}",
            f"# images of yours: python -m unrolled caption {checkpoint} IMAGE …",
        )

    def attach(self, data: SequenceData) -> None:
        """See `SequenceTask.attach`."""
        if isinstance(data, CaptionData) and data.features == "cached" and self.unfreeze_at_step is not None:
            raise DataError(
                f"data.features=cached keeps the features of a trunk that stays as it is, and this one is trained from "
                f"task.unfreeze_at_step={self.unfreeze_at_step}; leave one of the two out"
            )
        super().attach(data)

    @property
    def trunk(self) -> nn.Module:
        """The split of the network that sees."""
        encoder: Any = self.network.encoder
        return encoder.trunk

    def load_pretrained(self) -> None:
        """Gives the trunk its weights, in a run that begins anew."""
        if self.pretrained is not None:
            load_trunk(self.trunk, self.pretrained)
        elif self.unfreeze_at_step is None:
            _log.warning(
                "task.unfreeze_at_step=null and task.pretrained=null: the trunk stays as it was drawn at random; "
                "task.pretrained=own or a file gives it weights"
            )

    def learning_rates(self) -> Sequence[tuple[Iterable[nn.Parameter], dict[str, Any]]]:
        """The trunk's learning rate apart from that of all the rest."""
        trunk = list(self.trunk.parameters()) if self.unfreeze_at_step is not None else []
        those = set(map(id, self.trunk.parameters()))
        rest = [p for p in self.network.parameters() if p.requires_grad and id(p) not in those]
        return [(rest, {}), (trunk, {} if self.trunk_lr is None else {"lr": self.trunk_lr})]

    def on_fit_start(self) -> None:
        """Refuses what cannot go together before anything is trained, and makes the critic."""
        if self.self_critical:
            if self._data is None:
                raise ValueError("task.self_critical=true scores samples by the references of CaptionData")
            self.critic = SelfCritic(self._data.references("train"), **self._critic)
        if self.unfreeze_at_step and self.trainer.world_size > 1:
            raise ValueError(
                f"task.unfreeze_at_step={self.unfreeze_at_step}: several processes agree at the start on what is "
                "trained; take 0, or start a second run from this one's weights with init_from"
            )
        super().on_fit_start()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Lets the trunk learn from its step on; until then its batch norms stay what they are, too."""
        super().on_train_batch_start(batch, batch_idx)
        learns = self.unfreeze_at_step is not None and self.trainer.global_step >= self.unfreeze_at_step
        if learns:
            self._let_trunk_learn(True)
        self.trunk.train(learns)

    def _let_trunk_learn(self, learns: bool) -> None:
        for parameter in self.trunk.parameters():
            parameter.requires_grad_(learns)

    def start(self, batch: CaptionBatch) -> tuple[DecoderState, Any]:
        """Looks at the images."""
        return self.network.start(batch.images)

    def for_texts(self, batch: CaptionBatch, state: DecoderState, memory: Any) -> tuple[DecoderState, Any]:
        """State and memory of its image for each caption."""
        return select(state, batch.rows), select(memory, batch.rows)

    def source_lengths(self, batch: CaptionBatch) -> Tensor:
        """An image bounds no text: as if it had no length, so that max_extra alone does."""
        return torch.zeros(len(batch.examples), dtype=torch.long, device=batch.inputs.device)

    def describe(self, batch: CaptionBatch, row: int) -> tuple[str, tuple[str, ...], str]:
        """Where the image stands, and its captions by people."""
        return batch.places[row], batch.references[row], ""

    def attention_loss(self, weights: Tensor, mask: Tensor) -> Tensor | float:
        """Xu et al.'s regularizer beside what every writer has."""
        own = self.doubly_stochastic * doubly_stochastic_loss(weights, mask).total if self.doubly_stochastic else 0.0
        return own + super().attention_loss(weights, mask)

    def training_step(self, batch: CaptionBatch, batch_idx: int) -> Tensor:
        """The batch's share of the optimizer step's mean loss; self-critical, of minus the reward."""
        if self.critic is None:
            return super().training_step(batch, batch_idx)
        state, memory = self.start(batch)
        learned = self.critic.learn(self.decoder, state, memory, batch.references, self.target_codec, self.search)
        self.log_step("train/loss", learned.loss.detach(), prog_bar=True, batch_size=len(batch.examples))
        self.log_step("train/reward", learned.reward, prog_bar=True, batch_size=len(batch.examples))
        return learned.loss + self.penalty()

    def alignment(self, batch: CaptionBatch, row: int, text: list[str], weights: Tensor) -> RegionAlignment | None:
        """The image, and how much each word looked at its regions."""
        regions = weights.shape[1]
        if int(regions**0.5) ** 2 != regions or regions == 1 or self._data is None:
            return None
        picture = self._data.picture(self._part, int(batch.examples[row]))
        pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
        return RegionAlignment(pixels.view(picture.height, picture.width, 3), text, weights.clone())

    def scores(self, written: Sequence[Written]) -> dict[str, float]:
        """BLEU-1 to 4 with and without the brevity penalty, ROUGE-L, CIDEr-D, exact matches."""
        return corpus_scores(written)

    def report(self, written: Sequence[Written], folder: Path) -> None:
        """written.txt, captions.md and gallery.html."""
        super().report(written, folder)
        words = [(word, count, f"{found:.1f}", f"{right:.1f}") for word, count, found, right in by_word(written)]
        lines = ["# Test captions", "", f"Tokens: {TOKENIZATION}.", ""]
        lines += table(("word", "references with it", "found %", "right %"), words)
        write_text(folder / "captions.md", "\n".join(lines))
        if self._data is not None and self.gallery:
            write_gallery(folder / "gallery.html", written, self._data, self._part, self.gallery)

    @property
    def _data(self) -> CaptionData | None:
        return self.data if isinstance(self.data, CaptionData) else None

    @property
    def _part(self) -> str:
        """The split that is being scored."""
        testing = self.trainer.testing and self._data is not None
        return self._data.evaluated_split if testing and self._data is not None else "validation"
