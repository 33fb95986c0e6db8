"""Recurrent networks, unrolled through time: any cell, any depth, either direction, on torch alone.

Names load on first use, so that `import unrolled` costs nothing and a command line can be checked before torch is.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unrolled.cells.base import Cell as Cell
    from unrolled.cells.base import RecurrentNoise as RecurrentNoise
    from unrolled.cells.elman import ElmanCell as ElmanCell
    from unrolled.cells.gru import GRUCell as GRUCell
    from unrolled.cells.lstm import LSTMCell as LSTMCell
    from unrolled.checkpoint import Bundle as Bundle
    from unrolled.checkpoint import build as build
    from unrolled.checkpoint import load_bundle as load_bundle
    from unrolled.codecs import ByteCodec as ByteCodec
    from unrolled.codecs import CharacterCodec as CharacterCodec
    from unrolled.codecs import Codec as Codec
    from unrolled.codecs import WordCodec as WordCodec
    from unrolled.decoders import Decoded as Decoded
    from unrolled.decoders import Decoder as Decoder
    from unrolled.decoders import DecoderState as DecoderState
    from unrolled.decoders import RecurrentDecoder as RecurrentDecoder
    from unrolled.encoders import Encoded as Encoded
    from unrolled.encoders import Encoder as Encoder
    from unrolled.encoders import RecurrentEncoder as RecurrentEncoder
    from unrolled.generation import greedy as greedy
    from unrolled.generation import sample as sample
    from unrolled.losses import Loss as Loss
    from unrolled.losses import cross_entropy as cross_entropy
    from unrolled.recurrent import Recurrent as Recurrent
    from unrolled.recurrent import unroll as unroll
    from unrolled.shapes import ShapeError as ShapeError
    from unrolled.shapes import expect as expect
    from unrolled.state import HiddenState as HiddenState
    from unrolled.state import LSTMState as LSTMState

_MODULE_OF = {
    "Bundle": "unrolled.checkpoint",
    "ByteCodec": "unrolled.codecs",
    "Cell": "unrolled.cells.base",
    "CharacterCodec": "unrolled.codecs",
    "Codec": "unrolled.codecs",
    "Decoded": "unrolled.decoders",
    "Decoder": "unrolled.decoders",
    "DecoderState": "unrolled.decoders",
    "ElmanCell": "unrolled.cells.elman",
    "Encoded": "unrolled.encoders",
    "Encoder": "unrolled.encoders",
    "GRUCell": "unrolled.cells.gru",
    "HiddenState": "unrolled.state",
    "LSTMCell": "unrolled.cells.lstm",
    "LSTMState": "unrolled.state",
    "Loss": "unrolled.losses",
    "Recurrent": "unrolled.recurrent",
    "RecurrentDecoder": "unrolled.decoders",
    "RecurrentEncoder": "unrolled.encoders",
    "RecurrentNoise": "unrolled.cells.base",
    "ShapeError": "unrolled.shapes",
    "WordCodec": "unrolled.codecs",
    "build": "unrolled.checkpoint",
    "cross_entropy": "unrolled.losses",
    "expect": "unrolled.shapes",
    "greedy": "unrolled.generation",
    "load_bundle": "unrolled.checkpoint",
    "sample": "unrolled.generation",
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
