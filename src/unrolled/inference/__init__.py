"""A trained network at work: functions on a bundle, and their commands (python -m unrolled …)."""

from unrolled.inference.captioning import CAPTIONS as CAPTIONS
from unrolled.inference.captioning import caption as caption
from unrolled.inference.captioning import captions as captions
from unrolled.inference.classification import Prediction as Prediction
from unrolled.inference.classification import classify as classify
from unrolled.inference.listening import Listener as Listener
from unrolled.inference.sampling import sample_text as sample_text
from unrolled.inference.translation import alternatives as alternatives
from unrolled.inference.translation import translate as translate
from unrolled.inference.writing import Candidate as Candidate
from unrolled.inference.writing import Search as Search

__all__ = [
    "CAPTIONS",
    "Candidate",
    "Listener",
    "Prediction",
    "Search",
    "alternatives",
    "caption",
    "captions",
    "classify",
    "sample_text",
    "translate",
]
