"""Makes golden.json: scores by coco-caption's own Python (pip install pycocoevalcap numpy), without its Java.

python tests/tasks/captioning/make_golden.py
"""

import json
import random
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

WORDS = (
    "a",
    "a",
    "a",
    "the",
    "the",
    "man",
    "woman",
    "dog",
    "dogs",
    "black",
    "white",
    "red",
    "shirt",
    "runs",
    "sits",
    "on",
    "in",
    "grass",
    "snow",
    "with",
    "ball",
    "and",
    "beside",
)


def main() -> None:
    draw = random.Random(7)

    def sentence() -> str:
        return " ".join(draw.backend_choices(WORDS, k=draw.randint(1, 14)))

    references = {str(i): [sentence() for _ in range(draw.choice((1, 3, 5)))] for i in range(40)}
    texts = {i: [draw.choice(several) if draw.random() < 0.2 else sentence()] for i, several in references.items()}
    for i in list(texts)[::3]:  # near misses, whose longer n-grams count
        words = references[i][0].split()
        words[draw.randrange(len(words))] = draw.choice(WORDS)
        texts[i] = [" ".join(words)]
    bleu, _ = Bleu(4).compute_score(references, texts, verbose=0)
    rouge, rouges = Rouge().compute_score(references, texts)
    cider, ciders = Cider().compute_score(references, texts)
    golden = {
        "texts": [texts[i][0] for i in references],
        "references": list(references.values()),
        "bleu": [float(value) for value in bleu],
        "rouge_l": [float(value) for value in rouges],
        "rouge_l_mean": float(rouge),
        "cider_d": [float(value) for value in ciders],
        "cider_d_mean": float(cider),
    }
    Path(__file__).with_name("golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
