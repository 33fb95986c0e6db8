"""Recurrent networks, unrolled through time: any cell, any depth, either direction, on torch alone.

Names load on first use, so that `import unrolled` costs nothing and a command line can be checked before torch is.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unrolled.attention import AdditiveAttention as AdditiveAttention
    from unrolled.attention import Attended as Attended
    from unrolled.attention import Attention as Attention
    from unrolled.attention import DotAttention as DotAttention
    from unrolled.attention import LocationAttention as LocationAttention
    from unrolled.attention import Memory as Memory
    from unrolled.attention import MultiplicativeAttention as MultiplicativeAttention
    from unrolled.attention import SummaryAttention as SummaryAttention
    from unrolled.attention import WeighingAttention as WeighingAttention
    from unrolled.audio import AudioFeatures as AudioFeatures
    from unrolled.cells.base import Cell as Cell
    from unrolled.cells.base import RecurrentNoise as RecurrentNoise
    from unrolled.cells.elman import ElmanCell as ElmanCell
    from unrolled.cells.gru import GRUCell as GRUCell
    from unrolled.cells.lstm import LSTMCell as LSTMCell
    from unrolled.cells.pointwise import PointwiseCell as PointwiseCell
    from unrolled.checkpoint import Bundle as Bundle
    from unrolled.checkpoint import build as build
    from unrolled.checkpoint import load_bundle as load_bundle
    from unrolled.classifier import SequenceClassifier as SequenceClassifier
    from unrolled.codecs.base import Codec as Codec
    from unrolled.codecs.labels import LabelCodec as LabelCodec
    from unrolled.codecs.labels import NumberCodec as NumberCodec
    from unrolled.codecs.pair import PairCodec as PairCodec
    from unrolled.codecs.subword import BPECodec as BPECodec
    from unrolled.codecs.subword import UnigramCodec as UnigramCodec
    from unrolled.codecs.text import ByteCodec as ByteCodec
    from unrolled.codecs.text import CharacterCodec as CharacterCodec
    from unrolled.codecs.text import SentenceCodec as SentenceCodec
    from unrolled.codecs.text import WordCodec as WordCodec
    from unrolled.decoders.attentive import AttentiveDecoder as AttentiveDecoder
    from unrolled.decoders.base import Decoded as Decoded
    from unrolled.decoders.base import Decoder as Decoder
    from unrolled.decoders.base import DecoderState as DecoderState
    from unrolled.decoders.recurrent import RecurrentDecoder as RecurrentDecoder
    from unrolled.dropout import EmbeddingDropout as EmbeddingDropout
    from unrolled.dropout import SequenceDropout as SequenceDropout
    from unrolled.dropout import TokenDropout as TokenDropout
    from unrolled.encoders import Encoded as Encoded
    from unrolled.encoders import Encoder as Encoder
    from unrolled.encoders import FeatureEncoder as FeatureEncoder
    from unrolled.encoders import RecurrentEncoder as RecurrentEncoder
    from unrolled.feedforward import FeedForward as FeedForward
    from unrolled.generation.beam import Hypotheses as Hypotheses
    from unrolled.generation.beam import beam_search as beam_search
    from unrolled.generation.ensemble import EnsembleDecoder as EnsembleDecoder
    from unrolled.generation.sampling import greedy as greedy
    from unrolled.generation.sampling import own_inputs as own_inputs
    from unrolled.generation.sampling import sample as sample
    from unrolled.losses import Loss as Loss
    from unrolled.losses import coverage_loss as coverage_loss
    from unrolled.losses import cross_entropy as cross_entropy
    from unrolled.networks import EncoderDecoder as EncoderDecoder
    from unrolled.pooling import AttentionPooling as AttentionPooling
    from unrolled.pooling import LastPooling as LastPooling
    from unrolled.pooling import MaxPooling as MaxPooling
    from unrolled.pooling import MeanPooling as MeanPooling
    from unrolled.pooling import Pooling as Pooling
    from unrolled.readers import PictureReader as PictureReader
    from unrolled.readers import SeriesReader as SeriesReader
    from unrolled.recurrent import Recurrent as Recurrent
    from unrolled.recurrent import unroll as unroll
    from unrolled.shapes import ShapeError as ShapeError
    from unrolled.shapes import expect as expect
    from unrolled.state import HiddenState as HiddenState
    from unrolled.state import LSTMState as LSTMState

_MODULE_OF = {
    "AdditiveAttention": "unrolled.attention",
    "Attended": "unrolled.attention",
    "Attention": "unrolled.attention",
    "AttentionPooling": "unrolled.pooling",
    "AttentiveDecoder": "unrolled.decoders.attentive",
    "AudioFeatures": "unrolled.audio",
    "BPECodec": "unrolled.codecs.subword",
    "Bundle": "unrolled.checkpoint",
    "ByteCodec": "unrolled.codecs.text",
    "Cell": "unrolled.cells.base",
    "CharacterCodec": "unrolled.codecs.text",
    "Codec": "unrolled.codecs.base",
    "Decoded": "unrolled.decoders.base",
    "Decoder": "unrolled.decoders.base",
    "DecoderState": "unrolled.decoders.base",
    "DotAttention": "unrolled.attention",
    "ElmanCell": "unrolled.cells.elman",
    "EmbeddingDropout": "unrolled.dropout",
    "Encoded": "unrolled.encoders",
    "Encoder": "unrolled.encoders",
    "EncoderDecoder": "unrolled.networks",
    "EnsembleDecoder": "unrolled.generation.ensemble",
    "FeatureEncoder": "unrolled.encoders",
    "FeedForward": "unrolled.feedforward",
    "GRUCell": "unrolled.cells.gru",
    "HiddenState": "unrolled.state",
    "Hypotheses": "unrolled.generation.beam",
    "LSTMCell": "unrolled.cells.lstm",
    "LSTMState": "unrolled.state",
    "LabelCodec": "unrolled.codecs.labels",
    "LastPooling": "unrolled.pooling",
    "LocationAttention": "unrolled.attention",
    "Loss": "unrolled.losses",
    "MaxPooling": "unrolled.pooling",
    "MeanPooling": "unrolled.pooling",
    "Memory": "unrolled.attention",
    "MultiplicativeAttention": "unrolled.attention",
    "NumberCodec": "unrolled.codecs.labels",
    "PairCodec": "unrolled.codecs.pair",
    "PictureReader": "unrolled.readers",
    "PointwiseCell": "unrolled.cells.pointwise",
    "Pooling": "unrolled.pooling",
    "Recurrent": "unrolled.recurrent",
    "RecurrentDecoder": "unrolled.decoders.recurrent",
    "RecurrentEncoder": "unrolled.encoders",
    "RecurrentNoise": "unrolled.cells.base",
    "SentenceCodec": "unrolled.codecs.text",
    "SequenceClassifier": "unrolled.classifier",
    "SequenceDropout": "unrolled.dropout",
    "SeriesReader": "unrolled.readers",
    "ShapeError": "unrolled.shapes",
    "SummaryAttention": "unrolled.attention",
    "TokenDropout": "unrolled.dropout",
    "UnigramCodec": "unrolled.codecs.subword",
    "WeighingAttention": "unrolled.attention",
    "WordCodec": "unrolled.codecs.text",
    "beam_search": "unrolled.generation.beam",
    "build": "unrolled.checkpoint",
    "coverage_loss": "unrolled.losses",
    "cross_entropy": "unrolled.losses",
    "expect": "unrolled.shapes",
    "greedy": "unrolled.generation.sampling",
    "load_bundle": "unrolled.checkpoint",
    "own_inputs": "unrolled.generation.sampling",
    "sample": "unrolled.generation.sampling",
    "unroll": "unrolled.recurrent",
}

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"

# A wheel carries the configuration inside the package, as unrolled/conf. In a working copy it lies at the top level,
# where people look for it; one more folder to search makes pkg://unrolled.conf mean the same in both.
_root = Path(__file__).resolve().parents[2]
if (_root / "pyproject.toml").is_file() and (_root / "conf" / "train.yaml").is_file():
    __path__.append(str(_root))


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'unrolled' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
