"""Scores of captions: BLEU, ROUGE-L and CIDEr-D with several references, in plain Python, without Java.

All are computed on `tokens`, so that they depend on no tokenizer of elsewhere. METEOR and SPICE are left to outside
tools: written.txt holds a caption a line.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from unrolled.training.tasks.seq2seq import Written

try:
    from sacrebleu.metrics.bleu import BLEU
except ModuleNotFoundError:
    raise ModuleNotFoundError("for captioning: pip install 'unrolled[vision]'", name="sacrebleu") from None

_SENTENCE_BLEU = BLEU(tokenize="none", smooth_method="exp", effective_order=True)
_WORD = re.compile(r"\w+(?:-\w+)*|'\w+")
_ORDER = 4  # the longest n-grams that count
_SIGMA = 6.0  # CIDEr-D's tolerance for lengths
_BETA = 1.2  # ROUGE-L's weight of recall

NGrams = list[dict[tuple[str, ...], float]]  # for n = 1 … 4

TOKENIZATION = r"lower case, words \w+(-\w+)* and '\w+, all other signs left out"


def tokens(text: str) -> list[str]:
    """The words of a caption in lower case, without punctuation: "A man's t-shirt." -> a man 's t-shirt."""
    return _WORD.findall(text.lower())


def corpus_scores(written: Sequence[Written]) -> dict[str, float]:
    """BLEU-1 to 4 with and without the brevity penalty, ROUGE-L, and the share of exact matches in percent; CIDEr-D.

    BLEU is that of the whole corpus, against the reference nearest in length, without smoothing. CIDEr-D's document
    frequencies are those of these references, and it is given as the mean of 10 times a cosine, as its paper does.
    """
    if not written:
        return {}
    texts = [tokens(item.text) for item in written]
    references = [[tokens(reference) for reference in item.references] for item in written]
    numbers = bleu(texts, references)
    numbers["rouge_l"] = 100.0 * sum(map(rouge_l, texts, references)) / len(texts)
    numbers["cider_d"] = sum(caption_scores(written)) / len(texts)
    exact = sum(text in several for text, several in zip(texts, references, strict=True))
    return {**numbers, "exact": 100.0 * exact / len(texts)}


def caption_scores(written: Sequence[Written]) -> list[float]:
    """CIDEr-D of each text, from 0 to 10."""
    references = [[tokens(reference) for reference in item.references] for item in written]
    return list(map(CiderD(references).score, [tokens(item.text) for item in written], references))


def bleu(texts: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> dict[str, float]:
    """`bleu1` to `bleu4` in percent; `bleu1_unpenalised` to `bleu4_unpenalised` without the brevity penalty."""
    lines = [" ".join(text) for text in texts]
    columns = [
        [" ".join(several[min(index, len(several) - 1)]) for several in references]
        for index in range(max(map(len, references)))
    ]
    numbers: dict[str, float] = {}
    for order in range(1, _ORDER + 1):
        # The words are those of `tokens` already, so no tokenizer comes between.
        metric = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
        found = metric.corpus_score(lines, columns)
        numbers[f"bleu{order}"] = found.score
        numbers[f"bleu{order}_unpenalised"] = found.score / found.bp if found.bp > 0 else 0.0
    return numbers


def sentence_bleu(text: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of one text from 0 to 1, with the brevity penalty, so smoothed that it is seldom 0 (sacrebleu's "exp")."""
    return _SENTENCE_BLEU.sentence_score(" ".join(text), [" ".join(reference) for reference in references]).score / 100


def rouge_l(text: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L from 0 to 1: F with β = 1.2 of the best precision and the best recall (Lin 2004, as in coco-caption)."""
    common = [_longest_common(text, reference) for reference in references]
    precision = max(length / len(text) if text else 0.0 for length in common)
    recall = max(length / len(r) if r else 0.0 for length, r in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for index, theirs in enumerate(other, start=1):
            above = row[index]
            row[index] = before + 1 if word == theirs else max(above, row[index - 1])
            before = above
    return row[-1]


class CiderD:
    """CIDEr-D (Vedantam, Zitnick & Parikh 2015, "CIDEr: Consensus-based Image Description Evaluation", section 6).

        CIDEr-D_n = 10/m Σ_j exp(−(l(c) − l(s_j))² / 2σ²) · min(g(c), g(s_j)) · g(s_j) / (‖g(c)‖ ‖g(s_j)‖)

    with σ = 6, g the n-grams weighed by tf-idf, and the mean over n = 1 … 4. An n-gram's document frequency is the
    number of images with it in any reference. Words count as they stand, without stemming. As in the authors' code,
    lengths are those of the tf of bigrams, and tf is a count.

    Args:
        references: for each image of the corpus, its references as words: what is frequent is decided here.
    """

    def __init__(self, references: Iterable[Sequence[Sequence[str]]]) -> None:
        self._frequency: Counter[tuple[str, ...]] = Counter()
        images = 0
        for several in references:
            images += 1
            self._frequency.update({gram for reference in several for gram in _counts(reference)})
        self._log_images = math.log(max(images, 1))
        self._prepared: dict[tuple[str, ...], tuple[NGrams, list[float], int]] = {}

    def score(self, text: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """The score of one text, from 0 to 10."""
        hypothesis = self._vectors(text)
        similarities = [self._similarity(hypothesis, self._remembered(tuple(reference))) for reference in references]
        return 10.0 * sum(similarities) / max(len(similarities), 1)

    def _remembered(self, reference: tuple[str, ...]) -> tuple[NGrams, list[float], int]:
        if reference not in self._prepared:
            self._prepared[reference] = self._vectors(reference)
        return self._prepared[reference]

    def _vectors(self, words: Sequence[str]) -> tuple[NGrams, list[float], int]:
        vectors: NGrams = [{} for _ in range(_ORDER)]
        for gram, count in _counts(words).items():
            rarity = self._log_images - math.log(max(1, self._frequency[gram]))
            vectors[len(gram) - 1][gram] = count * rarity
        norms = [math.sqrt(sum(weight * weight for weight in vector.values())) for vector in vectors]
        return vectors, norms, max(len(words) - 1, 0)

    def _similarity(self, one: tuple[NGrams, list[float], int], other: tuple[NGrams, list[float], int]) -> float:
        penalty = math.exp(-((one[2] - other[2]) ** 2) / (2 * _SIGMA**2))
        total = 0.0
        for mine, theirs, norm, other_norm in zip(one[0], other[0], one[1], other[1], strict=True):
            if norm > 0 and other_norm > 0:
                shared = sum(
                    min(weight, theirs[gram]) * theirs[gram] for gram, weight in mine.items() if gram in theirs
                )
                total += shared / (norm * other_norm)
        return penalty * total / _ORDER


def _counts(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    """All n-grams of 1 to 4 words."""
    words = tuple(words)
    return Counter(words[i : i + n] for n in range(1, _ORDER + 1) for i in range(len(words) - n + 1))


def by_word(written: Sequence[Written], most: int = 100) -> list[tuple[str, int, float, float]]:
    """(word, references with it, recall, precision in percent) for the most frequent words of the references.

    A word is found where the text about the same image has it too; a text is right to have it where any reference has.
    """
    wanted: Counter[str] = Counter()
    said: Counter[str] = Counter()
    both: Counter[str] = Counter()
    for item in written:
        there = {word for reference in item.references for word in tokens(reference)}
        mine = set(tokens(item.text))
        wanted.update(there)
        said.update(mine)
        both.update(there & mine)
    return [
        (word, count, 100.0 * both[word] / count, 100.0 * both[word] / said[word] if said[word] else 0.0)
        for word, count in sorted(wanted.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    ]
