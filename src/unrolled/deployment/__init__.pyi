# The public names, each with the module that defines it: __init__.py reads this file, and so do type checkers.

from unrolled.deployment.captioning import CAPTIONS as CAPTIONS
from unrolled.deployment.captioning import caption as caption
from unrolled.deployment.captioning import captions as captions
from unrolled.deployment.classification import Prediction as Prediction
from unrolled.deployment.classification import classify as classify
from unrolled.deployment.decoding import Candidate as Candidate
from unrolled.deployment.drawing import Reconstruction as Reconstruction
from unrolled.deployment.drawing import draw_images as draw_images
from unrolled.deployment.drawing import picture_of as picture_of
from unrolled.deployment.drawing import reconstruct as reconstruct
from unrolled.deployment.export.c.program import export_c as export_c
from unrolled.deployment.forecasting import AnomalyScore as AnomalyScore
from unrolled.deployment.forecasting import ForecastStep as ForecastStep
from unrolled.deployment.forecasting import anomalies as anomalies
from unrolled.deployment.forecasting import forecast as forecast
from unrolled.deployment.forecasting import read_csv_series as read_csv_series
from unrolled.deployment.handwriting import Primer as Primer
from unrolled.deployment.handwriting import Written as Written
from unrolled.deployment.handwriting import continue_strokes as continue_strokes
from unrolled.deployment.handwriting import write as write
from unrolled.deployment.inspecting.report import inspection_report as inspection_report
from unrolled.deployment.music import Composed as Composed
from unrolled.deployment.music import compose as compose
from unrolled.deployment.page import to_svg as to_svg
from unrolled.deployment.sampling import sample_text as sample_text
from unrolled.deployment.sharing.hub import from_pretrained as from_pretrained
from unrolled.deployment.sharing.hub import push_to_hub as push_to_hub
from unrolled.deployment.sharing.hub import save_pretrained as save_pretrained
from unrolled.deployment.sharing.hub import with_summary as with_summary
from unrolled.deployment.streaming.session import Session as Session
from unrolled.deployment.streaming.session import SessionPool as SessionPool
from unrolled.deployment.tagging import TaggedWord as TaggedWord
from unrolled.deployment.tagging import tag as tag
from unrolled.deployment.transcription import Transcript as Transcript
from unrolled.deployment.transcription import TranscriptSearch as TranscriptSearch
from unrolled.deployment.transcription import transcribe as transcribe
from unrolled.deployment.translation import alternatives as alternatives
from unrolled.deployment.translation import translate as translate
from unrolled.generation.search import Search as Search

__all__: list[str]
