"""A trained network at work: functions on a bundle, and their commands (python -m unrolled …)."""

from unrolled.deployment.captioning import CAPTIONS as CAPTIONS
from unrolled.deployment.captioning import caption as caption
from unrolled.deployment.captioning import captions as captions
from unrolled.deployment.classification import Prediction as Prediction
from unrolled.deployment.classification import classify as classify
from unrolled.deployment.listening import Listener as Listener
from unrolled.deployment.sampling import sample_text as sample_text
from unrolled.deployment.translation import alternatives as alternatives
from unrolled.deployment.translation import translate as translate
from unrolled.deployment.writing import Candidate as Candidate
from unrolled.generation.search import Search as Search

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
