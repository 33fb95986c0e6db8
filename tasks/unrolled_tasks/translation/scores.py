"""Scores of translations, by sacrebleu itself, so that they mean what others' numbers mean."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from unrolled.training.writing import Written

try:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
except ModuleNotFoundError:
    raise ModuleNotFoundError("for translation: pip install 'unrolled[text]'", name="sacrebleu") from None


def corpus_scores(written: Sequence[Written]) -> tuple[dict[str, float], dict[str, str]]:
    """Scores in percent, and the signatures that say how they were made.

    `bleu` is cased, on detokenised text with sacrebleu's 13a tokens (Post 2018). `bleu_lowercase` is the same on
    lower-cased text, the nearest to what papers before that reported on their own lower-cased tokens. `exact` is the
    share of texts that equal a reference.
    """
    if not written:
        return {}, {}
    texts = [item.text for item in written]
    references = _columns([item.references for item in written])
    metrics = {"bleu": BLEU(), "bleu_lowercase": BLEU(lowercase=True), "chrf": CHRF()}
    numbers = {name: metric.corpus_score(texts, references).score for name, metric in metrics.items()}
    numbers["exact"] = 100.0 * sum(item.text in item.references for item in written) / len(written)
    return numbers, {name: str(metric.get_signature()) for name, metric in metrics.items()}


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
    scores = {kind: corpus_scores(items)[0] for kind, items in sorted(groups.items())}
    return [(kind, len(groups[kind]), found["chrf"], found["exact"]) for kind, found in scores.items()]


def _grouped(written: Sequence[Written], key: Callable[[Written], str]) -> list[tuple[str, int, float]]:
    groups: dict[str, list[Written]] = defaultdict(list)
    for item in written:
        groups[key(item)].append(item)
    return [(name, len(items), corpus_scores(items)[0]["bleu"]) for name, items in groups.items()]


def _columns(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """Sacrebleu's layout: each sentence's first reference, then the second, …; a shorter list repeats its last."""
    most = max(len(row) for row in references)
    return [[row[min(index, len(row) - 1)] for row in references] for index in range(most)]
