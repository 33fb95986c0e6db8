"""Recurrent networks, unrolled through time: any cell, any depth, either direction, on torch alone.

Names load on first use, so that `import unrolled` costs nothing and a command line can be checked before torch is.
"""

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from unrolled.generation.beam import Hypotheses as Hypotheses
    from unrolled.generation.beam import beam_search as beam_search
    from unrolled.generation.ensemble import EnsembleDecoder as EnsembleDecoder
    from unrolled.generation.sampling import greedy as greedy
    from unrolled.generation.sampling import own_inputs as own_inputs
    from unrolled.generation.sampling import sample as sample
    from unrolled.layers.attention import AdditiveAttention as AdditiveAttention
    from unrolled.layers.attention import Attended as Attended
    from unrolled.layers.attention import Attention as Attention
    from unrolled.layers.attention import DotAttention as DotAttention
    from unrolled.layers.attention import LocationAttention as LocationAttention
    from unrolled.layers.attention import Memory as Memory
    from unrolled.layers.attention import MultiplicativeAttention as MultiplicativeAttention
    from unrolled.layers.attention import SummaryAttention as SummaryAttention
    from unrolled.layers.attention import WeighingAttention as WeighingAttention
    from unrolled.layers.conversion import from_torch as from_torch
    from unrolled.layers.conversion import to_torch as to_torch
    from unrolled.layers.dropout import EmbeddingDropout as EmbeddingDropout
    from unrolled.layers.dropout import SequenceDropout as SequenceDropout
    from unrolled.layers.dropout import TokenDropout as TokenDropout
    from unrolled.layers.encoded import Encoded as Encoded
    from unrolled.layers.feedforward import FeedForward as FeedForward
    from unrolled.layers.hard_attention import Choices as Choices
    from unrolled.layers.hard_attention import HardAttention as HardAttention
    from unrolled.layers.hard_attention import choice_loss as choice_loss
    from unrolled.layers.pooling import AttentionPooling as AttentionPooling
    from unrolled.layers.pooling import LastPooling as LastPooling
    from unrolled.layers.pooling import MaxPooling as MaxPooling
    from unrolled.layers.pooling import MeanPooling as MeanPooling
    from unrolled.layers.pooling import Pooling as Pooling
    from unrolled.layers.recurrent import Recurrent as Recurrent
    from unrolled.layers.recurrent import unroll as unroll
    from unrolled.losses import Loss as Loss
    from unrolled.losses import binary_cross_entropy as binary_cross_entropy
    from unrolled.losses import coverage_loss as coverage_loss
    from unrolled.losses import cross_entropy as cross_entropy
    from unrolled.losses import doubly_stochastic_loss as doubly_stochastic_loss
    from unrolled.losses import squared_error as squared_error
    from unrolled.models.classifier import SequenceClassifier as SequenceClassifier
    from unrolled.models.decoders.attentive import AttentiveDecoder as AttentiveDecoder
    from unrolled.models.decoders.base import Decoded as Decoded
    from unrolled.models.decoders.base import Decoder as Decoder
    from unrolled.models.decoders.base import DecoderState as DecoderState
    from unrolled.models.decoders.orders import LookAfter as LookAfter
    from unrolled.models.decoders.orders import LookBefore as LookBefore
    from unrolled.models.decoders.orders import LookBetween as LookBetween
    from unrolled.models.decoders.orders import Order as Order
    from unrolled.models.decoders.recurrent import RecurrentDecoder as RecurrentDecoder
    from unrolled.models.encoder_decoder import EncoderDecoder as EncoderDecoder
    from unrolled.models.encoders import Encoder as Encoder
    from unrolled.models.encoders import FeatureEncoder as FeatureEncoder
    from unrolled.models.encoders import RecurrentEncoder as RecurrentEncoder
    from unrolled.models.images.encoder import ImageEncoder as ImageEncoder
    from unrolled.models.images.trunks import EfficientNetLiteTrunk as EfficientNetLiteTrunk
    from unrolled.models.images.trunks import SmallTrunk as SmallTrunk
    from unrolled.models.images.trunks import TimmTrunk as TimmTrunk
    from unrolled.models.images.trunks import TorchvisionTrunk as TorchvisionTrunk
    from unrolled.models.images.trunks import Trunk as Trunk
    from unrolled.processing.audio.features import AudioFeatures as AudioFeatures
    from unrolled.processing.frames import PictureReader as PictureReader
    from unrolled.processing.frames import SeriesReader as SeriesReader
    from unrolled.processing.images import ImageTransform as ImageTransform
    from unrolled.processing.labels import LabelCodec as LabelCodec
    from unrolled.processing.labels import NumberCodec as NumberCodec
    from unrolled.processing.text.base import Codec as Codec
    from unrolled.processing.text.captions import CaptionCodec as CaptionCodec
    from unrolled.processing.text.pair import PairCodec as PairCodec
    from unrolled.processing.text.spaced import SpacedCodec as SpacedCodec
    from unrolled.processing.text.subword import BPECodec as BPECodec
    from unrolled.processing.text.subword import UnigramCodec as UnigramCodec
    from unrolled.processing.text.tokenizers import ByteCodec as ByteCodec
    from unrolled.processing.text.tokenizers import CharacterCodec as CharacterCodec
    from unrolled.processing.text.tokenizers import SentenceCodec as SentenceCodec
    from unrolled.processing.text.tokenizers import WordCodec as WordCodec
    from unrolled.shapes import ShapeError as ShapeError
    from unrolled.shapes import expect as expect
    from unrolled.state import HiddenState as HiddenState
    from unrolled.state import LSTMState as LSTMState
    from unrolled.state import detach as detach
    from unrolled.state import select as select

_MODULE_OF = {
    "AdditiveAttention": "unrolled.layers.attention",
    "Attended": "unrolled.layers.attention",
    "Attention": "unrolled.layers.attention",
    "AttentionPooling": "unrolled.layers.pooling",
    "AttentiveDecoder": "unrolled.models.decoders.attentive",
    "AudioFeatures": "unrolled.processing.audio.features",
    "BPECodec": "unrolled.processing.text.subword",
    "Bundle": "unrolled.checkpoint",
    "ByteCodec": "unrolled.processing.text.tokenizers",
    "CaptionCodec": "unrolled.processing.text.captions",
    "Cell": "unrolled.cells.base",
    "CharacterCodec": "unrolled.processing.text.tokenizers",
    "Choices": "unrolled.layers.hard_attention",
    "ClockworkCell": "unrolled.cells.clockwork",
    "Codec": "unrolled.processing.text.base",
    "Decoded": "unrolled.models.decoders.base",
    "Decoder": "unrolled.models.decoders.base",
    "DecoderState": "unrolled.models.decoders.base",
    "DotAttention": "unrolled.layers.attention",
    "EfficientNetLiteTrunk": "unrolled.models.images.trunks",
    "ElmanCell": "unrolled.cells.elman",
    "EmbeddingDropout": "unrolled.layers.dropout",
    "Encoded": "unrolled.layers.encoded",
    "Encoder": "unrolled.models.encoders",
    "EncoderDecoder": "unrolled.models.encoder_decoder",
    "EnsembleDecoder": "unrolled.generation.ensemble",
    "FeatureEncoder": "unrolled.models.encoders",
    "FeedForward": "unrolled.layers.feedforward",
    "FullGateLSTMCell": "unrolled.cells.full_gate_lstm",
    "GRUCell": "unrolled.cells.gru",
    "GatedFeedbackCell": "unrolled.cells.gated_feedback",
    "HardAttention": "unrolled.layers.hard_attention",
    "HiddenState": "unrolled.state",
    "Hypotheses": "unrolled.generation.beam",
    "ImageEncoder": "unrolled.models.images.encoder",
    "ImageTransform": "unrolled.processing.images",
    "IndRNNCell": "unrolled.cells.indrnn",
    "JordanCell": "unrolled.cells.jordan",
    "LSTMCell": "unrolled.cells.lstm",
    "LSTMState": "unrolled.state",
    "LabelCodec": "unrolled.processing.labels",
    "LastPooling": "unrolled.layers.pooling",
    "LayerNormLSTMCell": "unrolled.cells.layer_norm_lstm",
    "LocationAttention": "unrolled.layers.attention",
    "LookAfter": "unrolled.models.decoders.orders",
    "LookBefore": "unrolled.models.decoders.orders",
    "LookBetween": "unrolled.models.decoders.orders",
    "Loss": "unrolled.losses",
    "MaxPooling": "unrolled.layers.pooling",
    "MeanPooling": "unrolled.layers.pooling",
    "Memory": "unrolled.layers.attention",
    "MogrifierLSTMCell": "unrolled.cells.mogrifier_lstm",
    "MultiplicativeAttention": "unrolled.layers.attention",
    "MultiplicativeLSTMCell": "unrolled.cells.multiplicative_lstm",
    "NoisyCell": "unrolled.cells.noisy",
    "NumberCodec": "unrolled.processing.labels",
    "Order": "unrolled.models.decoders.orders",
    "PairCodec": "unrolled.processing.text.pair",
    "PeepholeLSTMCell": "unrolled.cells.peephole_lstm",
    "PictureReader": "unrolled.processing.frames",
    "PointwiseCell": "unrolled.cells.pointwise",
    "Pooling": "unrolled.layers.pooling",
    "ProjectedLSTMCell": "unrolled.cells.projected_lstm",
    "Recurrent": "unrolled.layers.recurrent",
    "RecurrentDecoder": "unrolled.models.decoders.recurrent",
    "RecurrentEncoder": "unrolled.models.encoders",
    "RecurrentNoise": "unrolled.cells.base",
    "ResetFirstGRUCell": "unrolled.cells.reset_first_gru",
    "SentenceCodec": "unrolled.processing.text.tokenizers",
    "SequenceClassifier": "unrolled.models.classifier",
    "SequenceDropout": "unrolled.layers.dropout",
    "SeriesReader": "unrolled.processing.frames",
    "ShapeError": "unrolled.shapes",
    "SmallTrunk": "unrolled.models.images.trunks",
    "SpacedCodec": "unrolled.processing.text.spaced",
    "SummaryAttention": "unrolled.layers.attention",
    "TimmTrunk": "unrolled.models.images.trunks",
    "TokenDropout": "unrolled.layers.dropout",
    "TorchvisionTrunk": "unrolled.models.images.trunks",
    "Trunk": "unrolled.models.images.trunks",
    "UnigramCodec": "unrolled.processing.text.subword",
    "WeighingAttention": "unrolled.layers.attention",
    "WordCodec": "unrolled.processing.text.tokenizers",
    "beam_search": "unrolled.generation.beam",
    "binary_cross_entropy": "unrolled.losses",
    "build": "unrolled.checkpoint",
    "choice_loss": "unrolled.layers.hard_attention",
    "coverage_loss": "unrolled.losses",
    "cross_entropy": "unrolled.losses",
    "detach": "unrolled.state",
    "doubly_stochastic_loss": "unrolled.losses",
    "expect": "unrolled.shapes",
    "from_torch": "unrolled.layers.conversion",
    "greedy": "unrolled.generation.sampling",
    "load_bundle": "unrolled.checkpoint",
    "own_inputs": "unrolled.generation.sampling",
    "sample": "unrolled.generation.sampling",
    "select": "unrolled.state",
    "squared_error": "unrolled.losses",
    "to_torch": "unrolled.layers.conversion",
    "unroll": "unrolled.layers.recurrent",
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
