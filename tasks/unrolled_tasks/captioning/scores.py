"""Metrics of captions with several references: BLEU, ROUGE-L and CIDEr-D, without Java.

All are computed on the words of `tokens`. For METEOR and SPICE, which need other tools, written.txt contains one
caption per line.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from unrolled.training.tasks.seq2seq import GeneratedText

try:
    from sacrebleu.metrics.bleu import BLEU
except ModuleNotFoundError:
    raise ModuleNotFoundError("for captioning: pip install 'unrolled[vision]'", name="sacrebleu") from None

_SENTENCE_BLEU = BLEU(tokenize="none", smooth_method="exp", effective_order=True)
_WORD = re.compile(r"\w+(?:-\w+)*|'\w+")
_ORDER = 4  # maximum n of n-grams
_SIGMA = 6.0  # of CIDEr-D's length penalty
_BETA = 1.2  # of ROUGE-L's F score

NGrams = list[dict[tuple[str, ...], float]]  # for n = 1 … 4

TOKENIZATION = r"lower case, words \w+(-\w+)* and '\w+, all other signs left out"


def tokens(text: str) -> list[str]:
    """Returns the words of a caption in lower case, without punctuation: "A man's t-shirt." -> a man 's t-shirt."""
    return _WORD.findall(text.lower())


def corpus_scores(generated: Sequence[GeneratedText]) -> dict[str, float]:
    """Computes BLEU-1 to 4 with and without the brevity penalty, ROUGE-L and exact matches in percent, and CIDEr-D.

    BLEU is computed over the whole corpus, with the reference of the nearest length, without smoothing. CIDEr-D uses
    the document frequencies of these references. Its scale is 10 times a cosine similarity, as in its paper.
    """
    if not generated:
        return {}
    texts = [tokens(item.text) for item in generated]
    references = [[tokens(reference) for reference in item.references] for item in generated]
    numbers = bleu(texts, references)
    numbers["rouge_l"] = 100.0 * sum(map(rouge_l, texts, references)) / len(texts)
    numbers["cider_d"] = sum(caption_scores(generated)) / len(texts)
    exact = sum(text in several for text, several in zip(texts, references, strict=True))
    return {**numbers, "exact": 100.0 * exact / len(texts)}


def caption_scores(generated: Sequence[GeneratedText]) -> list[float]:
    """Returns the CIDEr-D of each text, from 0 to 10."""
    references = [[tokens(reference) for reference in item.references] for item in generated]
    return list(map(CiderD(references).score, [tokens(item.text) for item in generated], references))


def bleu(texts: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> dict[str, float]:
    """Returns `bleu1` to `bleu4` in percent, and `bleu1_unpenalised` to `bleu4_unpenalised` without brevity penalty."""
    lines = [" ".join(text) for text in texts]
    columns = [
        [" ".join(several[min(index, len(several) - 1)]) for several in references]
        for index in range(max(map(len, references)))
    ]
    numbers: dict[str, float] = {}
    for order in range(1, _ORDER + 1):
        # The text is already tokenized by `tokens`.
        metric = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
        found = metric.corpus_score(lines, columns)
        numbers[f"bleu{order}"] = found.score
        numbers[f"bleu{order}_unpenalised"] = found.score / found.bp if found.bp > 0 else 0.0
    return numbers


def sentence_bleu(text: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns the smoothed BLEU-4 of one text from 0 to 1, with the brevity penalty (sacrebleu's "exp" smoothing)."""
    return _SENTENCE_BLEU.sentence_score(" ".join(text), [" ".join(reference) for reference in references]).score / 100


def rouge_l(text: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns ROUGE-L from 0 to 1: F score (β = 1.2) of the best precision and recall (Lin 2004; coco-caption)."""
    common = [_longest_common(text, reference) for reference in references]
    precision = max(length / len(text) if text else 0.0 for length in common)
    recall = max(length / len(r) if r else 0.0 for length, r in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence."""
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

    with σ = 6, tf-idf vectors g of n-grams, and the mean over n = 1 … 4. An n-gram's document frequency is the number
    of images with it in any reference. Words are not stemmed. As in the authors' code, lengths are numbers of bigrams,
    and tf is a count.

    Args:
        references: the references of each image as words, from which the document frequencies are computed.
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
        """Returns the score of one text, from 0 to 10."""
        hypothesis = self._vectors(text)
        similarities = [self._similarity(hypothesis, self._cached_vectors(tuple(r))) for r in references]
        return 10.0 * sum(similarities) / max(len(similarities), 1)

    def _cached_vectors(self, reference: tuple[str, ...]) -> tuple[NGrams, list[float], int]:
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
    """Counts the n-grams of 1 to 4 words."""
    words = tuple(words)
    return Counter(words[i : i + n] for n in range(1, _ORDER + 1) for i in range(len(words) - n + 1))


def by_word(generated: Sequence[GeneratedText], most: int = 100) -> list[tuple[str, int, float, float]]:
    """Returns (word, images, recall, precision in percent) for the most frequent words of the references.

    A word of an image's references counts as recalled if the generated text contains it. A generated word counts as
    precise if any reference of the image contains it.
    """
    expected: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    both: Counter[str] = Counter()
    for item in generated:
        in_references = {word for reference in item.references for word in tokens(reference)}
        in_text = set(tokens(item.text))
        expected.update(in_references)
        predicted.update(in_text)
        both.update(in_references & in_text)
    return [
        (word, count, 100.0 * both[word] / count, 100.0 * both[word] / predicted[word] if predicted[word] else 0.0)
        for word, count in sorted(expected.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    ]
