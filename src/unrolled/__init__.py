"""Recurrent networks, unrolled through time: any cell, any depth, either direction, on torch alone.

Names load on first use, so that `import unrolled` costs nothing and a command line can be checked before torch is.
"""

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
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
    from unrolled.audio.features import AudioFeatures as AudioFeatures
    from unrolled.cells.base import Cell as Cell
    from unrolled.cells.base import RecurrentNoise as RecurrentNoise
    from unrolled.cells.clockwork import ClockworkCell as ClockworkCell
    from unrolled.cells.elman import ElmanCell as ElmanCell
    from unrolled.cells.full_gate_lstm import FullGateLSTMCell as FullGateLSTMCell
    from unrolled.cells.gated_feedback import GatedFeedbackCell as GatedFeedbackCell
    from unrolled.cells.gru import GRUCell as GRUCell
    from unrolled.cells.indrnn import IndRNNCell as IndRNNCell
    from unrolled.cells.jordan import JordanCell as JordanCell
    from unrolled.cells.layer_norm_lstm import LayerNormLSTMCell as LayerNormLSTMCell
    from unrolled.cells.lstm import LSTMCell as LSTMCell
    from unrolled.cells.mogrifier_lstm import MogrifierLSTMCell as MogrifierLSTMCell
    from unrolled.cells.multiplicative_lstm import MultiplicativeLSTMCell as MultiplicativeLSTMCell
    from unrolled.cells.noisy import NoisyCell as NoisyCell
    from unrolled.cells.peephole_lstm import PeepholeLSTMCell as PeepholeLSTMCell
    from unrolled.cells.pointwise import PointwiseCell as PointwiseCell
    from unrolled.cells.projected_lstm import ProjectedLSTMCell as ProjectedLSTMCell
    from unrolled.cells.reset_first_gru import ResetFirstGRUCell as ResetFirstGRUCell
    from unrolled.checkpoint import Bundle as Bundle
    from unrolled.checkpoint import build as build
    from unrolled.checkpoint import load_bundle as load_bundle
    from unrolled.classifier import SequenceClassifier as SequenceClassifier
    from unrolled.codecs.base import Codec as Codec
    from unrolled.codecs.image import CaptionCodec as CaptionCodec
    from unrolled.codecs.labels import LabelCodec as LabelCodec
    from unrolled.codecs.labels import NumberCodec as NumberCodec
    from unrolled.codecs.pair import PairCodec as PairCodec
    from unrolled.codecs.spaced import SpacedCodec as SpacedCodec
    from unrolled.codecs.subword import BPECodec as BPECodec
    from unrolled.codecs.subword import UnigramCodec as UnigramCodec
    from unrolled.codecs.text import ByteCodec as ByteCodec
    from unrolled.codecs.text import CharacterCodec as CharacterCodec
    from unrolled.codecs.text import SentenceCodec as SentenceCodec
    from unrolled.codecs.text import WordCodec as WordCodec
    from unrolled.conversion import from_torch as from_torch
    from unrolled.conversion import to_torch as to_torch
    from unrolled.decoders.attentive import AttentiveDecoder as AttentiveDecoder
    from unrolled.decoders.base import Decoded as Decoded
    from unrolled.decoders.base import Decoder as Decoder
    from unrolled.decoders.base import DecoderState as DecoderState
    from unrolled.decoders.orders import LookAfter as LookAfter
    from unrolled.decoders.orders import LookBefore as LookBefore
    from unrolled.decoders.orders import LookBetween as LookBetween
    from unrolled.decoders.orders import Order as Order
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
    from unrolled.hard_attention import Choices as Choices
    from unrolled.hard_attention import HardAttention as HardAttention
    from unrolled.hard_attention import choice_loss as choice_loss
    from unrolled.losses import Loss as Loss
    from unrolled.losses import binary_cross_entropy as binary_cross_entropy
    from unrolled.losses import coverage_loss as coverage_loss
    from unrolled.losses import cross_entropy as cross_entropy
    from unrolled.losses import doubly_stochastic_loss as doubly_stochastic_loss
    from unrolled.losses import squared_error as squared_error
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
    from unrolled.state import detach as detach
    from unrolled.state import select as select
    from unrolled.vision.encoder import ImageEncoder as ImageEncoder
    from unrolled.vision.images import ImageTransform as ImageTransform
    from unrolled.vision.trunks import EfficientNetLiteTrunk as EfficientNetLiteTrunk
    from unrolled.vision.trunks import SmallTrunk as SmallTrunk
    from unrolled.vision.trunks import TimmTrunk as TimmTrunk
    from unrolled.vision.trunks import TorchvisionTrunk as TorchvisionTrunk
    from unrolled.vision.trunks import Trunk as Trunk

_MODULE_OF = {
    "AdditiveAttention": "unrolled.attention",
    "Attended": "unrolled.attention",
    "Attention": "unrolled.attention",
    "AttentionPooling": "unrolled.pooling",
    "AttentiveDecoder": "unrolled.decoders.attentive",
    "AudioFeatures": "unrolled.audio.features",
    "BPECodec": "unrolled.codecs.subword",
    "Bundle": "unrolled.checkpoint",
    "ByteCodec": "unrolled.codecs.text",
    "CaptionCodec": "unrolled.codecs.image",
    "Cell": "unrolled.cells.base",
    "CharacterCodec": "unrolled.codecs.text",
    "Choices": "unrolled.hard_attention",
    "ClockworkCell": "unrolled.cells.clockwork",
    "Codec": "unrolled.codecs.base",
    "Decoded": "unrolled.decoders.base",
    "Decoder": "unrolled.decoders.base",
    "DecoderState": "unrolled.decoders.base",
    "DotAttention": "unrolled.attention",
    "EfficientNetLiteTrunk": "unrolled.vision.trunks",
    "ElmanCell": "unrolled.cells.elman",
    "EmbeddingDropout": "unrolled.dropout",
    "Encoded": "unrolled.encoders",
    "Encoder": "unrolled.encoders",
    "EncoderDecoder": "unrolled.networks",
    "EnsembleDecoder": "unrolled.generation.ensemble",
    "FeatureEncoder": "unrolled.encoders",
    "FeedForward": "unrolled.feedforward",
    "FullGateLSTMCell": "unrolled.cells.full_gate_lstm",
    "GRUCell": "unrolled.cells.gru",
    "GatedFeedbackCell": "unrolled.cells.gated_feedback",
    "HardAttention": "unrolled.hard_attention",
    "HiddenState": "unrolled.state",
    "Hypotheses": "unrolled.generation.beam",
    "ImageEncoder": "unrolled.vision.encoder",
    "ImageTransform": "unrolled.vision.images",
    "IndRNNCell": "unrolled.cells.indrnn",
    "JordanCell": "unrolled.cells.jordan",
    "LSTMCell": "unrolled.cells.lstm",
    "LSTMState": "unrolled.state",
    "LabelCodec": "unrolled.codecs.labels",
    "LastPooling": "unrolled.pooling",
    "LayerNormLSTMCell": "unrolled.cells.layer_norm_lstm",
    "LocationAttention": "unrolled.attention",
    "LookAfter": "unrolled.decoders.orders",
    "LookBefore": "unrolled.decoders.orders",
    "LookBetween": "unrolled.decoders.orders",
    "Loss": "unrolled.losses",
    "MaxPooling": "unrolled.pooling",
    "MeanPooling": "unrolled.pooling",
    "Memory": "unrolled.attention",
    "MogrifierLSTMCell": "unrolled.cells.mogrifier_lstm",
    "MultiplicativeAttention": "unrolled.attention",
    "MultiplicativeLSTMCell": "unrolled.cells.multiplicative_lstm",
    "NoisyCell": "unrolled.cells.noisy",
    "NumberCodec": "unrolled.codecs.labels",
    "Order": "unrolled.decoders.orders",
    "PairCodec": "unrolled.codecs.pair",
    "PeepholeLSTMCell": "unrolled.cells.peephole_lstm",
    "PictureReader": "unrolled.readers",
    "PointwiseCell": "unrolled.cells.pointwise",
    "Pooling": "unrolled.pooling",
    "ProjectedLSTMCell": "unrolled.cells.projected_lstm",
    "Recurrent": "unrolled.recurrent",
    "RecurrentDecoder": "unrolled.decoders.recurrent",
    "RecurrentEncoder": "unrolled.encoders",
    "RecurrentNoise": "unrolled.cells.base",
    "ResetFirstGRUCell": "unrolled.cells.reset_first_gru",
    "SentenceCodec": "unrolled.codecs.text",
    "SequenceClassifier": "unrolled.classifier",
    "SequenceDropout": "unrolled.dropout",
    "SeriesReader": "unrolled.readers",
    "ShapeError": "unrolled.shapes",
    "SmallTrunk": "unrolled.vision.trunks",
    "SpacedCodec": "unrolled.codecs.spaced",
    "SummaryAttention": "unrolled.attention",
    "TimmTrunk": "unrolled.vision.trunks",
    "TokenDropout": "unrolled.dropout",
    "TorchvisionTrunk": "unrolled.vision.trunks",
    "Trunk": "unrolled.vision.trunks",
    "UnigramCodec": "unrolled.codecs.subword",
    "WeighingAttention": "unrolled.attention",
    "WordCodec": "unrolled.codecs.text",
    "beam_search": "unrolled.generation.beam",
    "binary_cross_entropy": "unrolled.losses",
    "build": "unrolled.checkpoint",
    "choice_loss": "unrolled.hard_attention",
    "coverage_loss": "unrolled.losses",
    "cross_entropy": "unrolled.losses",
    "detach": "unrolled.state",
    "doubly_stochastic_loss": "unrolled.losses",
    "expect": "unrolled.shapes",
    "from_torch": "unrolled.conversion",
    "greedy": "unrolled.generation.sampling",
    "load_bundle": "unrolled.checkpoint",
    "own_inputs": "unrolled.generation.sampling",
    "sample": "unrolled.generation.sampling",
    "select": "unrolled.state",
    "squared_error": "unrolled.losses",
    "to_torch": "unrolled.conversion",
    "unroll": "unrolled.recurrent",
}

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"

# A wheel carries the configuration inside the package, as unrolled/conf. In a working copy it lies at the top level,
# where people look for it. This one name is made to mean the same in both; `__path__` stays as it is, or whatever lies
# beside conf would count as code of this package, which a checkpoint may name.
_conf = Path(__file__).resolve().parents[2] / "conf" / "__init__.py"
if _conf.is_file() and (_conf.parents[1] / "pyproject.toml").is_file():
    _spec = spec_from_file_location("unrolled.conf", _conf, submodule_search_locations=[str(_conf.parent)])
    if _spec is not None:
        sys.modules["unrolled.conf"] = module_from_spec(_spec)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'unrolled' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
