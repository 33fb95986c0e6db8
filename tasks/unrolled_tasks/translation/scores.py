"""Metrics of translations, computed by sacrebleu, so that they are comparable with published results."""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version

from torch import Tensor
from torchmetrics.functional.text import edit_distance, word_error_rate

from unrolled.processing.text.tagged import TAB
from unrolled.training.tasks.seq2seq import GeneratedText

try:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacremoses import MosesPunctNormalizer, MosesTokenizer
    from sacremoses.corpus import NonbreakingPrefixes
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("for translation: pip install 'unrolled[text]'", name=missing.name) from None

_log = logging.getLogger(__name__)
_UNSPACED = ("ja", "ko", "cjk")  # languages for which Moses has rules, but no list of abbreviations


def word_scores(generated: Sequence[GeneratedText], target_type: str) -> dict[str, float]:
    """Computes scores of generated words, each beside the nearest of its references.

    For "phonemes", `phoneme_error_rate` is the percentage of wrong, missing and superfluous phonemes, of those of the
    references, and `word_error_rate` that of words which equal no reference. For a "form", `word_accuracy` is the
    percentage of words that equal a reference, and `edit_distance` the mean number of wrong, missing and superfluous
    characters. `chrf` is that of `corpus_scores`.

    Args:
        generated: generated words with their references.
        target_type: "phonemes" or "form".
    """
    if not generated:
        return {}
    texts = [item.text for item in generated]
    if target_type == "form":
        nearest = [_nearest(item, edit_distance) for item in generated]
        numbers = {"word_accuracy": _exact(generated), "edit_distance": float(edit_distance(texts, nearest))}
    else:
        nearest = [_nearest(item, _wrong_symbols) for item in generated]
        rate = float(word_error_rate(texts, nearest))  # torchmetrics calls everything between blanks a word
        numbers = {"phoneme_error_rate": 100 * rate, "word_error_rate": 100 - _exact(generated)}
    return {**numbers, "chrf": _chrf(generated)}


def _nearest(item: GeneratedText, distance: Callable[[str, str], Tensor]) -> str:
    if len(item.references) == 1 or item.text in item.references:
        return item.text if item.text in item.references else item.references[0]
    return min(item.references, key=lambda reference: float(distance(item.text, reference)))


def _wrong_symbols(text: str, reference: str) -> Tensor:
    return word_error_rate(text, reference) * len(reference.split())


def corpus_scores(generated: Sequence[GeneratedText], language: str) -> tuple[dict[str, float], dict[str, str]]:
    """Computes corpus scores in percent and their sacrebleu signatures.

    `bleu` is cased, on detokenized text with sacrebleu's 13a tokens (Post 2018); `bleu_lowercase` is the same on
    lower-cased text. `bleu_moses` is the BLEU of older papers: on lower-cased text, with the punctuation and the tokens
    of the Moses scripts (Koehn et al. 2007). `exact` is the percentage of texts that equal a reference.

    Args:
        generated: generated texts with their references.
        language: language of the texts, see `moses_language`; abbreviations and apostrophes depend on it.

    Returns:
        The scores and the signatures, by name.
    """
    if not generated:
        return {}, {}
    texts = [item.text for item in generated]
    references = _columns([item.references for item in generated])
    metrics = {"bleu": BLEU(), "bleu_lowercase": BLEU(lowercase=True), "chrf": CHRF()}
    numbers = {name: metric.corpus_score(texts, references).score for name, metric in metrics.items()}
    signatures = {name: str(metric.get_signature()) for name, metric in metrics.items()}
    numbers["bleu_moses"], signatures["bleu_moses"] = _moses_score(texts, references, moses_language(language))
    numbers["exact"] = _exact(generated)
    return numbers, signatures


@lru_cache
def moses_language(language: str) -> str:
    """Returns the code of a language in the Moses scripts.

    For an unknown language it returns "en" and logs a warning.

    Args:
        language: a code such as "de" or "de_CH", or an English name such as "german".
    """
    known: dict[str, str] = NonbreakingPrefixes().available_langs
    code = re.split("[-_]", language.lower())[0]
    if code in known or code in _UNSPACED:
        return known.get(code, code)
    _log.warning(
        "the Moses scripts have no language %r, so bleu_moses uses the rules for English; set the code of the "
        "target language, such as task.language=de",
        language,
    )
    return "en"


def _moses_score(texts: Sequence[str], references: Sequence[Sequence[str]], language: str) -> tuple[float, str]:
    metric = BLEU(tokenize="none", force=True)  # force: no warning about tokenized text, which is intended here
    tokenized = [[_moses(text, language) for text in column] for column in (texts, *references)]
    score = metric.corpus_score(tokenized[0], tokenized[1:]).score
    signature = str(metric.get_signature()).replace("case:mixed", "case:lc")
    return score, f"{signature.replace('tok:none', f'tok:moses-{language}')}|sacremoses:{version('sacremoses')}"


@lru_cache(maxsize=50_000)  # references repeat in every validation
def _moses(text: str, language: str) -> str:
    normalizer, tokenizer = _scripts(language)
    return " ".join(tokenizer.tokenize(normalizer.normalize(text.lower()), escape=False))


@lru_cache
def _scripts(language: str) -> tuple[MosesPunctNormalizer, MosesTokenizer]:
    return MosesPunctNormalizer(lang=language), MosesTokenizer(lang=language)


def sentence_score(item: GeneratedText) -> float:
    """Returns the chrF of a sentence, used to rank sentences: unlike BLEU it is smooth for short ones."""
    return CHRF().sentence_score(item.text, list(item.references)).score


def by_length(generated: Sequence[GeneratedText], target_type: str = "text") -> list[tuple[str, int, float]]:
    """Returns (class, number of texts, score) for each class of source lengths.

    The length of a text is that in words, and its score is BLEU. Words are scored by letters and exact matches.
    """
    borders = (5, 10, 15, 20, 30, 40)

    def length_class(item: GeneratedText) -> str:
        size = len(item.source.split() if target_type == "text" else item.source.partition(TAB)[0])
        above = next((border for border in borders if size <= border), None)
        below = max([0, *(border for border in borders if border < size)])
        return f"{below + 1}–{above}" if above else f"over {borders[-1]}"

    groups: dict[str, list[GeneratedText]] = defaultdict(list)
    for item in generated:
        groups[length_class(item)].append(item)
    score = _bleu if target_type == "text" else _exact
    rows = [(name, len(items), score(items)) for name, items in groups.items()]
    return sorted(rows, key=lambda row: (row[0].startswith("over"), int(row[0].split("–")[0].split()[-1])))


def by_kind(generated: Sequence[GeneratedText]) -> list[tuple[str, int, float, float]]:
    """Returns (kind, phrases, chrF, percentage equal to the reference) for each kind of example.

    Most phrases have fewer than four words, for which BLEU is 0.
    """
    groups: dict[str, list[GeneratedText]] = defaultdict(list)
    for item in generated:
        if item.kind:
            groups[item.kind].append(item)
    return [(kind, len(items), _chrf(items), _exact(items)) for kind, items in sorted(groups.items())]


def _bleu(generated: Sequence[GeneratedText]) -> float:
    return (
        BLEU().corpus_score([item.text for item in generated], _columns([item.references for item in generated])).score
    )


def _chrf(generated: Sequence[GeneratedText]) -> float:
    return (
        CHRF().corpus_score([item.text for item in generated], _columns([item.references for item in generated])).score
    )


def _exact(generated: Sequence[GeneratedText]) -> float:
    return 100.0 * sum(item.text in item.references for item in generated) / len(generated)


def _columns(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """Transposes references to sacrebleu's layout: all first references, all second ones, …; the last is repeated."""
    most = max(len(row) for row in references)
    return [[row[min(index, len(row) - 1)] for row in references] for index in range(most)]
