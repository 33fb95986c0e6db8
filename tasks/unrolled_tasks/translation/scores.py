"""Scores of translations, by sacrebleu itself, so that they mean what others' numbers mean."""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version

from unrolled.training.tasks.seq2seq import Written

try:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacremoses import MosesPunctNormalizer, MosesTokenizer
    from sacremoses.corpus import NonbreakingPrefixes
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("for translation: pip install 'unrolled[text]'", name=missing.name) from None

_log = logging.getLogger(__name__)
_UNSPACED = ("ja", "ko", "cjk")  # for which Moses has rules, but no list of abbreviations


def corpus_scores(written: Sequence[Written], language: str) -> tuple[dict[str, float], dict[str, str]]:
    """Scores in percent, and the signatures that say how they were made.

    `bleu` is cased, on detokenized text with sacrebleu's 13a tokens (Post 2018); `bleu_lowercase` is the same on
    lower-cased text. `bleu_moses` is what older papers report: BLEU on lower-cased text with the punctuation and the
    tokens of the Moses scripts (Koehn et al. 2007). `exact` is the share of texts that equal a reference.

    Args:
        written: texts beside their references.
        language: of the texts, see `moses_language`: abbreviations and apostrophes depend on it.
    """
    if not written:
        return {}, {}
    texts = [item.text for item in written]
    references = _columns([item.references for item in written])
    metrics = {"bleu": BLEU(), "bleu_lowercase": BLEU(lowercase=True), "chrf": CHRF()}
    numbers = {name: metric.corpus_score(texts, references).score for name, metric in metrics.items()}
    signatures = {name: str(metric.get_signature()) for name, metric in metrics.items()}
    numbers["bleu_moses"], signatures["bleu_moses"] = _moses_score(texts, references, moses_language(language))
    numbers["exact"] = _exact(written)
    return numbers, signatures


@lru_cache
def moses_language(language: str) -> str:
    """The code under which the Moses scripts know a language.

    One that they don't know is read with the rules for English, and logged so, once.

    Args:
        language: a code such as "de" or "de_CH", or an English name such as "german".
    """
    known: dict[str, str] = NonbreakingPrefixes().available_langs
    code = re.split("[-_]", language.lower())[0]
    if code in known or code in _UNSPACED:
        return known.get(code, code)
    _log.warning(
        "the Moses scripts know no language %r, so bleu_moses counts words by the rules for English; "
        "task.language=de or another code names the language that is written",
        language,
    )
    return "en"


def _moses_score(texts: Sequence[str], references: Sequence[Sequence[str]], language: str) -> tuple[float, str]:
    metric = BLEU(tokenize="none", force=True)  # force: no warning that the text is tokenized, which it is on purpose
    tokenized = [[_moses(text, language) for text in column] for column in (texts, *references)]
    score = metric.corpus_score(tokenized[0], tokenized[1:]).score
    said = str(metric.get_signature()).replace("case:mixed", "case:lc")
    return score, f"{said.replace('tok:none', f'tok:moses-{language}')}|sacremoses:{version('sacremoses')}"


@lru_cache(maxsize=50_000)  # references come again at every validation
def _moses(text: str, language: str) -> str:
    normalizer, tokenizer = _scripts(language)
    return " ".join(tokenizer.tokenize(normalizer.normalize(text.lower()), escape=False))


@lru_cache
def _scripts(language: str) -> tuple[MosesPunctNormalizer, MosesTokenizer]:
    return MosesPunctNormalizer(lang=language), MosesTokenizer(lang=language)


def sentence_score(item: Written) -> float:
    """ChrF of one sentence, by which the worst are found: unlike BLEU it is smooth on short ones."""
    return CHRF().sentence_score(item.text, list(item.references)).score


def by_length(written: Sequence[Written]) -> list[tuple[str, int, float]]:
    """(words of the source, sentences, BLEU) for classes of source lengths."""
    borders = (5, 10, 15, 20, 30, 40)

    def length_class(item: Written) -> str:
        words = len(item.source.split())
        above = next((border for border in borders if words <= border), None)
        below = max([0, *(border for border in borders if border < words)])
        return f"{below + 1}–{above}" if above else f"over {borders[-1]}"

    rows = _grouped(written, length_class)
    return sorted(rows, key=lambda row: (row[0].startswith("over"), int(row[0].split("–")[0].split()[-1])))


def by_kind(written: Sequence[Written]) -> list[tuple[str, int, float, float]]:
    """(kind, phrases, chrF, share that equals the reference in percent) where examples have kinds.

    Not BLEU, which is 0 where no four words in a row are right: most phrases have fewer.
    """
    groups: dict[str, list[Written]] = defaultdict(list)
    for item in written:
        if item.kind:
            groups[item.kind].append(item)
    return [(kind, len(items), _chrf(items), _exact(items)) for kind, items in sorted(groups.items())]


def _grouped(written: Sequence[Written], key: Callable[[Written], str]) -> list[tuple[str, int, float]]:
    groups: dict[str, list[Written]] = defaultdict(list)
    for item in written:
        groups[key(item)].append(item)
    return [(name, len(items), _bleu(items)) for name, items in groups.items()]


def _bleu(written: Sequence[Written]) -> float:
    return BLEU().corpus_score([item.text for item in written], _columns([item.references for item in written])).score


def _chrf(written: Sequence[Written]) -> float:
    return CHRF().corpus_score([item.text for item in written], _columns([item.references for item in written])).score


def _exact(written: Sequence[Written]) -> float:
    return 100.0 * sum(item.text in item.references for item in written) / len(written)


def _columns(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """Sacrebleu's layout: each sentence's first reference, then the second, …; a shorter list repeats its last."""
    most = max(len(row) for row in references)
    return [[row[min(index, len(row) - 1)] for row in references] for index in range(most)]
