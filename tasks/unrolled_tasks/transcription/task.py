"""Transcription with connectionist temporal classification (Graves et al. 2006)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.text import char_error_rate, edit_distance, word_error_rate

from unrolled.checkpoint import load_bundle
from unrolled.deployment.transcription import TranscriptSearch, language_model_of, search
from unrolled.generation.limits import whole
from unrolled.heads.ctc import CTCHead
from unrolled.losses import Loss
from unrolled.processing.lines import LineColumns
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Processor
from unrolled.sequences import mask_from_lengths
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.markdown import table
from unrolled.training.console.outputs import save_figure, write_rows, write_text
from unrolled.training.tasks.evaluation import Scored
from unrolled.training.tasks.optimization import Optimization
from unrolled.training.tasks.tagger import TaggerTask
from unrolled_tasks.transcription.alignment import Alignment, draw_alignments
from unrolled_tasks.transcription.data import TranscriptBatch

_DRAWN = 4  # number of examples in alignments.png
_WORST = 30  # number of transcripts in mistakes.md


class Transcribed(NamedTuple):
    """The transcript of a source."""

    example: int
    name: str
    text: str
    predicted: str
    alignment: Alignment | None  # of the first examples


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How the transcripts of a test are searched for; a validation uses greedy search.

    Attributes:
        num_beams: number of transcripts kept at each frame; 1 for greedy search.
        language_model: checkpoint of a language model whose tokens are the labels; None for none.
        lm_weight: weight of its log probability.
        insertion_bonus: added to the score for each label.

    Raises:
        ValueError: a number of beams below 1.
    """

    num_beams: int = 1
    language_model: str | None = None
    lm_weight: float = 0.5
    insertion_bonus: float = 0.0

    def __post_init__(self) -> None:
        whole(1, num_beams=self.num_beams)


class Transcription(TaggerTask):
    """Trains a network to transcribe from transcripts alone.

    Args:
        network: see `SequenceTask`.
        processor: see `SequenceTask`.
        optimization: see `SequenceTask`.
        searching: how the transcripts of a test are searched for.
    """

    files: ClassVar[Mapping[str, str]] = {
        "transcripts.csv": "the source, transcript and prediction of each example of the test",
        "alignments.png": "the probability of each label over time, for the first examples",
        "mistakes.md": "the transcripts with the most mistakes",
    }
    progress_metrics = ("cer",)

    @flat_options
    def __init__(
        self,
        network: Mapping[str, Any],
        processor: Processor,
        optimization: Optimization = Optimization(),
        searching: SearchOptions = SearchOptions(),
    ) -> None:
        super().__init__(network=network, processor=processor, optimization=optimization)
        self._search = TranscriptSearch(searching.num_beams, searching.lm_weight, searching.insertion_bonus)
        self._model = None
        if searching.language_model is not None:
            self._model = language_model_of(load_bundle(searching.language_model), self._target, searching.lm_weight)

    @property
    def _target(self) -> Tokenizer:
        return cast("Tokenizer", self.processor.target)

    def loss(self, batch: Any, loader: str) -> Loss:
        """Returns the summed negative log probabilities of the transcripts, and their number."""
        return self._loss(self.network(batch.source, batch.lengths), batch)

    def _loss(self, parameters: Tensor, batch: TranscriptBatch) -> Loss:
        frames = mask_from_lengths(batch.lengths, batch.source.shape[1])
        labels = mask_from_lengths(batch.predictions, batch.targets.shape[1])
        return cast("CTCHead", self.network.head).loss(parameters, batch.targets, frames, labels)

    def score(self, batch: TranscriptBatch, loader: str) -> Scored:
        """Returns the loss, and the transcript of each source."""
        parameters = self.network(batch.source, batch.lengths)
        options, model = (self._search, self._model) if loader == "test" else (TranscriptSearch(), None)
        if model is not None:
            model.decoder.to(parameters.device)
        found = search(cast("CTCHead", self.network.head), parameters, batch.lengths, options, model)
        rows = [
            Transcribed(
                example,
                batch.names[row],
                self._target.normalize(batch.texts[row]),
                self._target.decode(ids),
                self._alignment(batch, parameters, row) if example < _DRAWN else None,
            )
            for row, (example, ids) in enumerate(zip(batch.examples.tolist(), found, strict=True))
        ]
        return Scored({"loss": self._loss(parameters, batch)}, rows)

    def _alignment(self, batch: TranscriptBatch, parameters: Tensor, row: int) -> Alignment:
        length = int(batch.lengths[row])
        source, frames = self.processor.source, batch.source[row, :length].float().cpu()
        picture = source.picture(frames) if isinstance(source, LineColumns) else frames.T.flip(0)
        return Alignment(batch.texts[row], picture, parameters[row, :length].float().softmax(-1).cpu())

    def scores(self, means: Mapping[str, float], rows: Sequence[Transcribed]) -> dict[str, float]:
        """Returns loss, character and word error rates (of all characters and words), and the share of exact lines."""
        if not rows:
            return dict(means)
        predicted, texts = [row.predicted for row in rows], [row.text for row in rows]
        exact = sum(one == other for one, other in zip(predicted, texts, strict=True)) / len(rows)
        cer, wer = (float(rate(predicted, texts)) for rate in (char_error_rate, word_error_rate))
        return {**means, "cer": cer, "wer": wer, "exact_match": exact}

    def sample(self, generator: torch.Generator) -> str:
        """Returns the first validation transcripts, each above what the network reads."""
        rows = cast("list[Transcribed]", self.evaluation.rows[:4])
        return "\n".join(f"{row.text}\n{row.predicted}" for row in rows)

    def pictures(self, generator: torch.Generator) -> Mapping[str, Figure]:
        """Returns the probabilities of the labels over time, for the first validation examples."""
        rows = cast("list[Transcribed]", self.evaluation.rows)
        alignments = [row.alignment for row in rows if row.alignment is not None]
        return {"alignments.png": draw_alignments(alignments, self._symbols)} if alignments else {}

    @property
    def _symbols(self) -> list[str]:
        return self._target.symbols(range(self._target.size))

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns a command that transcribes."""
        return (f"python -m unrolled transcribe {checkpoint} {self.example() or 'FILE'}",)

    def report(self, rows: Sequence[Transcribed], folder: Path) -> None:
        """Writes transcripts.csv, alignments.png and mistakes.md."""
        cells = [(row.name, row.text, row.predicted) for row in rows]
        write_rows(folder / "transcripts.csv", [("source", "text", "predicted"), *cells])
        alignments = [row.alignment for row in rows if row.alignment is not None]
        save_figure(folder / "alignments.png", draw_alignments(alignments, self._symbols), dpi=110)
        edits = [int(edit_distance(row.predicted, row.text, reduction="sum")) for row in rows]
        ranked = sorted(zip(edits, rows, strict=True), key=lambda pair: (-pair[0], pair[1].example))
        worst = [(edit, row.text, row.predicted, row.name) for edit, row in ranked[:_WORST] if edit]
        page = ["# The transcripts with the most mistakes", "", *table(("edits", "text", "predicted", "source"), worst)]
        write_text(folder / "mistakes.md", "\n".join(page if worst else ["All transcripts are correct.", ""]))
