"""Translation with an encoder-decoder network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor

from unrolled import DecoderState, EncoderDecoder, Processor, Tokenizer
from unrolled.training.configuration.flat import flat_options
from unrolled.training.console.markdown import table
from unrolled.training.console.outputs import write_text
from unrolled.training.console.terminal import echo_command
from unrolled.training.tasks.optimization import Optimization
from unrolled.training.tasks.seq2seq import GeneratedText, Seq2SeqTask
from unrolled.training.tasks.seq2seq_options import GenerationOptions, TeacherForcingOptions
from unrolled_tasks.translation.coding import TARGET_TYPES
from unrolled_tasks.translation.data import PairBatch
from unrolled_tasks.translation.scores import (
    by_kind,
    by_length,
    corpus_scores,
    moses_language,
    sentence_score,
    word_scores,
)

_WORST = 30


class Translation(Seq2SeqTask):
    """Trains an encoder-decoder network on translation (Bahdanau et al. 2015).

    Args:
        language: target language, a code such as "de" or an English name, for BLEU on the tokens of the Moses scripts.
        target_type: what is generated: "text", "phonemes" of a word, or the inflected "form" of a lemma, which are
            scored as such. See `Seq2SeqTask` for all other arguments.

    Raises:
        ValueError: an unknown target_type.
    """

    network: EncoderDecoder  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, never assigned another

    files: ClassVar[Mapping[str, str]] = {
        **Seq2SeqTask.files,
        "lengths.png": "scores by length of the source, also as lengths.csv",
        "translations.md": "scores by length and kind, and the worst translations",
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
        language: str | int = "en",
        target_type: str = "text",
    ) -> None:
        super().__init__(
            network=network,
            processor=processor,
            optimization=optimization,
            teacher_forcing=teacher_forcing,
            generation=generation,
        )
        if target_type not in TARGET_TYPES:
            raise ValueError(f"target_type={target_type!r} is one of {', '.join(TARGET_TYPES)}")
        self.target_type = target_type
        self.language = moses_language(str(language)) if target_type == "text" else ""

    def commands(self, checkpoint: str) -> Sequence[str]:
        """Returns commands that translate."""
        return (
            f"{echo_command(self.example() or 'a sentence')} | python -m unrolled translate {checkpoint}",
            f"# a file, line by line: python -m unrolled translate {checkpoint} < FILE > TRANSLATED",
        )

    def start(self, batch: PairBatch) -> tuple[DecoderState, Any]:
        """Encodes the sources."""
        return self.network.start(batch.source, batch.source_lengths)

    def source_lengths(self, batch: PairBatch) -> Tensor:
        """Returns the numbers of tokens of the sources."""
        return batch.source_lengths

    def describe(self, batch: PairBatch, row: int) -> tuple[str, tuple[str, ...], str]:
        """Returns the sentence, its reference translations, and the kind of phrase."""
        kind = batch.kinds[row] if batch.kinds else ""
        others = batch.other_texts[row] if batch.other_texts else ()
        return batch.source_text[row], (batch.target_text[row], *others), kind

    def source_symbols(self, batch: PairBatch, row: int) -> list[str]:
        """Returns the source's tokens, for the axis of an alignment."""
        return cast("Tokenizer", self.processor.source).symbols(
            batch.source[row, : int(batch.source_lengths[row])].tolist()
        )

    def corpus_scores(self, generated: Sequence[GeneratedText]) -> dict[str, float]:
        """Computes BLEU (cased, lower-cased, and on Moses tokens), chrF and exact matches, in percent.

        Words have the scores of `word_scores`.
        """
        if self.target_type != "text":
            return word_scores(generated, self.target_type)
        numbers, signatures = corpus_scores(generated, self.language)
        self.notes.update({f"signature {name}": signature for name, signature in signatures.items()})
        return numbers

    def report(self, rows: Sequence[GeneratedText], folder: Path) -> None:
        """Writes written.txt, lengths.csv and lengths.png, and translations.md with the worst sentences."""
        from unrolled_tasks.translation import lengths  # here, since the module also runs by `python -m`

        super().report(rows, folder)
        head = lengths.TEXT_HEAD if self.target_type == "text" else lengths.WORD_HEAD
        classes = by_length(rows, self.target_type)
        lengths.write_lengths(classes, folder, head)
        lines = ["# Test translations", "", *(f"- {name}: `{note}`" for name, note in self.notes.items()), ""]
        lines += table(head, classes)
        if kinds := by_kind(rows):
            lines += table(("kind", "phrases", "chrF", "exact %"), kinds)
        worst = sorted(((sentence_score(item), item) for item in rows), key=lambda pair: pair[0])[:_WORST]
        cells = [(f"{score:.1f}", item.source, " or ".join(item.references), item.text) for score, item in worst]
        lines += ["The worst by chrF:", "", *table(("chrF", "source", "reference", "generated"), cells)]
        write_text(folder / "translations.md", "\n".join(lines))
